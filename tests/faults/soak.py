"""Run `prepare` and `eval` on 20,000 short clips, 1 % of them broken, and sample the memory use."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from avloc.store import Store
from avloc.store.shard_file import Shard
from avloc.store.shards import shard_paths
from tests.media_makers import disc, make_picture, make_sound, tone
from tests.program import ROOT
from tests.small_models import save_small

_DISTINCT = 64
_SAMPLE_S = 0.25


@dataclass
class Soak:
    """Result of the run."""

    clips: int
    broken_files: int = 0
    broken_pictures: int = 0
    """Pictures overwritten in the finished store."""
    stored: int = 0
    skipped: int = 0
    scored: int = 0
    failed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, list[int]] = field(default_factory=dict)
    """Largest sum over the command's processes in each tenth of its run time."""
    faults: list[str] = field(default_factory=list)


def _write_media(folder: Path, clips: int, rng: random.Random, share: float) -> set[str]:
    """Hard-link a few pictures and sounds under many names, break some clips, and return their ids."""
    frames, audio = folder / "frames", folder / "audio"
    for place in (frames, audio):
        place.mkdir(parents=True)
    whole = []
    for number in range(_DISTINCT):
        place = folder.with_name("whole") / str(number)
        picture = make_picture(place.with_suffix(".jpg"), disc((64, 64), (0.2 + 0.6 * number / _DISTINCT, 0.5)))
        sound = make_sound(place.with_suffix(".wav"), tone(0.3, 8_000, hz=200 + 20 * number), 8_000)
        whole.append((picture, sound))
    broken = set(rng.sample([f"clip{number:05d}" for number in range(clips)], round(share * clips)))
    for number in range(clips):
        name = f"clip{number:05d}"
        for kind, source in zip((frames, audio), whole[number % _DISTINCT], strict=True):
            os.link(source, kind / f"{name}{source.suffix}")
        if name in broken:
            broken_file = rng.choice((frames / f"{name}.jpg", audio / f"{name}.wav"))
            data = broken_file.read_bytes()
            broken_file.unlink()
            broken_file.write_bytes(rng.choice((b"", data[: len(data) // 8][:40], rng.randbytes(len(data)))))
    boxes = {f"frames/clip{number:05d}.jpg": [[0.2, 0.2, 0.8, 0.8]] for number in range(clips)}
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return broken


def _break_pictures(store: Path, rng: random.Random, share: float) -> set[str]:
    broken = set()
    for path in shard_paths(store):
        names = Shard(path).texts("id")
        with h5py.File(path, "r+") as file:
            offsets = file["picture_offset"][:]
            for row, name in enumerate(names):
                if rng.random() < share:
                    file["picture"][offsets[row] : offsets[row + 1]] = np.zeros(
                        offsets[row + 1] - offsets[row], np.uint8
                    )
                    broken.add(name)
    return broken


def _run_sampled(soak: Soak, *arguments: object) -> dict[str, object]:
    """Run a command, sample the memory of its processes, and return its JSON output."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "avloc", *map(str, arguments), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    name = str(arguments[0])
    with tempfile.TemporaryFile() as printed:
        with subprocess.Popen(
            command, env=environment, stdout=printed, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            samples = list(_memory_samples(process))
        printed.seek(0)
        out = printed.read()
    soak.seconds[name] = round(time.monotonic() - begun, 1)
    tenths = np.array_split(np.array(samples), 10)
    soak.memory_mb[name] = [int(part.max()) for part in tenths if len(part)]
    if process.returncode not in (0, 1):
        soak.faults.append(f"{name} exits with {process.returncode}")
    return json.loads(out.splitlines()[0])


def _memory_samples(process: subprocess.Popen[bytes]) -> Iterator[float]:
    while process.poll() is None:
        yield sum(_private_mb(Path(f"/proc/{pid}")) for pid in _group(process.pid))
        time.sleep(_SAMPLE_S)


def _group(leader: int) -> list[int]:
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    return [pid for pid in pids if _session(pid) == leader]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _private_mb(process: Path) -> float:
    try:
        pages = (process / "statm").read_text().split()
    except OSError:
        return 0.0
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20


def soaked(work: Path, *, clips: int, share: float, seed: int) -> Soak:
    """Run the soak test.

    Args:
        work: an empty folder; a few gigabytes are written.
        clips: number of clips.
        share: share of broken files, and again of broken pictures in the store.
        seed: seed of which files break, and how.
    """
    rng, soak = random.Random(seed), Soak(clips)
    media, store = work / "media", work / "store"
    broken = _write_media(media, clips, rng, share)
    soak.broken_files = len(broken)
    report = _run_sampled(soak, "prepare", media, "--annotations", media / "boxes.json", "--out", store)
    skipped = [json.loads(line) for line in (store / "skipped.jsonl").read_text().splitlines()]
    soak.stored, soak.skipped = len(Store(store)), len(skipped)
    if {entry["id"] for entry in skipped} != broken or len(skipped) != len(broken):
        soak.faults.append(f"skipped.jsonl names {len(skipped)} inputs, {len(broken)} were broken")
    if (report["stored"], report["failed"]) != (clips - len(broken), len(broken)):
        soak.faults.append(f"prepare counts {report['stored']} and {report['failed']}")
    damaged = _break_pictures(store, rng, share)
    soak.broken_pictures = len(damaged)
    model = save_small(work / "model.safetensors")
    allowed = ("--max-missing", len(broken) + len(damaged))
    scores = _run_sampled(soak, "eval", model, "--store", store, "--maps", "av", "--batch", 64, *allowed)
    soak.scored, missing = int(scores["n_scored"]), set(scores["missing"])
    soak.failed = len(missing)
    if missing != broken | damaged or soak.scored != clips - len(broken) - len(damaged):
        soak.faults.append(
            f"eval scores {soak.scored} and misses {len(missing)} of {len(broken | damaged)} broken ones"
        )
    for name, tenths in soak.memory_mb.items():
        if max(tenths[5:]) > 1.15 * max(tenths[1:5]):
            soak.faults.append(f"{name} grows: {tenths} MB")
    return soak
