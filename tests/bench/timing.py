"""Alternating measurement of contenders, and the rows of the benchmark."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision

ROOT = Path(__file__).resolve().parents[2]
REFERENCE, AVLOC, MACHINE = "reference", "avloc", "machine"
Row = dict[str, Any]
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the command line that apply to every row."""

    repeats: int = 3
    clips: int | None = None
    batch: int | None = None
    video_seconds: float = 60.0
    quick: bool = False
    methods: tuple[str, ...] = ()
    """Methods of the row about methods; empty: all of them."""

    @property
    def few(self) -> int:
        """Measured rounds of rows whose round takes minutes."""
        return max(1, self.repeats // 2)

    def count(self, usual: int, quick: int) -> int:
        """Number of clips of a row."""
        return self.clips or (quick if self.quick else usual)

    def size(self, usual: int, quick: int) -> int:
        """Batch size of a row."""
        return self.batch or (quick if self.quick else usual)


class Lap(NamedTuple):
    """Duration of one call: wall-clock time, and CPU time of this process and its children."""

    wall_s: float
    processor_s: float


def interleaved(
    repeats: int, contenders: Mapping[str, Callable[[], object]], *, warm: bool = True
) -> dict[str, list[Lap]]:
    """Time the contenders alternately (A B A B ...), so that a machine that slows down slows all of them.

    Args:
        repeats: measured rounds.
        contenders: functions by name.
        warm: call each once before, without measuring.
    """
    if warm:
        for call in contenders.values():
            call()
    laps: dict[str, list[Lap]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            laps[name].append(lap(call))
    return laps


def lap(call: Callable[[], object]) -> Lap:
    """Time one call."""
    processor, wall = sum(os.times()[:4]), time.perf_counter()
    call()
    return Lap(time.perf_counter() - wall, sum(os.times()[:4]) - processor)


def walls(laps: Sequence[Lap]) -> list[float]:
    """Wall-clock times."""
    return [one.wall_s for one in laps]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and all values."""
    return {"median": _rounded(statistics.median(values)), "all": [_rounded(value) for value in values]}


def compared(
    name: str,
    what: str,
    laps: Mapping[str, Sequence[Lap]],
    *,
    work: float = 0,
    unit: str = "s",
    reference: str = REFERENCE,
    avloc: str = AVLOC,
    **more: Any,
) -> Row:
    """A row of two contenders.

    Args:
        name: name of the row.
        what: description of the work.
        laps: laps of all contenders, from `interleaved`.
        work: amount of work per call; if options, the row holds rates.
        unit: unit of the values.
        reference: name of the reference contender.
        avloc: name of avloc's contender.
        more: further facts.
    """
    both = {REFERENCE: laps[reference], AVLOC: laps[avloc]}
    values = {key: [work / one if work else one for one in walls(own)] for key, own in both.items()}
    median = {key: statistics.median(own) for key, own in values.items()}
    ratio = median[AVLOC] / median[REFERENCE] if work else median[REFERENCE] / median[AVLOC]
    sides = {key: spread(own) for key, own in values.items()}
    processor = {key: _rounded(statistics.median(one.processor_s for one in own)) for key, own in both.items()}
    head = {"row": name, "what": what, "unit": unit, **sides, "ratio": _rounded(ratio)}
    return {**head, "processor_s": processor, **more}


def alone(name: str, what: str, values: Sequence[float], unit: str = "s", *, side: str = AVLOC, **more: Any) -> Row:
    """A row of one side only: avloc's, or that of `side`."""
    sides = {REFERENCE: None, AVLOC: None, side: spread(values)}
    return {"row": name, "what": what, "unit": unit, **sides, "ratio": None, **more}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` in a temporary folder; raise RuntimeError if it fails.

    Processes that it leaves, as the server of `avloc.fork_server`, are waited for, so that their time is counted.
    """
    before = _children()
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment},
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=False,
    )
    for process in _children() - before:
        os.waitpid(process, 0)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done


def _children() -> set[int]:
    """Children of this process, which becomes the parent of descendants whose own parents end."""
    if sys.platform != "linux":
        return set()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def header() -> dict[str, Any]:
    """Machine and versions; no date and no user."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16_in_hardware": {
            name: bool(torch.cpu.get_capabilities().get(name, False)) for name in ("avx512_bf16", "amx_bf16")
        },
        "memory_gb": _rounded(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "ratio": "how many times faster avloc is by the clock: above 1 is in its favour",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
