"""The run folder: its files, other runs in it, and a second process."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from avloc.checkpoint import load_model
from avloc.config import LossWeights, OptimConfig
from avloc.errors import Refused
from avloc.store import HintStamp, HintWriter, Store
from avloc.store.shards import put_texts
from avloc.train import TrainOptions, train
from tests.small_training import CONFIG, SMALL, changed
from tests.synthetic_scenes import HINT_WIDTH, write_store


def test_labels_belong_to_a_run_where_they_teach(store, tmp_path):
    for name in ("dogs", "cats"):
        for shard in shutil.copytree(store, tmp_path / name).glob("*.h5"):
            with h5py.File(shard, "r+") as file:
                clips = len(file["label_offset"]) - 1
                del file["label"], file["label_offset"]
                put_texts(file, "label", [name] * clips)
    masked = changed(CONFIG, epochs=1, loss=LossWeights(same_class="masked"))
    for name, config in (("masked", masked), ("published", changed(CONFIG, epochs=1))):
        train(TrainOptions(store=tmp_path / "dogs", out=tmp_path / name), config)
    with pytest.raises(Refused, match=r"labels_hash \(not as before\)"):
        train(TrainOptions(store=tmp_path / "cats", out=tmp_path / "masked"), masked)
    train(TrainOptions(store=tmp_path / "cats", out=tmp_path / "published"), changed(CONFIG, epochs=1))


def test_a_run_does_not_go_on_as_another(tmp_path):
    """Another validation, other hints or fewer epochs than are done: refused, with what differs."""
    store = write_store(tmp_path / "store", 14, hints=True)
    out = tmp_path / "run"
    train(TrainOptions(store=store, out=out), CONFIG)
    for change, words in (({"val": "0.5"}, "selection"), ({"dry_run": True, "val": "0.5"}, "selection")):
        with pytest.raises(Refused, match=words):
            train(TrainOptions(store=store, out=out, **change), CONFIG)
    with pytest.raises(Refused, match="has 2 epochs already; --epochs 1"):
        train(TrainOptions(store=store, out=out), changed(CONFIG, epochs=1))
    assert train(TrainOptions(store=store, out=out, dry_run=True), CONFIG).epochs_done == 2
    shutil.rmtree(store / "hints-panns")
    with HintWriter(store, HintStamp(teacher="panns", shape=(HINT_WIDTH,), settings={"other": 1})) as writer:
        for name in Store(store).ids:
            writer.add(name, np.zeros(HINT_WIDTH))
    with pytest.raises(Refused, match="hints"):
        train(TrainOptions(store=store, out=out), CONFIG)


def test_the_run_folder_and_the_model_explain_themselves(store, tmp_path):
    report = train(TrainOptions(store=store, out=tmp_path), CONFIG)
    names = {path.name for path in tmp_path.iterdir()} - {".lock"}
    assert names == {
        "model.safetensors",
        "last.safetensors",
        "trainer-state.pt",
        "config.toml",
        "metrics.jsonl",
        "curves.png",
    }
    model = load_model(tmp_path)
    assert model.config == SMALL
    assert model.card["data_hash"] == Store(store).data_hash()
    assert model.card["selection"] == report.selection == "last epoch"
    weights = {"contrastive": 1.0, "agreement": 1.0, "event": 1.0, "audio_hint": 1000.0, "visual_hint": 100_000.0}
    weights |= {"box": 0.0, "peak": 0.0}
    assert model.card["config"]["loss"] == {**weights, "same_class": "negative"}
    assert set(model.card["hints"]) == {"panns", "detr"}
    assert model.card["precision"] == "fp32"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all({"loss", "contrastive", "audio_hint", "visual_hint"} <= set(line) for line in lines)
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.size[0] > 400


def test_another_run_in_the_folder_is_refused(store, tmp_path):
    train(TrainOptions(store=store, out=tmp_path / "run"), changed(CONFIG, epochs=1))
    with pytest.raises(Refused, match=r"optim\.lr was 0\.0001, now 0\.5"):
        train(TrainOptions(store=store, out=tmp_path / "run"), changed(CONFIG, optim=OptimConfig(lr=0.5)))
    other = write_store(tmp_path / "other", 6, seed=5, hints=True)
    with pytest.raises(Refused, match="data_hash"):
        train(TrainOptions(store=other, out=tmp_path / "run"), CONFIG)


def test_a_second_trainer_in_the_folder_is_refused(store, tmp_path):
    from avloc.files import folder_lock

    with folder_lock(tmp_path), pytest.raises(Refused, match="another avloc process"):
        train(TrainOptions(store=store, out=tmp_path), CONFIG)
