"""Hints a second of PANNs and DETR with random weights, from inputs in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from avloc.registry import METHOD_SPECS
from avloc.teachers.base import Teacher
from avloc.teachers.detr import DetrSettings, DetrTeacher
from avloc.teachers.panns import PannsSettings, PannsTeacher
from avloc.weights import Located
from tests.bench.material import picture
from tests.gpu.results import Options, Row, Skipped, attempted
from tests.teacher_weights import save_cnn14, save_detr, save_whole_detr


def hints(options: Options) -> Iterator[Row]:
    """Each teacher in fp32 and bf16."""
    for name, make in (("PANNs", _panns), ("DETR", _detr)):
        yield from attempted(f"hints of {name}", partial(_hints, options, name, make))


def _hints(options: Options, name: str, make: Callable[[Options], Teacher]) -> Iterator[Row]:
    some = [options.pinned(torch.tensor(one)) for one in _inputs(options)[name]]
    for precision in ("fp32", "bf16"):
        try:
            teacher = make(options).in_precision(precision)
        except ImportError as error:
            raise Skipped(f"a package is not installed: {error}") from None
        inputs = some[: options.size(16, 1) * teacher.batch_size]
        seconds = options.seconds(partial(teacher.hints, inputs), options.size(3, 1), warm=1)
        yield Row(name=f"hints of {name}, {precision}", value=len(inputs) / seconds, unit="hints/s")


def _inputs(options: Options) -> dict[str, list[np.ndarray]]:
    draws = np.random.default_rng(0)
    seconds = METHOD_SPECS["avc"].store.seconds
    sounds = 0.1 * draws.standard_normal((options.size(128, 8), int(seconds * PannsTeacher.rate)), np.float32)
    frames = [picture(seed, (455, 256)) for seed in range(options.size(64, 4))]
    return {"PANNs": list(sounds), "DETR": frames}


def _located(path: Path) -> Located:
    return Located(path=path, hashes={path.name: "0" * 64}, verified=False)


def _panns(options: Options) -> PannsTeacher:
    path = options.work / "Cnn14.pth"
    if not path.is_file():
        save_cnn14(path)
    return PannsTeacher(PannsSettings(sound="store"), METHOD_SPECS["avc"].store, _located(path), options.device)


def _detr(options: Options) -> DetrTeacher:
    path = options.work / "detr"
    if not path.is_dir():
        (save_detr if options.quick else save_whole_detr)(path)
    settings = DetrSettings(side=64) if options.quick else DetrSettings()
    return DetrTeacher(settings, _located(path), options.device)
