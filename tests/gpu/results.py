"""Rows of the table of `python -m tests.gpu`, and what all checks share."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

MEASURED, PASSED, FAILED, SKIPPED = "measured", "passed", "failed", "skipped"


class Skipped(Exception):
    """A check cannot run here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all checks get."""

    device: torch.device
    quick: bool
    """Tiny sizes."""
    work: Path
    """Folder for what a check writes."""
    ends: float
    """Value of `time.monotonic` at which the command should have ended."""

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.type == "cuda"

    def size(self, usual: int, quick: int) -> int:
        """A size, in a quick run the second one."""
        return quick if self.quick else usual

    def left_s(self) -> float:
        """Seconds until the command should have ended."""
        return self.ends - time.monotonic()

    def patience_s(self, most: float) -> float:
        """How long to wait for a process: `most` seconds, or what is left of the command's time."""
        return max(1.0, min(most, self.left_s()))

    def pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in pinned memory if the device is a GPU, as loaders give it."""
        return tensor.pin_memory() if self.on_gpu else tensor

    def wait(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object], times: int, *, warm: int = 2) -> float:
        """Mean seconds of a call on the device, after `warm` calls."""
        for _ in range(warm):
            call()
        self.wait()
        start = time.perf_counter()
        for _ in range(times):
            call()
        self.wait()
        return (time.perf_counter() - start) / times


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    value: float | str = ""
    unit: str = ""
    bar: str = ""
    outcome: str = MEASURED
    """`measured` without a bar, `passed`, `failed` or `skipped`."""
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def text(self) -> str:
        """The row for a terminal."""
        value = f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)
        bar = f" (bar {self.bar})" if self.bar else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.outcome:8}  {self.name}  {value} {self.unit}{bar}{reason}".rstrip()


def at_most(name: str, value: float, most: float, unit: str = "", reason: str = "") -> Row:
    """A row that passes up to a value; NaN fails."""
    return _compared(name, value, unit, f"<= {most:g}", holds=value <= most, reason=reason)


def at_least(name: str, value: float, least: float, unit: str = "", reason: str = "") -> Row:
    """A row that passes from a value on; NaN fails."""
    return _compared(name, value, unit, f">= {least:g}", holds=value >= least, reason=reason)


def equal(name: str, value: str, wanted: str, reason: str = "") -> Row:
    """A row that passes if two words are equal."""
    return _compared(name, value, "", wanted, holds=value == wanted, reason=reason)


def _compared(name: str, value: float | str, unit: str, bar: str, *, holds: bool, reason: str) -> Row:
    outcome = PASSED if holds else FAILED
    return Row(name=name, value=value, unit=unit, bar=bar, outcome=outcome, reason="" if holds else reason)


def attempted(name: str, rows: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of a check; an exception becomes a row, so that other checks still run."""
    try:
        yield from rows()
    except Skipped as reason:
        yield Row(name=name, outcome=SKIPPED, reason=str(reason))
    except Exception:  # noqa: BLE001
        yield Row(name=name, outcome=FAILED, reason=traceback.format_exc())


def difference(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    """Length of the difference of two tensors over the length of the second."""
    one, other = (each.detach().double().cpu().flatten() for each in (mine, theirs))
    norm = other.norm().item()
    return (one - other).norm().item() / norm if norm else math.inf
