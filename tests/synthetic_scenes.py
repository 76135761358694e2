"""Synthetic clips: two large coloured shapes on a textured background; the sound is the tone of one of the colours.

The shapes of a scene have different colours and lie side by side or one above the other; the sound does not depend on
the position. A method that ignores the sound localizes half of the scenes; a centre mask localizes none.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from avloc.metrics import ground_truth
from avloc.registry import StoreSpec
from avloc.store import Clip, HintStamp, HintWriter, StoreHeader, StoreWriter

RATE = 22_050
SECONDS = 3.0
SIDE = 256
HINT_WIDTH = 16  # of the synthetic audio hints: models trained with them need `--dim 16`
COLOURS = ((220, 40, 40), (40, 190, 60), (60, 80, 230), (240, 200, 40), (200, 60, 220), (40, 210, 220))
TONES_HZ = (130.0, 260.0, 520.0, 1_040.0, 2_080.0, 4_160.0)
PULSES_HZ = (1.5, 9.0, 2.5, 12.0, 4.0, 6.0)
SHAPES = ("disc", "square", "diamond")


@dataclass(frozen=True)
class Scene:
    """One picture and its sound; `kind` is the index of the sounding colour, `box` has relative coordinates."""

    name: str
    kind: int
    picture: Image.Image
    waveform: np.ndarray
    box: tuple[float, float, float, float]


def pairs(*, held_out: bool) -> list[tuple[int, int]]:
    """Ordered pairs (sounding colour, silent colour); a third of all pairs is held out from training."""
    kinds = range(len(COLOURS))
    return [(a, b) for a in kinds for b in kinds if a != b and ((a + b) % 3 == 0) == held_out]


def make_scene(name: str, sounding: int, other: int, rng: np.random.Generator) -> Scene:
    ground = rng.integers(60, 150, (16, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(ground).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    upright, first = rng.random() < 0.5, rng.random() < 0.5
    boxes = []
    for place, kind in enumerate((sounding, other) if first else (other, sounding)):
        low, high = (0.02, 0.48) if place == 0 else (0.52, 0.98)
        jitter = rng.uniform(-0.015, 0.015, 4)
        box = np.array((low, 0.04, high, 0.96) if upright else (0.04, low, 0.96, high)) + jitter
        boxes.append((kind, tuple(np.clip(box, 0, 1))))
        _draw_shape(draw, boxes[-1][1], COLOURS[kind], rng.choice(SHAPES))
    box = next(where for kind, where in boxes if kind == sounding)
    return Scene(name, sounding, picture, tone(sounding, rng), box)


def _draw_shape(draw: ImageDraw.ImageDraw, box: Sequence[float], colour: Sequence[int], shape: str) -> None:
    x0, y0, x1, y1 = (SIDE * value for value in box)
    if shape == "disc":
        draw.ellipse((x0, y0, x1, y1), fill=tuple(colour))
    elif shape == "square":
        draw.rectangle((x0, y0, x1, y1), fill=tuple(colour))
    else:
        middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
        draw.polygon([(middle_x, y0), (x1, middle_y), (middle_x, y1), (x0, middle_y)], fill=tuple(colour))


def tone(kind: int, rng: np.random.Generator, seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    """A pulsing tone with overtones and noise, float32 [samples]."""
    time = np.arange(int(seconds * rate)) / rate
    pitch = TONES_HZ[kind] * rng.uniform(0.97, 1.03)
    orders = range(1, int(rate / 2.2 / pitch) + 1)
    wave = sum(np.sin(2 * np.pi * order * pitch * time + rng.uniform(0, 6)) / order for order in orders)
    wave *= np.sin(np.pi * PULSES_HZ[kind] * time + rng.uniform(0, 3)) ** 2
    wave = rng.uniform(0.1, 0.4) * wave + 0.003 * rng.standard_normal(len(time))
    return np.clip(wave, -1, 1).astype(np.float32)


def scenes(clips: int, *, held_out: bool, seed: int) -> Iterator[Scene]:
    """Yield scenes that cycle through all training or held-out pairs of colours."""
    rng = np.random.default_rng(seed)
    choices = pairs(held_out=held_out)
    for index in range(clips):
        yield make_scene(f"scene{seed}-{index:04d}", *choices[index % len(choices)], rng)


def write_store(
    folder: Path, clips: int, *, held_out: bool = False, seed: int = 0, hints: bool = False, boxes: bool = True
) -> Path:
    """Write scenes to a store, optionally with ideal hints.

    Each tone has its own audio hint; the visual hint is a map of the sounding shape, absent for the last clip.
    """
    made = list(scenes(clips, held_out=held_out, seed=seed))
    spec = StoreSpec(seconds=SECONDS, rate=RATE, shorter_side=SIDE)
    with StoreWriter(folder, StoreHeader(spec=spec, kind="train", expected=())) as writer:
        for scene in made:
            jpeg = io.BytesIO()
            scene.picture.save(jpeg, format="JPEG", quality=92)
            sound = np.round(scene.waveform * 32_767).astype(np.int16)
            box = np.array([scene.box] if boxes else []).reshape(-1, 4)
            writer.add(Clip(id=scene.name, picture=jpeg.getvalue(), sound=sound, frame_hw=(SIDE, SIDE), boxes=box))
    if hints:
        vectors = np.random.default_rng(99).standard_normal((len(COLOURS), HINT_WIDTH))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        with HintWriter(folder, HintStamp(teacher="panns", shape=(HINT_WIDTH,))) as audio:
            for scene in made:
                audio.add(scene.name, vectors[scene.kind])
        with HintWriter(folder, HintStamp(teacher="detr", shape=(25, 25))) as visual:
            for scene in made[:-1]:
                truth = ground_truth(np.array([scene.box]), "union", 25)
                visual.add(scene.name, truth / truth.sum())
            visual.add(made[-1].name, None)
    return folder


def write_media(folder: Path, *, clips: int, held_out: bool, seed: int) -> Path:
    """Write scenes as input of `avloc prepare`: frames/<id>.jpg, audio/<id>.wav and boxes.json."""
    import soundfile

    boxes = {}
    for kind in ("frames", "audio"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for scene in scenes(clips, held_out=held_out, seed=seed):
        scene.picture.save(folder / "frames" / f"{scene.name}.jpg", quality=92)
        soundfile.write(folder / "audio" / f"{scene.name}.wav", scene.waveform, RATE)
        boxes[f"frames/{scene.name}.jpg"] = [list(scene.box)]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return folder
