"""Validation: it selects the epoch, and its clips are not trained on."""

from __future__ import annotations

import numpy as np
import pytest

from avloc.checkpoint import load_model
from avloc.config import LossWeights
from avloc.errors import Refused, UsageError
from avloc.evaluate import EvalOptions, evaluate
from avloc.media.pictures import encode_png
from avloc.store import Clip, Store, StoreHeader, StoreWriter
from avloc.train import TrainOptions, train
from tests.small_training import CONFIG, changed
from tests.synthetic_scenes import write_store


@pytest.mark.parametrize("kind", ["store", "share", "split"])
def test_validation_chooses_the_epoch_and_keeps_its_clips_out(store, tmp_path, kind):
    if kind == "store":
        val, held_out = str(write_store(tmp_path / "val", 4, held_out=True, seed=3)), 0
    elif kind == "share":
        val, held_out = "0.3", None
    else:
        val, held_out = "val", 1
        source = Store(store)
        split = tmp_path / "split"
        with StoreWriter(split, StoreHeader(spec=source.spec)) as writer:
            for row, name in enumerate(source.ids):
                writer.add(Clip(**{**vars(source.read(name)), "split": "val" if row == 0 else "train"}))
        store = split
    config = changed(CONFIG, epochs=3, loss=LossWeights(audio_hint=0, visual_hint=0))
    report = train(TrainOptions(store=store, out=tmp_path / "run", val=val), config)
    assert "cIoU@0.5" in report.selection
    assert report.clips < 14 if held_out is None else report.clips == 14 - held_out
    values = [line["val"] for line in report.metrics]
    assert load_model(tmp_path / "run").card["epoch"] == 1 + values.index(max(values))
    assert load_model(tmp_path / "run" / "last.safetensors").card["epoch"] == 3


def test_validation_without_boxes_goes_by_the_loss(tmp_path, store):
    source = Store(store)
    with StoreWriter(tmp_path / "bare", StoreHeader(spec=source.spec)) as writer:
        for name in source.ids[:4]:
            writer.add(Clip(**{**vars(source.read(name)), "boxes": np.zeros((0, 4)), "id": f"val-{name}"}))
    config = changed(CONFIG, loss=LossWeights(audio_hint=0, visual_hint=0))
    report = train(TrainOptions(store=store, out=tmp_path / "run", val=str(tmp_path / "bare")), config)
    values = [line["val"] for line in report.metrics]
    assert "contrastive loss" in report.selection
    assert load_model(tmp_path / "run").card["epoch"] == 1 + values.index(min(values))


def test_validation_by_masks_scores_as_eval_does(store, tmp_path):
    """Clips with masks alone select by cIoU@0.5; clips without an annotation do not count."""
    source = Store(store)
    mask = np.zeros((90, 120), np.bool_)
    mask[:45, :80] = True
    with StoreWriter(tmp_path / "val", StoreHeader(spec=source.spec, kind="test", box_rule="mask")) as writer:
        for row, name in enumerate(source.ids[:6]):
            png = [encode_png(mask), encode_png(~mask), b""][row % 3]
            writer.add(Clip(**{**vars(source.read(name)), "id": f"m{row}", "boxes": np.zeros((0, 4)), "mask": png}))
    config = changed(CONFIG, epochs=1, loss=LossWeights(audio_hint=0, visual_hint=0))
    report = train(TrainOptions(store=store, out=tmp_path / "run", val=str(tmp_path / "val")), config)
    assert report.selection == "best cIoU@0.5, protocol avloc on store val, 4 clips"
    options = EvalOptions(store=tmp_path / "val", models=(tmp_path / "run",), maps=("av",), workers=0, device="cpu")
    (scored,) = [each for each in evaluate(options).reports if each.protocol.name == "avloc"]
    assert scored.n_scored == 4
    assert report.metrics[0]["val"] == scored.maps["av"].overall.ciou_50


def test_a_known_test_set_as_validation_is_labelled(tmp_path, store):
    source = Store(store)
    with StoreWriter(tmp_path / "flickr", StoreHeader(spec=source.spec, kind="test", testset="flickr")) as writer:
        writer.add(Clip(**{**vars(source.read(source.ids[0])), "id": "t"}))
    config = changed(CONFIG, epochs=1, loss=LossWeights(audio_hint=0, visual_hint=0))
    report = train(TrainOptions(store=store, out=tmp_path / "run", val=str(tmp_path / "flickr")), config)
    assert report.selection.startswith("test-selected")


def test_clips_without_boxes_do_not_count_in_validation_and_damaged_ones_stop_it(store, tmp_path):
    source = Store(store)
    clips = [source.read(name) for name in source.ids[:3]]
    with StoreWriter(tmp_path / "val", StoreHeader(spec=source.spec)) as writer:
        writer.add(Clip(**{**vars(clips[0]), "id": "whole", "boxes": np.array([[0, 0, 1, 1.0]])}))
        writer.add(Clip(**{**vars(clips[1]), "id": "bare", "boxes": np.zeros((0, 4))}))
    config = changed(CONFIG, epochs=1, loss=LossWeights(audio_hint=0, visual_hint=0))
    report = train(TrainOptions(store=store, out=tmp_path / "one", val=str(tmp_path / "val")), config)
    assert report.metrics[0]["val"] == 1.0, "half of the picture is half of its box"
    with StoreWriter(tmp_path / "val", StoreHeader(spec=source.spec)) as writer:
        writer.add(Clip(**{**vars(clips[2]), "id": "broken", "picture": b"no"}))
    with pytest.raises(Refused, match=r"broken .* damaged"):
        train(TrainOptions(store=store, out=tmp_path / "two", val=str(tmp_path / "val")), config)


@pytest.mark.parametrize(("val", "words"), [("2.0", "share between 0 and 1"), ("nosuch", "no such store or split")])
def test_an_impossible_validation_is_named(store, tmp_path, val, words):
    with pytest.raises(UsageError, match=words):
        train(TrainOptions(store=store, out=tmp_path, val=val), CONFIG)


def test_the_last_epoch_is_never_called_a_chosen_one(store, tmp_path):
    none = LossWeights(audio_hint=0, visual_hint=0)
    train(TrainOptions(store=store, out=tmp_path, val="0.3"), changed(CONFIG, loss=none))
    cards = [load_model(tmp_path / name).card for name in ("model.safetensors", "last.safetensors")]
    assert [card["selection"].split()[0] for card in cards] == ["best", "last"]
    assert cards[0]["validation_data_hash"] == Store(store).data_hash()
