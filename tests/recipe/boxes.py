"""Where in a picture its sounds come from: boxes, for testing nearly all by people, for training also by detectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.recipe.faces import load_faces, write_faces
from tests.recipe.pairs import read_pairs
from tests.recipe.split import Classes, class_of

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in fractions of the picture."""
FACES = "faces.json"
FACE_SCORE, OBJECT_SCORE = 0.95, 0.4
"""Scores above which faces and automatic boxes are used."""
SMALLEST_FACE = 0.3
"""Height of faces that are used, in heights of the largest one in the picture."""
PERSON, FACE, CROWD = "person", "face", "crowd"
_BESIDE, _ABOVE, _BELOW = 0.35, 0.35, 0.8
"""From a face to head and shoulders, in widths and heights of the face."""


@dataclass(frozen=True)
class HumanBoxes:
    """Boxes of boxes.json: those that people drew, and of farm animals and some pets those of a detector."""

    classes: Classes

    def sources(self, path: str) -> list[Box]:
        """Where the sounds of the picture's class come from; none where it is not known."""
        return [corners(row) for row in self.classes.boxes.get(path, ())]

    def objects(self, path: str) -> list[Box]:
        """Whole things that make these sounds; the picture may be cut to one of them."""
        return self.sources(path)


@dataclass(frozen=True)
class TrainingBoxes(HumanBoxes):
    """Heads and shoulders of people; of other things the boxes that people drew, else those of a detector."""

    faces: Mapping[str, Sequence[Box]]
    """Picture -> faces. Not used for files that may be used for any purpose: the weights of the face detector are under
    the MIT licence, but the faces that they were trained on are probably for research alone."""

    def sources(self, path: str) -> list[Box]:
        kind = class_of(path)
        if kind not in read_pairs().kinds["people"]:
            return super().sources(path) or self._detected(path, read_pairs().boxes.get(kind, ()))
        if kind == CROWD:
            return []  # faces are found in its front rows, but all of it sounds
        faces = () if self.classes.open_only else self.faces.get(path, ())
        heads = [head_and_shoulders(face) for face in near(faces)]
        bodies = self._bodies(path)
        return heads or (bodies if kind == FACE else [upper_half(body) for body in bodies])

    def objects(self, path: str) -> list[Box]:
        sources = self.sources(path)
        if class_of(path) not in read_pairs().kinds["people"]:
            return sources
        return [body for body in self._bodies(path) if any(_centre_in(source, body) for source in sources)]

    def _bodies(self, path: str) -> list[Box]:
        return super().sources(path) or self._detected(path, (PERSON,))

    def _detected(self, path: str, names: Iterable[str]) -> list[Box]:
        rows = self.classes.auto_boxes.get(path, ())
        return [corners(row) for row in rows if row[5] in names and row[4] > OBJECT_SCORE]


def head_and_shoulders(face: Box, below: float = _BELOW) -> Box:
    """A face's box enlarged, within the picture; downwards by `below` heights of the face."""
    x0, y0, x1, y1 = face
    wide, high = x1 - x0, y1 - y0
    return (
        max(0.0, x0 - _BESIDE * wide),
        max(0.0, y0 - _ABOVE * high),
        min(1.0, x1 + _BESIDE * wide),
        min(1.0, y1 + below * high),
    )


def upper_half(body: Box) -> Box:
    """Where the head of a standing person is."""
    x0, y0, x1, y1 = body
    return (x0, y0, x1, (y0 + y1) / 2)


def near(faces: Sequence[Box]) -> list[Box]:
    """Faces without those that are much smaller than the largest one: behind it, or mistaken."""
    largest = max((face[3] - face[1] for face in faces), default=0)
    return [face for face in faces if face[3] - face[1] >= SMALLEST_FACE * largest]


def _centre_in(box: Box, other: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return other[0] <= x <= other[2] and other[1] <= y <= other[3]


def corners(row: Sequence) -> Box:
    """The box of a row with more columns."""
    x0, y0, x1, y1 = row[:4]
    return (x0, y0, x1, y1)


def pictures_of_people(classes: Classes) -> list[str]:
    """Pictures in which faces are looked for: those of people, and those with a detected person."""
    people = read_pairs().kinds["people"]

    def has_person(path: str) -> bool:
        return any(row[5] == PERSON and row[4] > OBJECT_SCORE for row in classes.auto_boxes.get(path, ()))

    paths = sorted(path for part in classes.pictures.values() for path in part)
    return [path for path in paths if class_of(path) in people or has_person(path)]


def faces_of(data: Path, out: Path, weights: Path) -> dict[str, list[Box]]:
    """Faces in the pictures of people, from OUT/faces.json; found first if that is not there, which takes minutes.

    Args:
        data: the folder of pictures.
        out: the folder for the file.
        weights: folder with `pnet.pt`, `rnet.pt` and `onet.pt`.
    """
    return recorded_faces(data, lambda: pictures_of_people(Classes(data)), out / FACES, weights, FACE_SCORE)


def recorded_faces(
    data: Path, paths: Callable[[], Sequence[str]], record: Path, weights: Path, least: float
) -> dict[str, list[Box]]:
    """Faces with a score above `least` in the pictures that `paths` names, from a file; found first without it."""
    if not record.is_file():
        record.parent.mkdir(parents=True, exist_ok=True)
        unfinished = record.with_suffix(".part")
        write_faces(data, paths(), load_faces(weights), unfinished).replace(record)
    found = json.loads(record.read_text(encoding="utf-8"))
    return {path: [corners(row) for row in rows if row[4] > least] for path, rows in found.items()}
