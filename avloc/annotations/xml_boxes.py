"""Boxes in XML: Flickr-SoundNet's `bbox` and Pascal VOC's `bndbox`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from defusedxml import ElementTree  # refuses entities, with which a small file can fill the memory or read others

from avloc.errors import InputError
from avloc.files import ordinary_bytes

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

FLICKR, VOC = "bbox", "bndbox"
_FLICKR_FRAME = 256
"""Side in pixels of the square frame in which Flickr-SoundNet boxes are given."""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIDES = {"w", "h", "width", "height"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_SHAPES = ("box", "object", "polygon")
"""What the names of elements hold that mark something: a file without any of them marks nothing."""


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The boxes of one file."""

    kind: str
    """`FLICKR` or `VOC`, which says how the boxes are given; '' where nothing is marked."""
    boxes: list[list[float]]
    """Corners in fractions of the picture, in the order of the file; Flickr-SoundNet's exactly as published."""


def read_boxes(path: Path) -> Boxes:
    """The boxes of one XML file, wherever in it they are.

    Raises:
        InputError: it cannot be read, or marks something by a box that cannot be read.
    """
    try:
        return _found(ElementTree.fromstring(ordinary_bytes(path)))
    except (ElementTree.ParseError, InputError, ValueError, LookupError) as error:
        raise InputError(f"annotation {path.name} cannot be read ({error})") from error


def _found(root: Element) -> Boxes:
    elements = {kind: list(_elements(root, kind)) for kind in (FLICKR, VOC)}
    if all(elements.values()):
        raise ValueError(f"it has boxes of two kinds, {FLICKR} and {VOC}")
    for kind, ours in elements.items():
        if full := [element for element in ours if _holds_something(element)]:
            corners = [_corners(element) for element in full]
            return Boxes(kind=kind, boxes=_flickr(corners) if kind == FLICKR else _voc(corners, root))
    if any(shape in _tag(element) for element in root.iter() for shape in _SHAPES):
        raise ValueError("it has no box that can be read")
    return Boxes(kind="", boxes=[])


def _elements(root: Element, kind: str) -> Iterator[Element]:
    """Every box but those of parts: the head of a person that has a box is no object of its own."""
    if _tag(root) == kind:
        yield root
    for parent in root.iter():
        if _tag(parent) != "part":
            yield from (child for child in parent if _tag(child) == kind)


def _tag(element: Element) -> str:
    """Its name without the namespace, in small letters."""
    return str(element.tag).rpartition("}")[2].lower()


def _holds_something(element: Element) -> bool:
    return bool(len(element) or element.attrib or re.search(r"\d", element.text or ""))


def _corners(element: Element) -> list[float]:
    """Corners by their names, else the last four children, whatever they are called."""
    named = {_tag(child): child for child in element}
    if named.keys() & set(_CORNERS):
        missing = next((name for name in _CORNERS if name not in named), "")
        if missing:
            raise ValueError(f"a {_tag(element)} has no {missing}")
        return [_number(named[name]) for name in _CORNERS]
    if named.keys() & _SIDES:
        raise ValueError(f"a {_tag(element)} has sides, not the corners {', '.join(_CORNERS)}")
    if len(element) < len(_CORNERS):
        raise ValueError(f"a {_tag(element)} has no {', '.join(_CORNERS)}")
    return [_number(child) for child in element[-4:]]


def _number(element: Element) -> float:
    text = (element.text or "").strip()
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{_tag(element)} is {text[:20]!r}, not a number")
    return value


def _flickr(corners: list[list[float]]) -> list[list[float]]:
    return [[value / _FLICKR_FRAME for value in box] for box in corners]


def _voc(corners: list[list[float]], root: Element) -> list[list[float]]:
    """In pixels of the picture, whose size the file gives; unlike published boxes, these have to lie in it."""
    size = next((element for element in root.iter() if _tag(element) == "size"), None)
    sides = {_tag(child): _number(child) for child in size if _tag(child) in ("width", "height")} if size else {}
    width, height = sides.get("width", 0), sides.get("height", 0)
    if width <= 0 or height <= 0:
        raise ValueError("its boxes are in pixels, and it does not give the size of the picture")
    for x0, y0, x1, y1 in corners:
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            box = f"{x0:g} {y0:g} {x1:g} {y1:g}"
            raise ValueError(f"box {box} is not valid in a picture of {width:g} x {height:g} pixels")
    return [[x0 / width, y0 / height, x1 / width, y1 / height] for x0, y0, x1, y1 in corners]
