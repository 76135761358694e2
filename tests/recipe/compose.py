"""Clips composed of labelled pictures and sounds: to train on, and to test with, from files that never meet.

    OUT/split.json    which file is in which part; written last
    OUT/train         half plain pictures, half scenes; some with a wrong sound
    OUT/test/scenes   two objects, one of which sounds
    OUT/test/boxed    pictures with boxes, each with three sounds of its class
    OUT/wrong         pictures, each with its own sound, one of another class, and silence

Each is a folder for `avloc prepare`: frames/ID.jpg, audio/ID.wav, boxes.json with labels
(`audible | visible, visible`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from tests.recipe.pictures import Album, Box, Scene, on_another, pasted, plain, roughened, side_by_side
from tests.recipe.sounds import RATE, SAMPLES, Sounds, Waveform, in_a_room, only_noise
from tests.recipe.split import MACHINE_MADE, THRESHOLDED, Classes, by_class, class_of, source_of

WRONG_SHARE = 0.15
"""Share of the training clips with a wrong sound."""
SCENES = 960
SOUNDS_A_PICTURE = 3
WRONG_PICTURES = 700
QUALITY = 92
SILENCE, NOISE = "silence", "noise"
BANDS = ("accordion", "drums", "guitar", "saxophone", "trombone", "trumpet", "violin")
ALIKE = {
    "car": ("siren",),
    "person": ("baby_cry", "baby_laugh", "children_playing", "street_music"),
    "violin": ("cello", "double_bass"),
}
"""Class -> classes without pictures that a picture of it may well show; never wrong sounds for it."""
LAYOUTS = {"side": side_by_side, "on": on_another, "crowded": pasted}
"""Two objects side by side, one on the other, or both on a picture of a third that never sounds."""
_TRIES = 50


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
        boxes = [[round(float(value), 5) for value in box] for box in self.boxes]
        return {"boxes": boxes, "label": f"{self.audio_class} | {', '.join(self.visible)}"}


@dataclass(frozen=True)
class Part:
    """Pictures and sounds of one part of the split."""

    album: Album
    sounds: Sounds

    @classmethod
    def of(cls, classes: Classes, name: str) -> Part:
        pictures = classes.pictures[name]
        grounds = [path for path in pictures if source_of(path) not in (THRESHOLDED, MACHINE_MADE)]
        album = Album(classes, by_class(pictures), grounds)
        return cls(album, Sounds(classes, by_class(classes.sounds[name])))

    @property
    def kinds(self) -> list[str]:
        """Classes with pictures."""
        return sorted(self.album.pool)


def visible_with(kinds: Sequence[str]) -> list[str]:
    """The classes and those that are often visible where these are."""
    bands = ("street_music",) if set(kinds) & set(BANDS) else ()
    return list(dict.fromkeys([*kinds, *(other for kind in kinds for other in ALIKE.get(kind, ())), *bands]))


def training_clip(part: Part, plain_pictures: Sequence[str], seed: int, index: int) -> Clip:
    """Clip number `index`: every other one a plain picture. It depends on nothing but seed and index."""
    rng = np.random.default_rng((seed, index))
    if index % 2 == 0:
        scene = plain(part.album, plain_pictures[index // 2 % len(plain_pictures)])
    else:
        scene = _training_scene(part, rng)
        scene.picture = roughened(scene.picture, rng)
    visible = visible_with(scene.visible)
    if rng.random() < WRONG_SHARE:
        audio_class, sound = _wrong_sound(part.sounds, visible, rng)
        return Clip(scene.picture, sound, audio_class, visible)
    audio_class = list(scene.places)[rng.integers(len(scene.places))]
    sound = in_a_room(part.sounds.any_of(audio_class, rng), part.sounds, rng)
    return Clip(scene.picture, sound, audio_class, visible, scene.boxes.get(audio_class, []))


def _training_scene(part: Part, rng: np.random.Generator) -> Scene:
    layout = list(LAYOUTS)[rng.integers(len(LAYOUTS))]
    count = int(rng.integers(2, 4)) if layout == "crowded" else 2
    kinds = [part.kinds[k] for k in rng.choice(len(part.kinds), count, replace=False)]
    return LAYOUTS[layout](part.album, kinds, rng)


def _wrong_sound(sounds: Sounds, visible: Sequence[str], rng: np.random.Generator) -> tuple[str, Waveform]:
    way = rng.random()
    if way < 0.15:
        return SILENCE, np.zeros(SAMPLES, np.float32)
    if way < 0.3:
        return NOISE, only_noise(rng)
    pictured = way < 0.5
    with_pictures = {kind for kind, paths in sounds.pool.items() if paths[0].startswith("sounds/")}
    others = sorted(kind for kind in sounds.pool if kind not in visible and (kind in with_pictures) == pictured)
    audio_class = others[rng.integers(len(others))]
    return audio_class, in_a_room(sounds.any_of(audio_class, rng), sounds, rng)


def scored_scene(part: Part, layout: str, seed: int, index: int) -> Clip:
    """Two objects; the boxes are the part of the one that sounds."""
    rng = np.random.default_rng((seed, index))
    audio_class = part.kinds[index % len(part.kinds)]
    others = [kind for kind in part.kinds if kind != audio_class]
    kinds = [audio_class, others[rng.integers(len(others))]]
    rng.shuffle(kinds)
    make = LAYOUTS[layout]
    scene = next(scene for _ in range(_TRIES) if len((scene := make(part.album, kinds, rng)).places) == 2)
    sound = part.sounds.any_of(audio_class, rng)
    return Clip(
        roughened(scene.picture, rng), sound, audio_class, visible_with(scene.visible), scene.places[audio_class]
    )


def scored_scenes(part: Part, seed: int) -> Iterator[tuple[str, Clip]]:
    """As many of each layout; their names end in it."""
    for index in range(SCENES):
        layout = list(LAYOUTS)[index % len(LAYOUTS)]
        yield f"scene-{index:04d}-{layout}", scored_scene(part, layout, seed, index // len(LAYOUTS))


def boxed_clips(part: Part, seed: int) -> Iterator[Clip]:
    """Every picture that can be scored by its boxes, as it is, with three sounds of its class."""
    classes = part.album.classes
    for index, path in enumerate(filter(classes.is_well_boxed, classes.pictures["test"])):
        rng, kind = np.random.default_rng((seed, index)), class_of(path)
        choice = part.sounds.pool[kind]
        again = len(choice) < SOUNDS_A_PICTURE
        for k in rng.choice(len(choice), SOUNDS_A_PICTURE, replace=again):
            sound = part.sounds.whole(choice[k])
            yield Clip(classes.folder / path, sound, kind, visible_with([kind]), part.album.boxes(path))


def wrong_pairs(part: Part, seed: int) -> Iterator[Clip]:
    """Pictures three times each: with a sound of their class, with one of another class, and with silence."""
    rng = np.random.default_rng(seed)
    paths = part.album.classes.pictures["test"]
    chosen = [paths[k] for k in rng.permutation(len(paths))[:WRONG_PICTURES]]
    for path in chosen:
        kind = class_of(path)
        visible = visible_with([kind])
        others = [other for other in part.kinds if other not in visible]
        other = others[rng.integers(len(others))]
        silence = np.zeros(SAMPLES, np.float32)
        for audio_class, sound in (
            (kind, part.sounds.any_of(kind, rng)),
            (other, part.sounds.any_of(other, rng)),
            (SILENCE, silence),
        ):
            yield Clip(part.album.picture(path), sound, audio_class, visible)


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
    _make_folders(folder)
    _write_boxes(folder, [write_clip(folder, name, clip) for name, clip in named])


def _make_folders(folder: Path) -> None:
    for kind in ("frames", "audio"):
        (folder / kind).mkdir(parents=True, exist_ok=True)


def _write_boxes(folder: Path, entries: Sequence[tuple[str, dict]]) -> None:
    (folder / "boxes.json").write_text(json.dumps(dict(entries), indent=0), encoding="utf-8")


def _training_share(data: Path, folder: Path, seed: int, indices: range) -> list[tuple[str, dict]]:
    classes = Classes(data)
    part = Part.of(classes, "train")
    paths = classes.pictures["train"]
    order = [paths[k] for k in np.random.default_rng(seed).permutation(len(paths))]
    return [write_clip(folder, f"train-{i:05d}", training_clip(part, order, seed, i)) for i in indices]


def compose_training(data: Path, folder: Path, clips: int, seed: int) -> None:
    """Training clips, made by as many processes as there are cores, at most four; they do not depend on it."""
    _make_folders(folder)
    workers = max(1, min(4, os.cpu_count() or 1))
    shares = [range(first, clips, workers) for first in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        made = list(pool.map(partial(_training_share, data, folder, seed), shares))
    _write_boxes(folder, sorted(entry for share in made for entry in share))


def compose(data: Path, out: Path, *, clips: int, seed: int) -> None:
    """Everything that training and testing need, into `out`; the same seed gives the same bytes."""
    classes = Classes(data)
    compose_training(data, out / "train", clips, seed)
    part = Part.of(classes, "test")
    seeds = [int(number) for number in np.random.SeedSequence((seed, 1)).generate_state(3)]
    write_set(out / "test" / "scenes", scored_scenes(part, seeds[0]))
    boxed = enumerate(boxed_clips(part, seeds[1]))
    write_set(out / "test" / "boxed", ((f"boxed-{i // 3:04d}-{'abc'[i % 3]}", clip) for i, clip in boxed))
    names = ("right", "wrong", "silent")
    pairs = enumerate(wrong_pairs(part, seeds[2]))
    write_set(out / "wrong", ((f"pair-{i // 3:04d}-{names[i % 3]}", clip) for i, clip in pairs))
    record = {"seed": seed, "clips": clips, "pictures": classes.pictures, "sounds": classes.sounds}
    (out / "split.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
