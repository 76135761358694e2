"""Clips composed of labelled pictures and sounds: to train on, and to test with, from files that never meet.

    OUT/split.json            which file is in which part; written last
    OUT/train                 half plain pictures, half scenes; some with a wrong sound
    OUT/test/scenes           two objects of `classes`, one of which sounds
    OUT/test/scenes-everyday  two objects, one of which sounds, of a class of `everyday`
    OUT/test/mixed            two objects that both sound; mixed.json has the boxes of both
    OUT/test/boxed            pictures with boxes, each with three sounds that fit it
    OUT/wrong                 pictures, each with a sound that fits it, a wrong one, and silence

Each is a folder for `avloc prepare`: frames/ID.jpg, audio/ID.wav, boxes.json with labels
(`audible | visible, visible`, all of them sound classes).
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from avloc.errors import Refused
from avloc.files import read_json_object
from tests.recipe.boxes import Box
from tests.recipe.clips import (
    LAYOUTS,
    NOISE,
    SILENCE,
    Clip,
    Part,
    composed_kinds,
    make_folders,
    write_boxes,
    write_clip,
)
from tests.recipe.pictures import Scene, plain, roughened
from tests.recipe.scored import makers, write_scored
from tests.recipe.sounds import SAMPLES, Waveform, in_a_room, only_noise
from tests.recipe.split import Classes, tables_hash

SPLIT = "split.json"
WRONG_SHARE = 0.15
"""Share of the training clips with a wrong sound."""


def is_plain(index: int) -> bool:
    """Whether training clip number `index` is a picture as it is; the others are scenes."""
    return index % 2 == 0


def training_clip(part: Part, plain_pictures: Sequence[str], seed: int, index: int) -> Clip:
    """Clip number `index`: every other one a plain picture. It depends on nothing but seed and index."""
    rng = np.random.default_rng((seed, index))
    if is_plain(index):
        scene = plain(part.album, plain_pictures[index // 2])
    else:
        scene = _training_scene(part, rng)
        scene.picture = roughened(scene.picture, rng)
    if rng.random() < WRONG_SHARE:
        audio_class, sound = _wrong_sound(part, scene.visible, rng)
        return Clip(scene.picture, sound, audio_class, scene.visible)
    kind = list(scene.places)[rng.integers(len(scene.places))]
    audio_class = part.sounds.draw(part.sounds.fitting(kind), rng)
    sound = in_a_room(part.sounds.any_of(audio_class, rng), part.sounds, rng)
    return Clip(scene.picture, sound, audio_class, scene.visible, sources_of(part, scene, audio_class))


def _training_scene(part: Part, rng: np.random.Generator) -> Scene:
    layout = list(LAYOUTS)[rng.integers(len(LAYOUTS))]
    count = int(rng.integers(2, 4)) if layout == "crowded" else 2
    kinds = [part.kinds[k] for k in rng.choice(len(part.kinds), count, replace=False, p=part.weights)]
    return LAYOUTS[layout](part.album, kinds, rng)


def sources_of(part: Part, scene: Scene, audio_class: str) -> list[Box]:
    """Where a sound comes from: all things that make it; nothing where one that may make it has no known place."""
    found: list[Box] = []
    for kind in makers(scene, audio_class):
        if kind not in scene.boxes or audio_class not in part.sounds.fitting(kind):
            return []
        found += scene.boxes[kind]
    return found


def _wrong_sound(part: Part, visible: Sequence[str], rng: np.random.Generator) -> tuple[str, Waveform]:
    way = rng.random()
    if way < 0.15:
        return SILENCE, np.zeros(SAMPLES, np.float32)
    if way < 0.3:
        return NOISE, only_noise(rng)
    pictured = way < 0.5
    unseen = sorted(set(part.sounds.pool) - set(visible))
    others = [name for name in unseen if (name in part.pictured) == pictured] or unseen
    audio_class = others[rng.integers(len(others))]
    return audio_class, in_a_room(part.sounds.any_of(audio_class, rng), part.sounds, rng)


def plain_order(part: Part, count: int, seed: int) -> list[str]:
    """Pictures to be taken as they are: classes drawn by weight, the pictures of each in turn."""
    rng = np.random.default_rng(seed)
    orders = {kind: rng.permutation(part.album.pool[kind]) for kind in part.kinds}
    kinds = [part.kinds[k] for k in rng.choice(len(part.kinds), count, p=part.weights)]
    taken: dict[str, int] = defaultdict(int)

    def following(kind: str) -> str:
        taken[kind] += 1
        return str(orders[kind][(taken[kind] - 1) % len(orders[kind])])

    return [following(kind) for kind in kinds]


def _training_share(
    classes: Classes, faces: Mapping[str, Sequence[Box]], folder: Path, clips: int, seed: int, first: int, step: int
) -> list[tuple[str, dict]]:
    part = Part.train(classes, faces)
    order = plain_order(part, (clips + 1) // 2, seed)
    indices = range(first, clips, step)
    return [write_clip(folder, f"train-{i:05d}", training_clip(part, order, seed, i)) for i in indices]


def compose_training(classes: Classes, faces: Mapping[str, Sequence[Box]], folder: Path, clips: int, seed: int) -> None:
    """Training clips, made by as many processes as there are cores, at most four; they do not depend on it."""
    make_folders(folder)
    workers = max(1, min(4, os.cpu_count() or 1))
    share = partial(_training_share, classes, faces, folder, clips, seed, step=workers)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        made = list(pool.map(share, range(workers)))
    write_boxes(folder, sorted(entry for share in made for entry in share))


def check_composed(out: Path, *, open_only: bool, **wanted: int) -> None:
    """Refuse a folder that was composed for the other model, by other tables or with other settings.

    Args:
        out: the folder of `compose`.
        open_only: as in `compose`.
        wanted: `clips` and `seed`, where they matter.

    Raises:
        Refused: it was.
    """
    there = read_json_object(out / SPLIT)
    for name, value in {"open_only": open_only, "tables": tables_hash(), **wanted}.items():
        if there.get(name) != value:
            raise Refused(f"{out} was composed with {name} {there.get(name)}, not {value}", hint="take another --out")


def compose(
    data: Path, out: Path, faces: Mapping[str, Sequence[Box]], *, clips: int, seed: int, open_only: bool = False
) -> None:
    """Everything that training and testing need, into `out`; the same seed gives the same bytes.

    Args:
        data: the folder with `classes` and `everyday`.
        out: the folder for everything that is made.
        faces: `tests.recipe.boxes.faces_of`.
        clips: number of training clips.
        seed: of all draws.
        open_only: train only on files that may be used for any purpose. Test sets have all files.
    """
    classes = Classes(data, open_only=open_only)
    compose_training(classes, faces, out / "train", clips, seed)
    write_scored(data, out, composed_kinds(Classes(data)), seed)
    record = {"open_only": open_only, "tables": tables_hash(), "seed": seed, "clips": clips}
    parts = {"pictures": classes.pictures, "sounds": classes.sounds}
    (out / SPLIT).write_text(json.dumps({**record, **parts}, indent=1), encoding="utf-8")
