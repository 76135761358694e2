"""Batches from stores: geometry, hints, order, incompatible stores."""

from __future__ import annotations

import io
import re
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avloc.config import LossWeights, ModelConfig, TrainConfig
from avloc.dataset import ClipSet, check_fit, clip_loader, fit_sound, shrunk
from avloc.errors import Refused, UsageError
from avloc.prepare import PrepareOptions
from avloc.registry import StoreSpec
from avloc.store import Clip, Hints, HintStamp, HintWriter, Store, StoreHeader, StoreWriter
from avloc.train.batches import EpochBatches
from avloc.train.clips import training_set
from tests.synthetic_scenes import write_store

CONFIG = ModelConfig(frame=64, dim=16)


def picture(rgb: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, format="PNG")
    return out.getvalue()


def odd_store(folder):
    """A store of frames of three sizes, the second one damaged."""
    spec = StoreSpec(seconds=3.0, rate=22_050)
    rng = np.random.default_rng(0)
    with StoreWriter(folder, StoreHeader(spec=spec)) as writer:
        for name, size in (("a", (90, 120)), ("b", (50, 50)), ("c", (200, 100))):
            sound = rng.integers(-99, 99, spec.samples, dtype=np.int16)
            data = b"damaged" if name == "b" else picture(rng.integers(0, 255, (*size, 3), dtype=np.uint8))
            writer.add(Clip(id=name, picture=data, sound=sound, frame_hw=size))
    return Store(folder)


def test_a_damaged_picture_is_listed_and_not_replaced(tmp_path):
    store = odd_store(tmp_path)
    (batch,) = clip_loader(ClipSet(store, store.ids, CONFIG), batch=3)
    assert batch.ids == ["a", "c"]
    assert [name for name, _ in batch.failures] == ["b"]
    assert batch.frames.shape == (2, 3, 64, 64)
    (alone,) = clip_loader(ClipSet(store, ["b"], CONFIG), batch=3)
    assert (alone.ids, len(alone.failures)) == ([], 1)


def test_all_tensors_of_a_batch_are_pinned(tmp_path, monkeypatch):
    """A tensor that is forgotten would be pinned in the training step, which then waits for it."""
    config = TrainConfig(model=CONFIG)
    store = Store(write_store(tmp_path / "store", 3, hints=True))
    (batch,) = clip_loader(training_set(store, store.ids, config), batch=3)
    batch = replace(batch, prior_frames=batch.frames, detr_frames=batch.frames, segments=batch.frames[:, 0])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    pinned = batch.pin_memory()
    for before, after in ((batch, pinned), (batch.hints, pinned.hints)):
        tensors = {name for name, value in vars(before).items() if isinstance(value, torch.Tensor)}
        assert tensors == {field.name for field in fields(before) if "Tensor" in str(field.type)}, "none is absent"
        for name, value in vars(before).items():
            same = torch.equal(getattr(after, name), value + 1) if name in tensors else getattr(after, name) is value
            assert same or name == "hints", name


def test_training_frames_are_padded_and_keep_their_size(tmp_path):
    store = odd_store(tmp_path)
    (batch,) = clip_loader(ClipSet(store, ["a", "c"], CONFIG, least_side=75), batch=2)
    assert batch.sizes.tolist() == [[90, 120], [150, 75]], "the one is nearly as small, the other shrunk"
    assert batch.frames.shape == (2, 3, 150, 120)
    assert batch.frames[0, :, 90:].max() == 0
    assert batch.frames[1, :, :, 75:].max() == 0
    kept = np.asarray(Image.open(io.BytesIO(store.read("a").picture)))
    assert np.array_equal(batch.frames[0, :, :90].permute(1, 2, 0), kept)


def test_network_input_keeps_the_position_of_a_square(tmp_path):
    """A bright square in the upper right quarter stays there in the network's input."""
    rgb = np.zeros((120, 200, 3), np.uint8)
    rgb[10:50, 120:180] = 255
    spec = StoreSpec()
    with StoreWriter(tmp_path, StoreHeader(spec=spec)) as writer:
        writer.add(Clip(id="x", picture=picture(rgb), sound=np.zeros(spec.samples, np.int16), frame_hw=(120, 200)))
    (batch,) = clip_loader(ClipSet(Store(tmp_path), ["x"], CONFIG))
    rows, columns = np.nonzero(batch.frames[0, 0].numpy() > 127)
    assert abs(rows.mean() / 64 - 30 / 120) < 0.02
    assert abs(columns.mean() / 64 - 150 / 200) < 0.02


def test_hints_are_loaded_with_their_clips(tmp_path):
    store = Store(write_store(tmp_path, 4, hints=True))
    clips = training_set(store, store.ids, TrainConfig(model=CONFIG))
    (batch,) = clip_loader(clips, batch=4)
    assert batch.hints.audio.shape == (4, 16)
    assert batch.hints.visual.shape == (4, 25, 25)
    assert batch.hints.visual_present.tolist() == [True, True, True, False]
    assert batch.hints.visual[3].abs().max() == 0
    for row, name in enumerate(batch.ids):
        assert np.array_equal(batch.hints.audio[row], clips.audio_hints.read(name).astype(np.float32))


def concept_hints(folder, ids, *, cells=7):
    """Hints of the teachers with vector outputs; the last clip has no visual hint."""
    random = np.random.default_rng(3)
    with HintWriter(folder, HintStamp(teacher="yamnet", shape=(16,))) as audio:
        for name in ids:
            audio.add(name, random.random(16))
    with HintWriter(folder, HintStamp(teacher="lite0", shape=(16, cells, cells))) as visual:
        for name in ids[:-1]:
            visual.add(name, random.random((16, cells, cells)))
        visual.add(ids[-1], None)


def test_hints_are_those_of_the_configured_teachers(tmp_path):
    store = Store(write_store(tmp_path, 4, hints=True))
    config = TrainConfig(model=CONFIG, audio_teacher="yamnet", visual_teacher="lite0")
    with pytest.raises(Refused, match="no hints of yamnet") as caught:
        training_set(store, store.ids, config)
    assert "--teacher yamnet" in caught.value.hint
    concept_hints(tmp_path, store.ids)
    clips = training_set(store, store.ids, config)
    (batch,) = clip_loader(clips, batch=4)
    assert batch.hints.audio.shape == (4, 16)
    assert batch.hints.visual.shape == (4, 16, 7, 7)
    assert batch.hints.visual_present.tolist() == [True, True, True, False]
    for row, name in enumerate(batch.ids[:-1]):
        assert np.array_equal(batch.hints.visual[row], Hints(tmp_path, "lite0").read(name).astype(np.float32))
    mixed = training_set(store, store.ids, TrainConfig(model=CONFIG, visual_teacher="lite0"))
    assert [part.stamp["teacher"] for part in (mixed.audio_hints, mixed.visual_hints)] == ["panns", "lite0"]


def test_vector_hints_must_have_the_dimension_of_the_model(tmp_path):
    store = Store(write_store(tmp_path, 2, hints=True))
    concept_hints(tmp_path, store.ids)
    for wide in ({"visual_teacher": "lite0", "loss": LossWeights(audio_hint=0)}, {"audio_teacher": "yamnet"}):
        kind = "visual" if "loss" in wide else "audio"
        with pytest.raises(UsageError, match=f"the {kind} hints of width 16; valid: --dim 16, or --no-{kind}-hint"):
            training_set(store, store.ids, TrainConfig(model=ModelConfig(frame=64, dim=8), **wide))


def test_a_weight_of_zero_needs_no_hints(tmp_path):
    store = Store(write_store(tmp_path, 2))
    off = TrainConfig(model=CONFIG, loss=LossWeights(audio_hint=0, visual_hint=0))
    (batch,) = clip_loader(training_set(store, store.ids, off), batch=2)
    assert batch.hints.audio is None
    assert batch.hints.visual is None
    with pytest.raises(Refused, match="no hints of panns"):
        training_set(store, store.ids, TrainConfig(model=CONFIG))


def test_incomplete_hints_are_refused(tmp_path):
    store = Store(write_store(tmp_path, 3, hints=True))
    with pytest.raises(Refused, match="1 of 4 clips have no hints of panns, first never-run"):
        training_set(store, [*store.ids, "never-run"], TrainConfig(model=CONFIG))


def test_an_incompatible_store_is_refused():
    check_fit(StoreSpec(seconds=10, rate=44_100), CONFIG)
    for spec in (StoreSpec(seconds=2), StoreSpec(rate=16_000)):
        with pytest.raises(Refused, match="the model needs 3 s at 22050 Hz"):
            check_fit(spec, CONFIG)


@pytest.mark.parametrize(
    ("seconds", "hint"),
    [
        (3.0, "Prepare it again with --rate 44100."),
        (4.0, "Prepare it again with --for lvs --rate 44100."),
        (12.0, "No store is that long: train with a smaller model.seconds."),
    ],
)
def test_an_incompatible_store_is_refused_with_the_flags_of_a_compatible_one(seconds, hint):
    config = ModelConfig(**{**vars(CONFIG), "rate": 44_100, "seconds": seconds})
    with pytest.raises(Refused) as caught:
        check_fit(StoreSpec(), config)
    assert caught.value.hint == hint
    if flags := re.search(r"(?:--for (\w+) )?--rate (\d+)", hint):
        check_fit(PrepareOptions(method=flags[1] or "avc", rate=int(flags[2])).spec, config)


def test_a_longer_sound_of_a_higher_rate_is_cropped_and_resampled():
    rate, seconds = 44_100, 5
    time = np.arange(rate * seconds) / rate
    tone = np.where((time >= 2) & (time < 3), 12_000 * np.sin(2 * np.pi * 1000 * time), 0).astype(np.int16)
    sound, out_rate = fit_sound(tone, rate, CONFIG)
    assert (len(sound), out_rate, sound.dtype) == (66_150, 22_050, np.int16)
    loud = np.nonzero(np.abs(sound.astype(int)) > 3_000)[0] / 22_050
    assert abs(loud.min() - 1.0) < 0.01
    assert abs(loud.max() - 2.0) < 0.01
    as_it_is, own_rate = fit_sound(tone, rate, ModelConfig(rate=0))
    assert (len(as_it_is), own_rate) == (132_300, 44_100)
    assert np.array_equal(as_it_is, tone[44_100:-44_100])


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_a_frame_is_never_enlarged_and_is_reduced_before_coarse_sampling(height, width, least):
    before, after = min(height, width), min(shrunk(np.zeros((height, width, 3), np.uint8), least).shape[:2])
    assert after == (least if before > 1.25 * least else before)


def test_fine_patterns_are_averaged_when_reduced():
    board = np.indices((480, 480)).sum(0) % 2 * 255
    assert shrunk(np.repeat(board[..., None], 3, 2).astype(np.uint8), 246).std() < 5


def test_a_batch_is_the_same_with_loader_processes(tmp_path):
    store = Store(write_store(tmp_path, 4, hints=True))
    clips = training_set(store, store.ids, TrainConfig(model=CONFIG))
    stream = [list(clip_loader(clips, EpochBatches(4, 2, 0, 2), workers=workers)) for workers in (0, 2)]
    for alone, worked in zip(*stream, strict=True):
        assert alone.ids == worked.ids
        assert torch.equal(alone.frames, worked.frames)
        assert torch.equal(alone.sound, worked.sound)


def test_the_size_of_a_clip_is_that_of_its_tensors(tmp_path):
    store = Store(write_store(tmp_path, 4, hints=True))
    clips = training_set(store, store.ids, TrainConfig(model=CONFIG))
    (batch,) = clip_loader(clips, [[(row, [[0.0, 0.0, 0.0]]) for row in range(4)]])
    tensors = [value for part in (batch, batch.hints) for value in vars(part).values() if torch.is_tensor(value)]
    assert clips.bytes_per_clip() == sum(tensor.nbytes for tensor in tensors) // 4
    assert ClipSet(odd_store(tmp_path / "odd"), ["b"], CONFIG).bytes_per_clip() == 0  # damaged


def test_two_views_of_a_panorama_need_all_of_it(tmp_path):
    spec = StoreSpec()
    with StoreWriter(tmp_path, StoreHeader(spec=spec)) as writer:
        data = picture(np.zeros((256, 1280, 3), np.uint8))
        writer.add(Clip(id="wide", picture=data, sound=np.zeros(spec.samples, np.int16), frame_hw=(256, 1280)))
    config = TrainConfig(model=CONFIG, loss=LossWeights(audio_hint=0, visual_hint=0))
    clips = training_set(Store(tmp_path), ["wide"], config)
    assert clips.bytes_per_clip(2) > clips.bytes_per_clip(1) + 70 * 250 * 3  # of 70 x 350


def test_labels_are_loaded_with_their_clips(tmp_path):
    spec = StoreSpec()
    with StoreWriter(tmp_path, StoreHeader(spec=spec)) as writer:
        for name, label in (("a", "dog | dog, cat"), ("b", "")):
            sound, data = np.zeros(spec.samples, np.int16), picture(np.zeros((80, 90, 3), np.uint8))
            writer.add(Clip(id=name, picture=data, sound=sound, frame_hw=(80, 90), label=label))
    store = Store(tmp_path)
    (batch,) = clip_loader(ClipSet(store, store.ids, CONFIG), batch=2)
    assert batch.labels == ["dog | dog, cat", ""]
