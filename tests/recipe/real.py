"""Real clips: moments of videos, each a frame with its sound; split by the repository that they come from.

DATA/real holds `clips.json`, `frames/ID.jpg`, `audio/ID.ogg` (4 s) and `auto_boxes.json`, as `tests.recipe.split`
describes them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

REAL = "real"
FOLDS = 5
GENERATED, ORIGINAL = "generated", "original"


@dataclass(frozen=True)
class RealClip:
    """One moment of a clip."""

    id: str
    clip: str
    title: str
    kind: str
    repository: str
    sound: str
    """Whether the sound is the video's own: `original`, `unknown` or `generated`."""
    fold: int

    @property
    def frame(self) -> str:
        """Path of the picture, from DATA."""
        return f"{REAL}/frames/{self.id}.jpg"

    @property
    def audio(self) -> str:
        """Path of the sound, from DATA."""
        return f"{REAL}/audio/{self.id}.ogg"

    @property
    def trains(self) -> bool:
        """Whether a model may be trained on it."""
        return self.sound != GENERATED

    @property
    def calibrates(self) -> bool:
        """Whether a model may be measured and calibrated on it."""
        return self.sound == ORIGINAL


@dataclass(frozen=True)
class RealClips:
    """Real clips and what a run's frozen networks compute of them, in one order.

    N moments, K variants of the sound.
    """

    clips: Sequence[RealClip]
    features: Tensor
    """[N, 49, 2280] of the frames, averaged to 7x7 cells."""
    cells: Tensor
    """[N, 196, 2280] of the frames."""
    sounds: Tensor
    """[N, 1545] of the middle 3 s."""
    variants: Tensor
    """[N, K, 1545] of the same sounds under other circumstances."""
    covers: Tensor
    """[N, 14, 14] share of each cell under boxes of what sounds; 0 where that is not known."""


def folds_of(repositories: Mapping[str, int], folds: int = FOLDS) -> dict[str, int]:
    """Repository -> fold, from the number of clips of each: the largest first, each into the emptiest fold."""
    full, out = [0] * folds, {}
    for name in sorted(repositories, key=lambda name: (-repositories[name], name)):
        out[name] = full.index(min(full))
        full[out[name]] += repositories[name]
    return out


def read_clips(data: Path) -> list[RealClip]:
    """The clips of DATA/real in the order of `clips.json`."""
    rows = json.loads((data / REAL / "clips.json").read_text(encoding="utf-8"))
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        found[row["repo"]].add(row["clip"])
    folds = folds_of({name: len(clips) for name, clips in found.items()})
    return [
        RealClip(row["id"], row["clip"], row["title"], row["kind"], row["repo"], row["sound"], folds[row["repo"]])
        for row in rows
    ]


def trained_on(clips: Iterable[RealClip], but_fold: int | None = None) -> list[int]:
    """Indices of the moments that may be trained on, those of a fold left out."""
    return [index for index, clip in enumerate(clips) if clip.trains and clip.fold != but_fold]
