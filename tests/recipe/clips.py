"""Clips of the recipe, the pictures and sounds that they are made of, and the folders that they are written to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from tests.recipe.boxes import Box, HumanBoxes, TrainingBoxes
from tests.recipe.pairs import read_pairs
from tests.recipe.pictures import Album, on_another, pasted, side_by_side
from tests.recipe.sounds import RATE, Sounds, Waveform
from tests.recipe.split import MACHINE_MADE, THRESHOLDED, Classes, by_class, sound_class_of, source_of

QUALITY = 92
SILENCE, NOISE = "silence", "noise"
LAYOUTS = {"side": side_by_side, "on": on_another, "crowded": pasted}
"""Two objects side by side, one on the other, or both on a picture of a third that never sounds."""
SHARES = {"people": 0.2, "instruments": 0.25}
"""How often pictures of these kinds are drawn; all others share the rest."""
REST = "rest"
MANY = 100
"""Within its kind a class is drawn as often as it has pictures, but none more often than one with this many."""
FEWEST = 6
"""Classes with fewer pictures to train on are not composed."""


@dataclass(frozen=True)
class Clip:
    """One clip to write."""

    picture: Image.Image | Path
    """A file is taken as it is."""
    sound: Waveform
    audio_class: str
    visible: Sequence[str]
    boxes: Sequence[Box] = field(default_factory=tuple)

    @property
    def annotation(self) -> dict:
        """Its entry in boxes.json."""
        return {"boxes": rounded(self.boxes), "label": f"{self.audio_class} | {', '.join(self.visible)}"}


def rounded(boxes: Sequence[Box]) -> list[list[float]]:
    """Boxes as they are written."""
    return [[round(float(value), 5) for value in box] for box in boxes]


@dataclass(frozen=True)
class Part:
    """Pictures and sounds of one part of the split."""

    album: Album
    sounds: Sounds

    @classmethod
    def test(cls, classes: Classes, kinds: Sequence[str] | None = None) -> Part:
        """For testing, with the boxes that people drew; of these classes alone, if given."""
        return cls._of(classes, "test", HumanBoxes(classes), kinds)

    @classmethod
    def train(cls, classes: Classes, faces: Mapping[str, Sequence[Box]]) -> Part:
        """For training, with the boxes of detectors too; of the classes with enough pictures."""
        return cls._of(classes, "train", TrainingBoxes(classes, faces), composed_kinds(classes))

    @classmethod
    def _of(cls, classes: Classes, name: str, boxes: HumanBoxes, kinds: Sequence[str] | None) -> Part:
        pictures = classes.pictures[name]
        grounds = [path for path in pictures if source_of(path) not in (THRESHOLDED, MACHINE_MADE)]
        sounds = Sounds(classes, by_class(classes.sounds[name], sound_class_of))
        found = by_class(pictures)
        pool = {
            kind: paths for kind, paths in found.items() if sounds.fitting(kind) and (kinds is None or kind in kinds)
        }
        return cls(Album(classes, pool, grounds, boxes), sounds)

    @cached_property
    def kinds(self) -> list[str]:
        """Classes with pictures and with sounds that fit them."""
        return sorted(self.album.pool)

    @cached_property
    def pictured(self) -> frozenset[str]:
        """Sound classes that some of the pictures are paired with."""
        return frozenset(name for kind in self.kinds for name in self.sounds.fitting(kind))

    @cached_property
    def weights(self) -> np.ndarray:
        """How likely each class of `kinds` is drawn."""
        members = read_pairs().kinds
        groups = [next((name for name in SHARES if kind in members[name]), REST) for kind in self.kinds]
        counts = np.array([min(MANY, len(self.album.pool[kind])) for kind in self.kinds], float)
        shares = {**SHARES, REST: 1 - sum(SHARES.values())}
        for group in set(groups):
            counts[[one == group for one in groups]] *= shares[group] / sum(
                count for count, one in zip(counts, groups, strict=True) if one == group
            )
        return counts / counts.sum()


def composed_kinds(classes: Classes) -> list[str]:
    """Picture classes with enough pictures and any sounds to train on."""
    sounds = set(by_class(classes.sounds["train"], sound_class_of))
    fits = read_pairs().fits
    found = by_class(classes.pictures["train"]).items()
    return sorted(kind for kind, paths in found if len(paths) >= FEWEST and sounds & set(fits[kind]))


def write_clip(folder: Path, name: str, clip: Clip) -> tuple[str, dict]:
    """Picture and sound; returns the clip's key and entry of boxes.json."""
    frame = folder / "frames" / f"{name}.jpg"
    if isinstance(clip.picture, Path):
        frame.write_bytes(clip.picture.read_bytes())
    else:
        clip.picture.save(frame, "JPEG", quality=QUALITY)
    soundfile.write(folder / "audio" / f"{name}.wav", clip.sound, RATE, subtype="PCM_16")
    return f"frames/{name}.jpg", clip.annotation


def write_set(folder: Path, named: Iterator[tuple[str, Clip]]) -> None:
    """A folder for `avloc prepare`."""
    make_folders(folder)
    write_boxes(folder, [write_clip(folder, name, clip) for name, clip in named])


def make_folders(folder: Path) -> None:
    """`frames` and `audio`, for `write_clip`."""
    for kind in ("frames", "audio"):
        (folder / kind).mkdir(parents=True, exist_ok=True)


def write_boxes(folder: Path, entries: Sequence[tuple[str, dict]]) -> None:
    """boxes.json of what `write_clip` returned."""
    (folder / "boxes.json").write_text(json.dumps(dict(entries), indent=0), encoding="utf-8")
