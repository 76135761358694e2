"""Parse boxes in XML: Flickr-SoundNet's `bbox` and Pascal VOC's `bndbox`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from avloc.errors import InputError
from avloc.files import read_input

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

FLICKR, VOC = "bbox", "bndbox"
_FLICKR_FRAME = 256
"""Side in pixels of Flickr-SoundNet's annotated frames."""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIDES = {"w", "h", "width", "height"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_SHAPES = ("box", "object", "polygon")
"""Substrings of element names that mark objects; a file without them has no annotated object."""


def read_boxes(path: Path) -> tuple[str, list[list[float]]]:
    """Read the boxes of an XML file, at any depth.

    Returns:
        `FLICKR`, `VOC`, or '' without boxes; and x0, y0, x1, y1 of each box in fractions of the picture, in file order.

    Raises:
        InputError: the file or a box is invalid.
    """
    from defusedxml import ElementTree  # refuses entities, which can exhaust memory or read other files

    try:
        return _parse(ElementTree.fromstring(read_input(path)))
    except (ElementTree.ParseError, InputError, ValueError, LookupError) as error:
        raise InputError(f"annotation {path.name} cannot be read ({error})") from error


def _parse(root: Element) -> tuple[str, list[list[float]]]:
    elements = {kind: list(_elements(root, kind)) for kind in (FLICKR, VOC)}
    if all(elements.values()):
        raise ValueError(f"it has boxes of two kinds, {FLICKR} and {VOC}")
    for kind, candidates in elements.items():
        if filled := [element for element in candidates if _has_content(element)]:
            return kind, _fractions([_corners(element) for element in filled], kind, root)
    if any(shape in _tag(element) for element in root.iter() for shape in _SHAPES):
        raise ValueError("it has no box that can be read")
    return "", []


def _elements(root: Element, kind: str) -> Iterator[Element]:
    """Box elements outside `part`, whose boxes (such as the head of a person) are not separate objects."""
    if _tag(root) == kind:
        yield root
    for parent in root.iter():
        if _tag(parent) != "part":
            yield from (child for child in parent if _tag(child) == kind)


def _tag(element: Element) -> str:
    """Element name in lower case without namespace."""
    return str(element.tag).rpartition("}")[2].lower()


def _has_content(element: Element) -> bool:
    return bool(len(element) or element.attrib or re.search(r"\d", element.text or ""))


def _corners(element: Element) -> list[float]:
    """Corners by name, else the last four children."""
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


def _fractions(corners: list[list[float]], kind: str, root: Element) -> list[list[float]]:
    """Convert pixels to fractions; VOC boxes outside the picture are refused."""
    if kind == FLICKR:
        return [[value / _FLICKR_FRAME for value in box] for box in corners]
    size = next((element for element in root.iter() if _tag(element) == "size"), None)
    sides = {_tag(child): _number(child) for child in size if _tag(child) in ("width", "height")} if size else {}
    width, height = sides.get("width", 0), sides.get("height", 0)
    if width <= 0 or height <= 0:
        raise ValueError("its boxes are in pixels, and the picture size is missing")
    for x0, y0, x1, y1 in corners:
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            box = f"{x0:g} {y0:g} {x1:g} {y1:g}"
            raise ValueError(f"box {box} is not valid in a picture of {width:g} x {height:g} pixels")
    return [[x0 / width, y0 / height, x1 / width, y1 / height] for x0, y0, x1, y1 in corners]
