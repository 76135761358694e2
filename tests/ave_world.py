"""A synthetic AVE: released-like feature files in which an event is heard and seen together, in one cell.

Outside of its event a clip is heard or seen but never both, or neither; which of two alike sounds belongs to it only
the picture tells. Clips of noise hold a sound and a picture of different events.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from avloc.ave.annotations import LABELS_KEY, ORDER_KEY, SECONDS

NOISE = 48


def write_ave(folder: Path, *, clips: int, events: int, seed: int = 0, shortest: int = 6) -> Path:
    """Annotations, features, order files, and noise; a tenth of the clips is held out twice."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    sounds, sights = (np.maximum(rng.normal(size=(events, width)), 0) for width in (128, 512))
    lines, seconds = [], np.full((clips, SECONDS), -1)
    for number in range(clips):
        length = int(rng.integers(shortest, SECONDS))
        start = int(rng.integers(0, SECONDS - length + 1))
        seconds[number, start : start + length] = number % events
        lines.append(f"Event {number % events}&video{number:05d}&good&{start}&{start + length}")
    (folder / "Annotations.txt").write_text("\n".join(lines) + "\n")
    _write(folder, "", seconds, np.arange(clips) % events, sounds, sights, rng)
    _write(folder, "_noisy", np.full((NOISE, SECONDS), -1), np.arange(NOISE) % events, sounds, sights, rng)
    _write_orders(folder, clips, rng)
    return folder


def _write(
    folder: Path,
    ending: str,
    seconds: np.ndarray,
    kinds: np.ndarray,
    sounds: np.ndarray,
    sights: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Feature files of clips: `seconds` [clips, 10] the event of each second or -1, `kinds` what a clip is of."""
    with (
        h5py.File(folder / f"audio_feature{ending}.h5", "w") as audio,
        h5py.File(folder / f"visual_feature{ending}.h5", "w") as visual,
    ):
        heard = audio.create_dataset(LABELS_KEY, (len(seconds), SECONDS, 128), "f8")
        seen = visual.create_dataset(LABELS_KEY, (len(seconds), SECONDS, 7, 7, 512), "f8")
        for number, (events, kind) in enumerate(zip(seconds, kinds, strict=True)):
            lone = rng.integers(3, size=SECONDS)  # what of the event is there where it is not: sound, sight, neither
            sound = np.abs(rng.normal(size=(SECONDS, 128))) * 0.3
            sight = np.abs(rng.normal(size=(SECONDS, 7, 7, 512))) * 0.3
            sound[(events >= 0) | (lone == 0)] += sounds[kind]
            for second in np.flatnonzero((events >= 0) | (lone == 1)):
                sight[second, rng.integers(7), rng.integers(7)] += 4 * sights[kind]
            heard[number], seen[number] = sound, sight


def _write_orders(folder: Path, clips: int, rng: np.random.Generator) -> None:
    for ending in ("", "_match"):
        order, edges = rng.permutation(clips), (int(0.8 * clips), int(0.9 * clips))
        for name, rows in zip(("train", "val", "test"), np.split(order, edges), strict=True):
            with h5py.File(folder / f"{name}_order{ending}.h5", "w") as file:
                file[ORDER_KEY] = np.sort(rows)
