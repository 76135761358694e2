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

from avloc.networks.concepts import CONCEPTS
from tests.recipe.boxes import OBJECT_SCORE, Box, corners, head_and_shoulders, recorded_faces

REAL = "real"
FOLDS = 5
GENERATED, ORIGINAL = "generated", "original"
REAL_FACES = "faces-real.json"
FACE_SCORE = 0.9
"""Score above which faces are used: lower than for pictures of people, since speech is known to be there."""
VOICE = (0, 1, 2, 3, 24, 27)
"""Speech, singing and chant: rows of YAMNet's class map."""
VOICE_LEAST, CONCEPT_LEAST = 0.3, 0.2
"""Probabilities above which a voice, or the sound of an object, is in the clip."""
OBJECTS = {
    **{name: name for name in ("bird", "boat", "bus", "car", "cat", "cow", "dog", "horse", "motorcycle", "sheep")},
    **{name: name for name in ("train", "truck")},
    "airplane": "aircraft",
}
"""Object of the automatic boxes -> concept of its sounds."""
AUDIOSET = {concept.name: list(concept.audioset) for concept in CONCEPTS}


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


def faces_in(clips: Sequence[RealClip], data: Path, out: Path, weights: Path) -> dict[str, list[Box]]:
    """Faces in the frames, from OUT/faces-real.json; found first if that is not there."""
    return recorded_faces(data, lambda: [clip.frame for clip in clips], out / REAL_FACES, weights, FACE_SCORE)


def detected_in(data: Path) -> dict[str, list[Sequence]]:
    """Path of each frame, from DATA -> automatic boxes: corners, score, name."""
    rows = json.loads((data / REAL / "auto_boxes.json").read_text(encoding="utf-8"))
    return {f"{REAL}/{path}": boxes for path, boxes in rows.items()}


def sources_in(probability: Tensor, faces: Iterable[Box], detected: Iterable[Sequence]) -> list[Box]:
    """Boxes of what sounds in a clip: heads where there is a voice, objects where there is a sound of their kind.

    Args:
        probability: [521] of the classes of AudioSet.
        faces: in the frame.
        detected: automatic boxes of the frame.
    """
    heads = [head_and_shoulders(face) for face in faces] if probability[list(VOICE)].max() > VOICE_LEAST else []
    sounding = {name for name, concept in OBJECTS.items() if probability[AUDIOSET[concept]].max() > CONCEPT_LEAST}
    return heads + [corners(row) for row in detected if row[4] > OBJECT_SCORE and row[5] in sounding]
