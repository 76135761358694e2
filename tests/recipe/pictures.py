"""Pictures put together: one beside another, or objects pasted on another picture, with all that video does to them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from tests.recipe.boxes import Box, HumanBoxes
from tests.recipe.split import THRESHOLDED, Classes, class_of, source_of

SIDE = 448
LARGEST = 512
"""Longer side in pixels of the pictures that scenes are made of."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_LEAST_CUT = 24
"""A box of fewer pixels a side is too small to be cut out."""
_MARGIN = 0.3
"""What is kept around a boxed object, in its own widths and heights."""
_MIDDLE = 0.35, 0.65
"""Where an object that is pasted on another would hide it, either way."""
_PLAIN_SHARE, _PLAIN_NEAR, _OBJECT_FAR = 0.6, 24, 18
"""A background is plain where this share of the border is this near its median; an object is this far from it."""
_MOST_OVERLAP = 0.1
_TRIES = 20


@dataclass
class Scene:
    """A picture with what is in it."""

    picture: Image.Image
    places: dict[str, list[Box]] = field(default_factory=dict)
    """Class of each object that may sound -> the part of the picture that is its own, in fractions."""
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    """Class of each object -> boxes in that part that its sounds come from: known ones, else the whole part."""
    shown: dict[str, Sequence[str]] = field(default_factory=dict)
    """Class of each picture put in, the background included -> sound classes that it may show."""

    @property
    def visible(self) -> list[str]:
        """Sound classes of everything that may be in the picture, each once."""
        return list(dict.fromkeys(name for names in self.shown.values() for name in names))


@dataclass
class Album:
    """Pictures of one part of the split, decoded once and kept small."""

    classes: Classes
    pool: Mapping[str, Sequence[str]]
    """Class -> pictures of which scenes are made."""
    grounds: Sequence[str]
    """Pictures to paste on."""
    boxes: HumanBoxes
    _kept: dict[str, Image.Image] = field(default_factory=dict)

    def picture(self, path: str) -> Image.Image:
        """A picture whose longer side has `LARGEST` pixels at most."""
        if path not in self._kept:
            image = Image.open(self.classes.data / path).convert("RGB")
            image.thumbnail((LARGEST, LARGEST))
            self._kept[path] = image
        return self._kept[path]

    def any_of(self, kind: str, rng: np.random.Generator) -> str:
        """A picture of a class."""
        return self.pool[kind][rng.integers(len(self.pool[kind]))]


def plain(album: Album, path: str) -> Scene:
    """A picture as it is, square."""
    kind = class_of(path)
    picture = album.picture(path).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    known = album.boxes.sources(path)
    return Scene(picture, {kind: [WHOLE]}, {kind: known} if known else {}, {kind: album.classes.shown(path)})


def side_by_side(album: Album, kinds: Sequence[str], rng: np.random.Generator) -> Scene:
    """Two pictures, left and right or one above the other."""
    scene = Scene(Image.new("RGB", (SIDE, SIDE)))
    upright, cut = rng.random() < 0.5, rng.uniform(0.4, 0.6)
    cut = round(SIDE * cut) / SIDE
    for kind, (low, high) in zip(kinds, ((0.0, cut), (cut, 1.0)), strict=True):
        place = (low, 0.0, high, 1.0) if upright else (0.0, low, 1.0, high)
        x0, y0, x1, y1 = (round(SIDE * value) for value in place)
        path = album.any_of(kind, rng)
        image, boxes = _cut(album, path, _MARGIN)
        scene.shown[kind] = album.classes.shown(path)
        scene.picture.paste(image.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC), (x0, y0))
        scene.places[kind] = [place]
        scene.boxes[kind] = [_within(place, box) for box in boxes or [WHOLE]]
    return scene


def _within(place: Box, box: Box) -> Box:
    x0, y0, x1, y1 = place
    wide, high = x1 - x0, y1 - y0
    return (x0 + wide * box[0], y0 + high * box[1], x0 + wide * box[2], y0 + high * box[3])


def _cut(album: Album, path: str, margin: float) -> tuple[Image.Image, list[Box]]:
    """A picture cut to its largest boxed object and a margin around it, so that the object is what it shows.

    Args:
        album: where the picture is from.
        path: of the picture.
        margin: in widths and heights of the object.

    Returns:
        The picture, and the boxes that its sounds come from in its fractions; none where they are not known.
    """
    image, known = album.picture(path), album.boxes.sources(path)
    objects = album.boxes.objects(path)
    if not objects:
        return image, known
    x0, y0, x1, y1 = max(objects, key=_area)
    around_x, around_y = margin * (x1 - x0), margin * (y1 - y0)
    cut = (max(0.0, x0 - around_x), max(0.0, y0 - around_y), min(1.0, x1 + around_x), min(1.0, y1 + around_y))
    wide, high = cut[2] - cut[0], cut[3] - cut[1]
    if min(wide * image.width, high * image.height) <= _LEAST_CUT:
        return image, known
    pixels = (cut[0] * image.width, cut[1] * image.height, cut[2] * image.width, cut[3] * image.height)
    inside = [_shared(cut, box) for box in known if _meet(cut, box)]
    boxes = [
        ((a - cut[0]) / wide, (b - cut[1]) / high, (c - cut[0]) / wide, (d - cut[1]) / high) for a, b, c, d in inside
    ]
    return image.crop(tuple(round(value) for value in pixels)), boxes


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def on_another(album: Album, kinds: Sequence[str], rng: np.random.Generator) -> Scene:
    """An object of the first class on a picture of the second, beside its middle; each may sound.

    One that finds no free place is left out.
    """
    over, under = kinds
    path = album.any_of(under, rng)
    image, boxes = _cut(album, path, _MARGIN)
    scene = Scene(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), shown={under: album.classes.shown(path)})
    middle = slice(round(SIDE * _MIDDLE[0]), round(SIDE * _MIDDLE[1]))
    taken = np.zeros((SIDE, SIDE), bool)
    taken[middle, middle] = True
    _paste(album, scene, over, taken, rng.uniform(0.08, 0.25), rng)
    scene.places[under] = around(*scene.places[over]) if over in scene.places else [WHOLE]
    scene.boxes[under] = [
        _shared(part, box) for part in scene.places[under] for box in boxes or [WHOLE] if _meet(part, box)
    ]
    return scene


def around(hole: Box) -> list[Box]:
    """What of the picture is left without a box: up to four boxes that do not overlap."""
    x0, y0, x1, y1 = hole
    parts: list[Box] = [(0.0, 0.0, 1.0, y0), (0.0, y1, 1.0, 1.0), (0.0, y0, x0, y1), (x1, y0, 1.0, y1)]
    return [part for part in parts if part[2] > part[0] and part[3] > part[1]]


def _meet(one: Box, other: Box) -> bool:
    x0, y0, x1, y1 = _shared(one, other)
    return x1 > x0 and y1 > y0


def _shared(one: Box, other: Box) -> Box:
    return (max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3]))


def pasted(album: Album, kinds: Sequence[str], rng: np.random.Generator) -> Scene:
    """Objects on a picture of another class, which never sounds. One that finds no free place is left out."""
    path = _ground(album, kinds, rng)
    picture = album.picture(path).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(1, 5)))
    scene = Scene(picture, shown={class_of(path): album.classes.shown(path)})
    taken = np.zeros((SIDE, SIDE), bool)
    for kind in kinds:
        _paste(album, scene, kind, taken, rng.uniform(0.06, 0.28), rng)
    return scene


def _paste(album: Album, scene: Scene, kind: str, taken: np.ndarray, area: float, rng: np.random.Generator) -> None:
    """An object of a class that covers a share of the picture, in a place that is not taken; where none is, nothing."""
    path = album.any_of(kind, rng)
    image, mask, boxes = _cut_out(album, path, rng)
    size = _size(image, area * SIDE * SIDE, rng)
    corner = _free_place(taken, size, rng)
    if corner is None:
        return
    (wide, high), (x, y) = size, corner
    scene.picture.paste(image.resize(size, Image.Resampling.BICUBIC), corner, mask.resize(size))
    taken[y : y + high, x : x + wide] = True
    place = (x / SIDE, y / SIDE, (x + wide) / SIDE, (y + high) / SIDE)
    scene.places[kind], scene.shown[kind] = [place], album.classes.shown(path)
    scene.boxes[kind] = [_within(place, box) for box in boxes or [WHOLE]]


def _ground(album: Album, kinds: Sequence[str], rng: np.random.Generator) -> str:
    others = [path for path in album.grounds if class_of(path) not in kinds]
    return others[rng.integers(len(others))]


def _cut_out(album: Album, path: str, rng: np.random.Generator) -> tuple[Image.Image, Image.Image, list[Box]]:
    """The largest boxed object of a picture, or all of it, how opaque, and the boxes in it: a plain background goes."""
    image, boxes = _cut(album, path, 0.0)
    mask = _without_ground(image) if source_of(path) == THRESHOLDED and rng.random() < 0.8 else None
    mask = Image.new("L", image.size, 255) if mask is None else mask
    if rng.random() < 0.5:
        turn = Image.Transpose.FLIP_LEFT_RIGHT
        return image.transpose(turn), mask.transpose(turn), [(1 - x1, y0, 1 - x0, y1) for x0, y0, x1, y1 in boxes]
    return image, mask, boxes


def _without_ground(image: Image.Image) -> Image.Image | None:
    values = np.asarray(image).astype(np.int16)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    middle = np.median(border, 0)
    if (np.abs(border - middle).max(1) < _PLAIN_NEAR).mean() <= _PLAIN_SHARE:
        return None
    object_ = np.abs(values - middle).max(2) > _OBJECT_FAR
    mask = Image.fromarray((object_ * 255).astype(np.uint8))
    return mask.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.GaussianBlur(1))


def _size(image: Image.Image, area: float, rng: np.random.Generator) -> tuple[int, int]:
    shape = np.clip(image.size[0] / image.size[1] * rng.uniform(0.8, 1.25), 0.3, 3)
    return int(min(SIDE, np.sqrt(area * shape))), int(min(SIDE, np.sqrt(area / shape)))


def _free_place(taken: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int] | None:
    wide, high = size
    for _ in range(_TRIES):
        x, y = int(rng.integers(0, SIDE - wide + 1)), int(rng.integers(0, SIDE - high + 1))
        if taken[y : y + high, x : x + wide].mean() < _MOST_OVERLAP:
            return x, y
    return None


def roughened(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light, contrast and colour of another camera, out of focus, of few pixels, compressed: each now and then."""
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = kind(image).enhance(rng.uniform(0.6, 1.4))
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.8)))
    if rng.random() < 0.35:
        small = round(SIDE * rng.uniform(0.35, 0.9))
        image = image.resize((small, small)).resize((SIDE, SIDE))
    if rng.random() < 0.4:
        coded = io.BytesIO()
        image.save(coded, "JPEG", quality=int(rng.integers(25, 80)))
        image = Image.open(coded).convert("RGB")
    return image
