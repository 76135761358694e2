"""Batches of a training run: parts of frames that hold the crops of the step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from avloc.config import parse_settings, resolve_config
from avloc.dataset import clip_loader
from avloc.engine import core
from avloc.media.pictures import encode_png
from avloc.progress import silent
from avloc.registry import StoreSpec
from avloc.store import Clip, StoreHeader, StoreWriter
from avloc.train import TrainOptions, localizer
from avloc.train.batches import EpochBatches
from avloc.train.localizer import LocalizerTask
from avloc.train.task import step_seed
from avloc.transforms import crop_frames
from tests.small_models import TINY_METHODS, narrowed

SIZES = ((70, 90), (70, 1_400), (120, 70), (75, 75))
"""Heights and widths; one is a panorama."""


@pytest.fixture(scope="module")
def wide_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide") / "store"
    spec, rng = StoreSpec(), np.random.default_rng(0)
    with StoreWriter(folder, StoreHeader(spec=spec)) as writer:
        for number, size in enumerate(SIZES):
            sound = rng.integers(-9_999, 9_999, spec.samples, dtype=np.int16)
            rgb = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            writer.add(Clip(id=f"{number}", picture=encode_png(rgb), sound=sound, frame_hw=size))
    return folder


@pytest.mark.parametrize("method", ["ezvsl", "sspl"])
def test_a_step_on_parts_of_frames_has_the_crops_of_one_on_whole_frames(wide_store, tmp_path, monkeypatch, method):
    settings = [*TINY_METHODS[method], "batch=2", "epochs=3", "workers=0", "init=random", "precision=fp32"]
    config = resolve_config(parse_settings(settings), method)
    with narrowed():
        task = LocalizerTask(TrainOptions(store=wide_store, out=tmp_path, device="cpu"), config, silent)
        task.start(silent)
    crops = []
    monkeypatch.setattr(core, "crop_frames", lambda *given: crops.append(crop_frames(*given)) or crops[-1])
    stream = EpochBatches(4, 2, config.seed, 3, first_step=1)
    for step, (part, whole) in enumerate(zip(task.load(stream), clip_loader(task.plan.clips, stream), strict=True), 1):
        assert part.ids == whole.ids
        assert part.sizes[:, :2].tolist() == whole.sizes.tolist()
        assert task.model.views == 2 or max(part.frames.shape[2:]) < 90, "the panorama widens no batch"
        for batch in (part, whole):
            task.terms(batch, torch.Generator().manual_seed(step_seed(config.seed, step)))
    assert len(crops) == 5 * 2 * task.model.views
    for of_parts, of_frames in zip(chunks(crops, task.model.views, 0), chunks(crops, task.model.views, 1), strict=True):
        assert torch.allclose(of_parts, of_frames, atol=0.2), "noise of 0 to 255"


def chunks(crops: list[torch.Tensor], views: int, which: int) -> list[torch.Tensor]:
    """Crops of the first (0) or second (1) batch of each step."""
    return [each for place, each in enumerate(crops) if place // views % 2 == which]


@pytest.mark.parametrize(
    ("validation", "workers", "in_flight"), [(None, 0, None), (None, 2, 5), (None, 9, 6), ("some", 2, 9)]
)
def test_shared_memory_must_hold_the_batches_of_training_and_of_validation(
    wide_store, tmp_path, monkeypatch, validation, workers, in_flight
):
    settings = [*TINY_METHODS["ezvsl"], "batch=2", "epochs=3", f"workers={workers}", "init=random", "precision=fp32"]
    config = resolve_config(parse_settings(settings), "ezvsl")
    with narrowed():
        task = LocalizerTask(TrainOptions(store=wide_store, out=tmp_path, device="cpu"), config, silent)
        task.start(silent)
    task.plan = replace(task.plan, validation=validation)
    clips, checked = task.plan.clips, []
    monkeypatch.setattr(localizer, "check_shared_memory", lambda *given: checked.append(given[:2]))
    task.load(EpochBatches(len(clips), 2, config.seed, 3))
    assert checked == ([] if in_flight is None else [(clips.bytes_per_clip() * 2, in_flight)])
