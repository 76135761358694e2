"""Teachers with random weights in the published layout, and stores as their input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from avloc.media.pictures import encode_jpeg
from avloc.registry import StoreSpec
from avloc.store import Clip, Store, StoreHeader, StoreWriter
from avloc.teachers.base import Teacher
from avloc.teachers.lite0 import Lite0Teacher
from avloc.teachers.yamnet import YamnetTeacher
from avloc.weights import CNN14, DETR, LITE0, YAMNET, locate
from tests.recipe_makers import save_lite0, save_yamnet, yamnet_layers
from tests.teacher_weights import save_cnn14, save_detr

SECONDS = 1.0
RATE = 22_050
SOURCE_RATE = 44_100
CONCEPT_TEACHERS = ("yamnet", "lite0")


def saved_teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `--weights-dir` with all teachers, written once per test session."""
    folder = tmp_path_factory.getbasetemp() / "teacher-weights"
    if not folder.is_dir():
        folder.mkdir()
        save_cnn14(CNN14.under(folder))
        save_detr(DETR.under(folder))
        save_decided_yamnet(YAMNET.under(folder))
        save_decided_lite0(LITE0.under(folder))
    return folder


def make_store(folder: Path, count: int, *, sources: bool = True, start: int = 0) -> Store:
    """Write `count` clips of noisy pictures and sounds; with `sources`, also the wave files that they were cut from."""
    header = StoreHeader(spec=StoreSpec(seconds=SECONDS, rate=RATE))
    with StoreWriter(folder, header, shard_clips=4) as writer:
        for number in range(start, start + count):
            writer.add(make_clip(number, folder.with_name("sounds") if sources else None))
    return Store(folder)


def make_clip(number: int, sounds: Path | None) -> Clip:
    """One clip; its window starts 0.5 s into a sound of 2 s."""
    random = np.random.default_rng(number)
    time = np.arange(2 * SOURCE_RATE) / SOURCE_RATE
    whole = (0.3 * np.sin(2 * np.pi * (300 + 170 * number) * time) + 0.05 * random.normal(size=time.size)).clip(-1, 1)
    path = ""
    if sounds is not None:
        sounds.mkdir(exist_ok=True)
        path = str(sounds / f"{number:03d}.wav")
        soundfile.write(path, whole, SOURCE_RATE)
    stored = whole[SOURCE_RATE // 2 :][: 2 * int(SECONDS * RATE) : 2]
    coarse = random.integers(0, 256, (6, 8, 3), np.uint8)
    return Clip(
        id=f"clip{number:03d}_000010",
        picture=encode_jpeg(np.kron(coarse, np.ones((16, 16, 1), np.uint8)), quality=90),
        sound=np.round(stored * 32_767).astype(np.int16),
        frame_hw=(96, 128),
        sound_source=path,
        source_bytes=Path(path).stat().st_size if path else 0,
        source_rate=SOURCE_RATE,
        window_s=0.5,
    )


def save_decided_yamnet(path: Path) -> None:
    """Write YAMNet in the published format, with scores on both sides of the threshold."""
    *layers, (kind, weight, scales, axis, bias) = yamnet_layers()
    bias = np.random.default_rng(8).normal(-5, 2, len(bias)).astype("f4")
    save_yamnet(path, [*layers, (kind, weight, scales, axis, bias)])


def save_decided_lite0(path: Path) -> None:
    """Write EfficientNet-Lite0 in the published format, with a classifier that is confident for some cells."""
    state = save_lite0(path)
    torch.save({**state, "_fc.weight": 4 * state["_fc.weight"]}, path)


def hints_of(teacher: Teacher, store: Store) -> list[np.ndarray | None]:
    """Hints of all clips of a store."""
    return teacher.hints([teacher.read(store.read(clip_id)) for clip_id in store.ids])


def concept_teacher(name: str, weights: Path) -> Teacher:
    """The YAMNet or Lite0 teacher with the weights of `saved_teachers`."""
    if name == "yamnet":
        return YamnetTeacher(
            StoreSpec(seconds=SECONDS, rate=RATE), locate(YAMNET, weights_dir=weights), torch.device("cpu")
        )
    return Lite0Teacher(locate(LITE0, weights_dir=weights), torch.device("cpu"))


def unit_reference(strengths: list[float], *nothing: float) -> np.ndarray:
    """A vector of length 1 by plain sums: strengths of the concepts, then the constants for none of them."""
    whole = np.array([*strengths, *nothing])
    return whole / np.sqrt(sum(value**2 for value in whole))
