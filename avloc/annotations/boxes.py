"""Read annotations of sounding objects: boxes as XML or JSON, or PNG masks.

Boxes are `[n, 4]` float64: x0, y0, x1, y1 in fractions of the picture, in the order of the annotation and exactly as
published; VGG-SS has 30 invalid ones, which protocols handle. Masks are PNG files, one per clip, not decoded here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.annotations.testsets import canonical_id, media_id, shipped
from avloc.annotations.xml_boxes import VOC, read_boxes
from avloc.errors import InputError, UsageError
from avloc.files import read_json

_MAX_MASK_BYTES = 1 << 26
"""Largest PNG mask; all masks of a folder are read into memory."""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """Annotation of one clip."""

    boxes: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 4)))
    """[n, 4] x0, y0, x1, y1 in fractions."""
    mask: bytes = b""
    """PNG mask of sounding pixels (`avloc.media.pictures.decode_mask`), or b''."""
    mask_name: str = ""
    """File name of the mask, for error messages."""
    label: str = ""
    problem: str = ""
    """Why the annotation cannot be read, or ''."""


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """A set of annotations, indexed by clip id and path."""

    rule: str
    """Ground truth: `union` or `consensus` of the boxes, or `mask`."""
    by_id: Mapping[str, Annotation]
    """Canonical id -> annotation."""
    by_path: Mapping[str, Annotation] = field(default_factory=dict)
    """Relative path -> annotation, of avloc's box format only.

    Paths with a folder are not in `by_id`, so that they do not apply to files of the same name in other folders.
    """

    @property
    def ids(self) -> tuple[str, ...]:
        """Canonical ids of the annotated clips, each once."""
        return tuple(dict.fromkeys([*(_id_of_key(PurePosixPath(name)) for name in self.by_path), *self.by_id]))

    def find(self, clip_id: str, *paths: PurePath) -> Annotation | None:
        """Look up a clip by the longest annotated suffix of its paths, else by its id.

        Raises:
            InputError: the annotation cannot be read.
        """
        suffixes = ("/".join(path.parts[i:]) for path in paths for i in range(len(path.parts)))
        found = next((self.by_path[suffix] for suffix in suffixes if suffix in self.by_path), self.by_id.get(clip_id))
        if found is not None and found.problem:
            raise InputError(found.problem)
        return found


def read_annotations(path: Path) -> Annotations:
    """Read a folder of XML (Flickr-SoundNet, Pascal VOC) or PNG masks, a VGG-SS JSON, or avloc's box format.

    The format is detected from the contents. Folders are searched recursively.

    Raises:
        UsageError: not found, unknown format, or a folder with both XML and PNG files.
    """
    if path.is_dir():
        return _read_folder(path)
    try:
        data = read_json(path)
    except FileNotFoundError:
        raise UsageError(f"--annotations {path}: no such file or folder") from None
    except OSError as error:
        raise UsageError(f"--annotations {path} cannot be read: {error}") from None
    except ValueError as error:
        raise UsageError(f"--annotations {path} is not valid JSON: {error}") from None
    try:
        return _from_vggss(data) if isinstance(data, list) else _from_avloc(data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        expected = 'VGG-SS\'s list of {"file", "class", "bbox"}, or {path: [[x0, y0, x1, y1], ...]} in fractions'
        raise UsageError(f"--annotations {path} cannot be read ({error!r}); valid: {expected}") from None


@cache
def published_boxes() -> Annotations:
    """The VGG-SS boxes shipped with the package."""
    return _from_vggss(json.loads(shipped("vggss.json")))


def _boxes(rows: Iterable[Iterable[float]]) -> NDArray[np.float64]:
    boxes = np.array([list(row) for row in rows], np.float64).reshape(-1, 4)
    if not np.isfinite(boxes).all():
        raise ValueError("a box has values that are not numbers")
    return boxes


def _from_vggss(items: list[dict[str, Any]]) -> Annotations:
    clips = ((item["file"], Annotation(boxes=_boxes(item["bbox"]), label=item["class"])) for item in items)
    return Annotations(rule="union", by_id={canonical_id(name): annotation for name, annotation in clips})


def _from_avloc(data: dict[str, Any]) -> Annotations:
    by_path: dict[str, Annotation] = {}
    by_id: dict[str, Annotation] = {}
    for name, value in data.items():
        detailed = isinstance(value, dict)
        boxes = _fractions(name, value["boxes"] if detailed else value)
        annotation = Annotation(boxes=boxes, label=str(value.get("label", "")) if detailed else "")
        path = PurePosixPath(name)
        by_path[str(path)] = annotation
        if len(path.parts) == 1:
            by_id.setdefault(_id_of_key(path), annotation)
    return Annotations(rule="union", by_id=by_id, by_path=by_path)


def _fractions(name: str, rows: Any) -> NDArray[np.float64]:
    """Boxes in avloc's format, which are validated, unlike published ones."""
    if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != 4 for row in rows):
        raise ValueError(f"{name}: a box is a list of 4 numbers")
    if any(isinstance(value, bool) or not isinstance(value, int | float) for row in rows for value in row):
        raise ValueError(f"{name}: a box has values that are not numbers")
    for x0, y0, x1, y1 in rows:
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            wanted = "boxes are in fractions of the picture, not pixels: 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"
            raise ValueError(f"{name}: box {[x0, y0, x1, y1]} is impossible; {wanted}")
    return _boxes(rows)


def _id_of_key(path: PurePosixPath) -> str:
    # A key may be an id without suffix.
    return media_id(path) if path.suffix else canonical_id(path.name)


def _read_folder(folder: Path) -> Annotations:
    valid = "valid: an annotation folder of Flickr-SoundNet or Pascal VOC (.xml), or a folder of masks (.png)"
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".xml", ".png"))
    kinds = {path.suffix.lower() for path in paths}
    if not kinds:
        raise UsageError(f"--annotations {folder} has no .xml and no .png file; {valid}")
    if len(kinds) > 1:
        raise UsageError(f"--annotations {folder} has both .xml and .png files; {valid}")
    if kinds == {".xml"}:
        return _read_xml(folder, paths)
    return Annotations(rule="mask", by_id=_masks(paths))


def _read_xml(folder: Path, paths: Iterable[Path]) -> Annotations:
    """XML boxes: of one object by several annotators (Flickr-SoundNet), or of several objects (Pascal VOC)."""
    by_id: dict[str, Annotation] = {}
    kinds: dict[str, Path] = {}
    for path in paths:
        try:
            kind, rows = read_boxes(path)
        except InputError as error:
            by_id[media_id(path)] = Annotation(problem=str(error))
            continue
        by_id[media_id(path)] = Annotation(boxes=_boxes(rows))
        kinds.setdefault(kind, path)
    kinds.pop("", None)
    if len(kinds) > 1:
        named = " and ".join(f"{tag} in {path.name}" for tag, path in kinds.items())
        raise UsageError(f"--annotations {folder} has boxes of two kinds: {named}; valid: one of them")
    return Annotations(rule="union" if VOC in kinds else "consensus", by_id=by_id)


def _masks(paths: Iterable[Path]) -> dict[str, Annotation]:
    by_id: dict[str, Annotation] = {}
    first: dict[str, Path] = {}
    for path in paths:
        clip_id = media_id(path)
        earlier = first.setdefault(clip_id, path)
        problem = "" if earlier is path else f"there are two masks for clip {clip_id}: {earlier} and {path}"
        by_id[clip_id] = Annotation(problem=problem) if problem else _mask(path)
    return by_id


def _mask(path: Path) -> Annotation:
    try:
        size = path.stat().st_size
        if not 0 < size <= _MAX_MASK_BYTES:
            return Annotation(problem=f"mask {path.name} has {size} bytes; valid: 1 to {_MAX_MASK_BYTES}")
        return Annotation(mask=path.read_bytes(), mask_name=path.name)
    except OSError as error:
        return Annotation(problem=f"mask {path.name} cannot be read ({error})")
