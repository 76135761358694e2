"""Run `prepare` and `localize` on the malformed corpus: each file gives a result or a named error in bounded time."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avloc.console.terminal import escape
from avloc.store import Store
from tests.faults.corpus import damaged, odd_paths, odd_pictures, odd_sounds, odd_videos, originals
from tests.media_makers import disc, make_picture, make_sound, tone
from tests.program import ROOT
from tests.small_models import save_small

_PICTURES, _SOUNDS = (".jpg", ".png", ".webp", ".bmp"), (".wav", ".flac", ".ogg", ".mp3")
_SECONDS_EACH = 1.0
"""Time limit for each input, on average."""
_PEAK_MEMORY = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024))
sys.exit(done.returncode)
"""
"""Run a command and write its peak memory in MB. In a process of its own, because peak memory is inherited on fork."""
_UNDECODABLE = "no-\\udcff-text"


@dataclass
class Corpus:
    """Results for the inputs."""

    inputs: int = 0
    used: int = 0
    refused: int = 0
    seconds: float = 0.0
    largest_mb: float = 0.0
    """Resident memory of the largest process."""
    reasons: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def write_corpus(
    folder: Path, *, flips: int, cuts: int, seed: int
) -> tuple[Counter[str], dict[str, bool], dict[str, bool]]:
    """Write `videos/` and `pairs/` with every damaged file; the other half of a damaged pair is valid.

    Returns:
        The number of `videos` and `pairs`, and whether `prepare` can use each file for which this is known.
    """
    videos, frames, audio = folder / "videos", folder / "pairs" / "frames", folder / "pairs" / "audio"
    for place in (videos, frames, audio):
        place.mkdir(parents=True)
    picture = make_picture(folder / "whole.jpg", disc((96, 64), (0.5, 0.5))).read_bytes()
    sound = make_sound(folder / "whole.wav", tone(2.0, 22_050), 22_050).read_bytes()
    counts, known = Counter[str](), {}
    odd = odd_videos(videos)
    whole = originals(folder / "originals")
    odd |= odd_paths(videos, whole[0])
    counts["videos"] = len(odd)

    def pair(
        name: str, *, frame: tuple[str, bytes] = (".jpg", picture), audio_file: tuple[str, bytes] = (".wav", sound)
    ) -> None:
        (frames / f"{name}{frame[0]}").write_bytes(frame[1])
        (audio / f"{name}{audio_file[0]}").write_bytes(audio_file[1])
        counts["pairs"] += 1

    for path in whole:
        for damage, data in damaged(path, flips=flips, cuts=cuts, seed=seed):
            name = f"{path.stem}-{path.suffix[1:]} {damage}"
            if path.suffix in _PICTURES:
                pair(name, frame=(path.suffix, data))
            elif path.suffix in _SOUNDS:
                pair(name, audio_file=(path.suffix, data))
            else:
                (videos / f"{name}{path.suffix}").write_bytes(data)
                counts["videos"] += 1
    for name, data, usable in odd_sounds():
        pair(f"sound {name}", audio_file=(".wav", data))
        known[f"sound {name}"] = usable
    for name, data, usable in odd_pictures():
        pair(f"picture {name}", frame=(".png", data))
        known[f"picture {name}"] = usable
    return counts, odd, known


def _run(
    corpus: Corpus, inputs: int, *arguments: object, data: bytes | None = None
) -> tuple[list[dict[str, object]], str]:
    """Run a command on `inputs` inputs; return its JSON lines and its standard error."""
    corpus.inputs += inputs
    begun = time.monotonic()
    peak_file = Path(tempfile.gettempdir()) / f"avloc-peak-{os.getpid()}"
    command = [
        sys.executable,
        "-c",
        _PEAK_MEMORY,
        peak_file,
        sys.executable,
        "-m",
        "avloc",
        *map(str, arguments),
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "400"}
    limit = 60 + inputs * _SECONDS_EACH
    try:
        done = subprocess.run(command, env=environment, input=data, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        corpus.faults.append(f"{arguments[0]} has not ended after {limit:.0f} s")
        return [], ""
    corpus.seconds += time.monotonic() - begun
    corpus.largest_mb = max(corpus.largest_mb, float(peak_file.read_text()))
    peak_file.unlink()
    err = done.stderr.decode(errors="replace")
    if done.returncode not in (0, 1, 3) or "Traceback" in err:
        corpus.faults.append(f"{arguments[0]} exits with {done.returncode}: {err[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")], err


def _prepared(corpus: Corpus, folder: Path, out: Path, inputs: int, known: dict[str, bool]) -> None:
    _run(corpus, inputs, "prepare", folder, "--out", out)
    store = Store(out)
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    ids = [*store.ids, *(entry["id"] for entry in skipped)]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if len(ids) != inputs or twice:
        corpus.faults.append(f"prepare: {inputs} inputs, {len(store)} stored, {len(skipped)} skipped, twice: {twice}")
    corpus.used += len(store)
    corpus.refused += len(skipped)
    for entry in skipped:
        plain = entry["reason"].replace(str(folder), "")
        reason = re.sub(r"sound \S*/audio/.*?: ", "sound: ", re.sub(r"\d+", "N", plain))[:70]
        corpus.reasons[reason] = corpus.reasons.get(reason, 0) + 1
    for name in store.ids:
        clip = store.read(name)
        if not clip.picture or not np.isfinite(clip.sound.astype(np.float64)).all():
            corpus.faults.append(f"{name} has no picture or no sound")
    corpus.faults += [
        f"{name}: usable is {not usable}" for name, usable in known.items() if (name in store.ids) != usable
    ]


def malformed(work: Path, *, flips: int, cuts: int, seed: int) -> Corpus:
    """Run the commands on the whole corpus.

    Args:
        work: an empty folder.
        flips: copies of each valid file with flipped bits.
        cuts: truncated copies of each valid file.
        seed: seed of both.
    """
    corpus = Corpus()
    counts, odd, known = write_corpus(work, flips=flips, cuts=cuts, seed=seed)
    _prepared(corpus, work / "videos", work / "store-videos", counts["videos"], odd)
    _prepared(corpus, work / "pairs", work / "store-pairs", counts["pairs"], known)
    model = save_small(work / "model.safetensors")
    odd[_UNDECODABLE] = True  # not valid as the id of a clip in a store, but valid as the name of an overlay
    _localized(corpus, work, model, counts["videos"], odd)
    whole = (work / "originals" / "video-mpeg4.mp4").read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole)):
        _piped(corpus, model, whole[:length], usable=length == len(whole))
    return corpus


def _localized(corpus: Corpus, work: Path, model: Path, inputs: int, odd: dict[str, bool]) -> None:
    results, err = _run(corpus, inputs, "localize", work / "videos", "--model", model, "--out", work / "out")
    shutil.rmtree(work / "out", ignore_errors=True)
    done = {str(result["input"]) for result in results if not result["error"]}
    reasons = {str(result["input"]): result["error"] for result in results if result["error"]}
    unnamed = [name for name in reasons if escape(name) not in err]
    if len(done | reasons.keys()) != inputs or unnamed:
        corpus.faults.append(f"localize: {inputs} videos, {len(results)} results, not named: {unnamed}")
    bad = {name: reason for name, reason in reasons.items() if name not in done}  # the others failed later
    for name, reason in bad.items():
        if odd.get(Path(name).stem.encode(errors="backslashreplace").decode()):
            corpus.faults.append(f"localize: {name}: {reason}")
    corpus.used += len(done)
    corpus.refused += len(bad)


def _piped(corpus: Corpus, model: Path, data: bytes, *, usable: bool) -> None:
    """Localize a possibly truncated video from standard input."""
    (result,), err = _run(corpus, 1, "localize", "-", "--model", model, data=data)
    if (result["error"] is None) != usable:
        corpus.faults.append(f"localize - with {len(data)} bytes: {result['error']}: {err}")
    corpus.used += usable
    corpus.refused += not usable
