"""Small pictures and sounds in the layout of the recipe's material."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from tests.recipe.sounds import RATE

KINDS = ("cat", "dog", "lion", "piano", "sheep", "violin")
ONLY = ("cello", "siren", "frog")
NUMBER = 24
"""Pictures and sounds of each class of `classes`."""
EVERYDAY_PICTURES = {
    "person": [f"voc07_{n:06d}" for n in range(20)] + [f"pacs_{n}" for n in range(4)],
    "face": [f"observ_{n}" for n in range(16)],
    "crowd": [f"shtech_A-{n}" for n in range(16)] + [f"shtech_B-{n}" for n in range(4)],
    "bus": [f"voc07_{n:06d}" for n in range(30, 50)],
    "keyboard": [f"cal101_laptop-{n}" for n in range(8)] + [f"jetson_desk-{n}" for n in range(12)],
    "baseball": [f"sports_baseball-{n}" for n in range(8)],
    "goose": [f"inet_goose-{n}" for n in range(3)],
}
EVERYDAY_SOUNDS = {
    "speech": [f"libri_{n // 2}-1-{n}" for n in range(20)] + [f"picoint_{n}" for n in range(4)],
    "laugh": [f"cdda_laugh-{word}" for word in ("loud", "low", "long", "odd", "evil", "shy", "old", "new")],
    "cheering": [f"maxac_cheers-{word}{piece}" for word in "abcdefgh" for piece in ("", "+0", "+1")],
    "engine": [f"antum_motor-{word}-{take}" for word in "abcdefghijklmnop" for take in (1, 2)],
    "typing": [f"woven_typing-{word}" for word in "abcdefgh"] + [f"shoyo_take-{n}" for n in range(4)],
    "snoring": [f"snore_1-{n}" for n in range(9)],
    "goose": ["petz_goose"],
    "violin": [f"fsdk18_{n:08x}" for n in range(8)],
}
OBJECTS = {"person": "person", "bus": "bus", "keyboard": "laptop", "baseball": "person"}
"""Class -> name of the automatic box in each of its pictures."""


def write_material(folder: Path) -> Path:
    """`classes` with six classes and sounds of three more, and `everyday`; every object is dark, on white."""
    _write_classes(folder / "classes", np.random.default_rng(0))
    _write_everyday(folder / "everyday", np.random.default_rng(1))
    return folder


def _write_classes(folder: Path, rng: np.random.Generator) -> None:
    boxes = {}
    for number, kind in enumerate(KINDS):
        for index in range(NUMBER):
            source = ("cocotrain", "ins", "hc", "mk")[index % 4] if kind != "lion" else "hc"
            path = f"images/{kind}/{source}_{number}{index:03d}.jpg"
            box = _write_picture(folder / path, 60 + index, rng, shade=number + 1)
            if kind in ("cat", "dog") and source in ("cocotrain", "ins", "hc"):
                boxes[path] = [box]
    _write_json(folder, boxes, {})
    for place, kinds in (("sounds", KINDS), ("sounds_only", ONLY)):
        for kind in kinds:
            for index in range(NUMBER):
                name = f"us8k_{98 + index // 2}-{index % 2}" if kind == "dog" else f"fluid_{kind}-{index}"
                _write_sound(folder / place / kind / f"{name}.wav", 1 + index / 6, rng)


def _write_everyday(folder: Path, rng: np.random.Generator) -> None:
    boxes, auto_boxes = {}, {}
    for kind, names in EVERYDAY_PICTURES.items():
        for index, name in enumerate(names):
            path = f"images/{kind}/{name}.jpg"
            box = _write_picture(folder / path, 60 + index, rng, shade=2)
            if name.startswith("voc07"):
                boxes[path] = [box]
            auto_boxes[path] = [[*box, 0.9, OBJECTS[kind]]] if kind in OBJECTS else []
    _write_json(folder, boxes, auto_boxes)
    for kind, names in EVERYDAY_SOUNDS.items():
        for index, name in enumerate(names):
            _write_sound(folder / "sounds" / kind / f"{name}.wav", 1 + index / 8, rng)


def _write_picture(path: Path, height: int, rng: np.random.Generator, shade: int) -> list[float]:
    path.parent.mkdir(parents=True, exist_ok=True)
    ground = np.full((height, 80, 3), 250, np.uint8)
    ground[20:50, 20:60] = rng.integers(0, 120, (30, 40, 3)) // shade
    Image.fromarray(ground).save(path)
    return [0.25, 20 / height, 0.75, 50 / height]


def _write_sound(path: Path, seconds: float, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * rng.standard_normal(int(RATE * seconds)), RATE)


def _write_json(folder: Path, boxes: dict, auto_boxes: dict) -> None:
    (folder / "boxes.json").write_text(json.dumps(boxes))
    (folder / "auto_boxes.json").write_text(json.dumps(auto_boxes))


def faces_in(folder: Path) -> dict[str, list[tuple[float, float, float, float]]]:
    """A face in the upper middle of every object in the pictures of faces, persons and crowds."""
    height = {path: len(np.asarray(Image.open(folder / path))) for path in _people(folder)}
    return {path: [(0.4, 22 / high, 0.5, 32 / high)] for path, high in height.items()}


def _people(folder: Path) -> list[str]:
    found = (folder.glob(f"everyday/images/{kind}/*.jpg") for kind in ("person", "face", "crowd"))
    return sorted(path.relative_to(folder).as_posix() for paths in found for path in paths)
