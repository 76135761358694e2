"""Which pictures and sounds are for training and which for testing, decided by file and recording before anything else.

The folder holds `images/CLASS/*.jpg`, `sounds/CLASS/*`, `sounds_only/CLASS/*` and `boxes.json`: path -> boxes in
fractions. The beginning of a file's name is its source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

MACHINE_MADE = "hc"
"""Source whose pictures look machine-made: never tested on."""
THRESHOLDED = "ins"
"""Source whose boxes are thresholded backgrounds: how well they fit means little."""
UNBOXED_TEST, BOXED_TEST = 0.35, 0.5
"""Shares of the pictures for testing: of boxed ones many, since few pictures have boxes made by people."""
FEW_BOXES = 10
"""Classes with fewer boxed pictures keep all of them for testing."""
_BY_RECORDING = "us8k"
"""Source with several sounds of one recording: `us8k_RECORDING-PART`."""


def chance(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def class_of(path: str) -> str:
    """The folder that a picture or sound lies in."""
    return path.split("/")[1]


def source_of(path: str) -> str:
    """The beginning of the file's name."""
    return path.split("/")[2].split("_")[0]


@dataclass(frozen=True)
class Classes:
    """The folder of pictures and sounds; paths are relative to it."""

    folder: Path

    @cached_property
    def boxes(self) -> dict[str, list[list[float]]]:
        return json.loads((self.folder / "boxes.json").read_text(encoding="utf-8"))

    @cached_property
    def pictures(self) -> dict[str, list[str]]:
        """Part (`train`, `test` or `unused`) -> pictures."""
        paths = self._paths("images/*/*.jpg")
        well_boxed = [class_of(path) for path in paths if self.is_well_boxed(path)]
        few = {class_of(path) for path in paths if well_boxed.count(class_of(path)) < FEW_BOXES}
        return _by_part({path: self._picture_part(path, few) for path in paths})

    @cached_property
    def sounds(self) -> dict[str, list[str]]:
        """Part (`train` or `test`) -> sounds, those of classes without pictures included."""
        paths = self._paths("sounds/*/*") + self._paths("sounds_only/*/*")
        return _by_part({path: "test" if chance(recording_of(path)) < UNBOXED_TEST else "train" for path in paths})

    def is_well_boxed(self, path: str) -> bool:
        """Whether a picture can be scored by its boxes."""
        return path in self.boxes and source_of(path) not in (THRESHOLDED, MACHINE_MADE)

    def _picture_part(self, path: str, few: set[str]) -> str:
        if self.is_well_boxed(path):
            return "test" if class_of(path) in few or chance(path) < BOXED_TEST else "train"
        if chance(path) >= UNBOXED_TEST:
            return "train"
        return "unused" if source_of(path) == MACHINE_MADE else "test"

    def _paths(self, pattern: str) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.glob(pattern))


def recording_of(path: str) -> str:
    """What a sound is a part of; most are whole."""
    name = path.split("/")[2]
    return name.split("-")[0] if name.startswith(_BY_RECORDING) else name


def _by_part(parts: Mapping[str, str]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {"train": [], "test": []}
    for path, part in parts.items():
        out.setdefault(part, []).append(path)
    return out


def by_class(paths: Iterable[str]) -> dict[str, list[str]]:
    """Class -> its files."""
    out: dict[str, list[str]] = {}
    for path in paths:
        out.setdefault(class_of(path), []).append(path)
    return out
