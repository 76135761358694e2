"""A synthetic AVE: feature files as released, in which an event is audible, and visible in one cell.

A second without an event has its sound or its picture or neither, never both. Clips of noise have a sound and a
picture at different times.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import torch

from avloc.ave.annotations import (
    LABELS_KEY,
    ORDER_KEY,
    SECONDS,
)
from avloc.ave.networks import Features
from avloc.config import parse_settings, resolve_config
from avloc.train import TrainOptions, train

if TYPE_CHECKING:
    from avloc.ave.timeline import Timeline

CLIPS, KINDS = 60, 4
OWN = ("--set", f"ave.classes={KINDS}")
NOISE_ROWS = 48


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
    _write(folder, "_noisy", np.full((NOISE_ROWS, SECONDS), -1), np.arange(NOISE_ROWS) % events, sounds, sights, rng)
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
        audio_rows = audio.create_dataset(LABELS_KEY, (len(seconds), SECONDS, 128), "f8")
        visual_rows = visual.create_dataset(LABELS_KEY, (len(seconds), SECONDS, 7, 7, 512), "f8")
        for number, (events, kind) in enumerate(zip(seconds, kinds, strict=True)):
            lone = rng.integers(3, size=SECONDS)  # outside of the event: sound, sight, neither
            sound = np.abs(rng.normal(size=(SECONDS, 128))) * 0.3
            sight = np.abs(rng.normal(size=(SECONDS, 7, 7, 512))) * 0.3
            sound[(events >= 0) | (lone == 0)] += sounds[kind]
            for second in np.flatnonzero((events >= 0) | (lone == 1)):
                sight[second, rng.integers(7), rng.integers(7)] += 4 * sights[kind]
            audio_rows[number], visual_rows[number] = sound, sight


def _write_orders(folder: Path, clips: int, rng: np.random.Generator) -> None:
    for ending in ("", "_match"):
        order, edges = rng.permutation(clips), (int(0.8 * clips), int(0.9 * clips))
        for name, rows in zip(("train", "val", "test"), np.split(order, edges), strict=True):
            with h5py.File(folder / f"{name}_order{ending}.h5", "w") as file:
                file[ORDER_KEY] = np.sort(rows)


def features(clips: int, seconds: int, background: int = 28) -> Features:
    random = torch.Generator().manual_seed(1)
    return Features(
        visual=torch.rand(clips, seconds, 7, 7, 512, generator=random),
        audio=torch.rand(clips, seconds, 128, generator=random),
        labels=torch.randint(0, background + 1, (clips, seconds), generator=random),
        background=background,
        clips=torch.arange(clips) % (background + 1),
    )


def make_run(store: Path, out: Path, *settings: str, method: str = "ave", epochs: int = 2, **options) -> Path:
    own = [] if method == "ave-match" else [f"ave.classes={KINDS}"]
    config = resolve_config(parse_settings([*own, f"epochs={epochs}", "batch=16", *settings]), method)
    train(TrainOptions(store=store, out=out, **options), config)
    return out


def spoiled(path: Path, values: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file[LABELS_KEY] = values


def some_timeline(seconds: int, classes: int = 3) -> Timeline:
    from avloc.ave.timeline import Timeline

    rng = np.random.default_rng(0)
    scores = rng.random((seconds, classes + 1)).astype(np.float32)
    attention = rng.random((seconds, 7, 7)).astype(np.float32)
    return Timeline(
        classes=(*(f"Event {number}" for number in range(classes)), "background"),
        probabilities=scores / scores.sum(1, keepdims=True),
        attention=attention / attention.sum((1, 2), keepdims=True),
        pictures=rng.integers(0, 255, (seconds, 112, 112, 3), dtype=np.uint8),
        aspect=16 / 9,
        silent=np.arange(seconds) == 2,
    )
