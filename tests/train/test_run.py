"""Training: resumes bit for bit, stops cleanly, selects honestly, refuses what would poison it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import avloc.train as avloc_train
from avloc.annotations.testsets import published_list
from avloc.checkpoint import load_model
from avloc.config import LossWeights, ModelConfig, OptimConfig
from avloc.errors import Refused, UsageError, WeightsError
from avloc.evaluate import EvalOptions, evaluate
from avloc.media.pictures import encode_png
from avloc.store import Clip, HintStamp, HintWriter, Store, StoreHeader, StoreWriter
from avloc.store.shards import put_texts
from avloc.train import TrainOptions, train
from tests.processes import Here
from tests.run_folders import same_run, tensors
from tests.small_training import CONFIG, SMALL, SMALL_FLAGS, changed
from tests.synthetic_scenes import HINT_WIDTH, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("train") / "store", 14, hints=True)


def command(store: Path, out: Path, epochs: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "avloc",
        "train",
        str(store),
        "--out",
        str(out),
        "--epochs",
        str(epochs),
        *SMALL_FLAGS,
    ]


def wait_for_epochs(process: subprocess.Popen, out: Path, epochs: int) -> None:
    log = out / "metrics.jsonl"
    while process.poll() is None and (not log.is_file() or len(log.read_text().splitlines()) < epochs):
        time.sleep(0.01)


@pytest.fixture(scope="module")
def eight_epochs(store, tmp_path_factory) -> Path:
    whole = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(store, whole, 8), check=True, capture_output=True)
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(store, eight_epochs, tmp_path, blow):
    """Through the real entry point: 8 epochs in one go equal 2 or more, a kill, and the rest."""
    epochs, stopped = 8, tmp_path / "stopped"
    process = subprocess.Popen(command(store, stopped, epochs), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for_epochs(process, stopped, 2)
    process.send_signal(blow)
    process.communicate()
    assert process.returncode == (-9 if blow == signal.SIGKILL else 128 + blow), "it was stopped, not finished"
    subprocess.run(command(store, stopped, epochs), check=True, capture_output=True)
    assert same_run(eight_epochs, stopped)


def test_two_epochs_and_two_more_are_four(store, tmp_path):
    train(TrainOptions(store=store, out=tmp_path / "four"), changed(CONFIG, epochs=4))
    train(TrainOptions(store=store, out=tmp_path / "two"), CONFIG)
    report = train(TrainOptions(store=store, out=tmp_path / "two"), changed(CONFIG, epochs=4))
    assert report.epochs_done == 4
    assert same_run(tmp_path / "four", tmp_path / "two")


def test_a_stop_within_an_epoch_loses_nothing(store, tmp_path):
    train(TrainOptions(store=store, out=tmp_path / "whole"), CONFIG)
    steps = iter([False, True])
    report = train(TrainOptions(store=store, out=tmp_path / "cut"), CONFIG, should_stop=lambda: next(steps, False))
    assert (report.interrupted, report.epochs_done) == (True, 0)
    train(TrainOptions(store=store, out=tmp_path / "cut"), CONFIG)
    assert same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_falling_learning_rate_falls_in_a_resumed_run_too(store, tmp_path, monkeypatch):
    """Half a cosine over all steps, whatever they are cut into; another number of epochs would be another run."""
    rates, step = [], torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: rates.append(self.param_groups[0]["lr"]) or step(self))
    falling = changed(CONFIG, optim=OptimConfig(lr=1e-3, schedule="cosine"))
    train(TrainOptions(store=store, out=tmp_path / "whole"), falling)
    expected = 1e-3 * np.cos(np.linspace(0, np.pi / 2, len(rates), endpoint=False)) ** 2
    np.testing.assert_allclose(rates, expected)
    stops = iter([False, False, True])
    train(TrainOptions(store=store, out=tmp_path / "cut"), falling, should_stop=lambda: next(stops, False))
    train(TrainOptions(store=store, out=tmp_path / "cut"), falling)
    assert same_run(tmp_path / "whole", tmp_path / "cut")
    with pytest.raises(Refused, match="epochs was 2, now 4, and the learning rate falls"):
        train(TrainOptions(store=store, out=tmp_path / "cut"), changed(falling, epochs=4))


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


def test_a_run_stays_in_the_precision_that_auto_took(store, tmp_path, monkeypatch):
    """On another processor `auto` may mean another one."""
    options, auto = TrainOptions(store=store, out=tmp_path / "run"), changed(CONFIG, epochs=1, precision="auto")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False})
    train(options, auto)
    assert load_model(tmp_path / "run").card["precision"] == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    for dry_run in (True, False):
        assert train(replace(options, dry_run=dry_run), changed(auto, epochs=2)).precision == "fp32"
    assert load_model(tmp_path / "run").card["precision"] == "fp32"
    with pytest.raises(Refused, match="precision was 'auto', now 'bf16'"):
        train(options, changed(auto, epochs=2, precision="bf16"))
    assert train(replace(options, out=tmp_path / "new", dry_run=True), auto).precision == "bf16"
    config = tmp_path / "run" / "config.toml"
    for unknown in ("", 'precision = "fp8"\n'):  # of an older version; damaged
        config.write_text(re.sub(r'(?m)^precision = "fp32"\n', unknown, config.read_text()))
        assert train(replace(options, dry_run=True), changed(auto, epochs=2)).precision == "bf16"


def test_layers_that_draw_resume_too(store, tmp_path):
    """EfficientNet drops whole blocks at random while it learns."""
    drawing = changed(
        CONFIG,
        model=ModelConfig(**{**vars(SMALL), "vision_trunk": "efficientnet_b0"}),
        loss=LossWeights(audio_hint=0, visual_hint=0),
    )
    train(TrainOptions(store=store, out=tmp_path / "whole"), drawing)
    train(TrainOptions(store=store, out=tmp_path / "cut"), changed(drawing, epochs=1))
    train(TrainOptions(store=store, out=tmp_path / "cut"), drawing)
    assert same_run(tmp_path / "whole", tmp_path / "cut")


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


def test_hints_of_another_width_are_a_usage_error(store, tmp_path):
    wide = changed(CONFIG, model=ModelConfig(**{**vars(SMALL), "dim": 512}))
    with pytest.raises(UsageError, match="--dim 16, or --no-audio-hint"):
        train(TrainOptions(store=store, out=tmp_path), wide)


def test_clips_on_which_a_teacher_failed_are_left_out_and_counted(tmp_path):
    store = write_store(tmp_path / "store", 6)
    with HintWriter(store, HintStamp(teacher="panns", shape=(HINT_WIDTH,))) as writer:
        for name in Store(store).ids[1:]:
            writer.add(name, np.ones(HINT_WIDTH))
    config = changed(CONFIG, epochs=1, loss=LossWeights(visual_hint=0))
    with pytest.raises(Refused, match="1 of 6 clips have no hints of panns"):
        train(TrainOptions(store=store, out=tmp_path / "run"), config)
    failed = json.dumps({"id": Store(store).ids[0], "reason": "too short"})
    (store / "hints-panns" / "failed.jsonl").write_text(failed + "\n")
    events = []
    report = train(TrainOptions(store=store, out=tmp_path / "run"), config, events.append)
    assert report.clips == 5
    assert any("1 clips are left out" in getattr(event, "text", "") for event in events)
    assert load_model(tmp_path / "run").card["clips_without_hints"] == 1


def test_the_same_command_twice_changes_nothing(store, tmp_path):
    for _ in range(2):
        train(TrainOptions(store=store, out=tmp_path), CONFIG)
        files = {
            path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".safetensors", ".jsonl")
        }
    train(TrainOptions(store=store, out=tmp_path), CONFIG)
    assert files == {name: (tmp_path / name).read_bytes() for name in files}


def test_the_number_of_loader_processes_does_not_matter(store, tmp_path):
    train(TrainOptions(store=store, out=tmp_path / "none"), CONFIG)
    train(TrainOptions(store=store, out=tmp_path / "two"), changed(CONFIG, workers=2))
    assert same_run(tmp_path / "none", tmp_path / "two")


def test_the_seed_matters(store, tmp_path):
    for seed in (1, 2):
        train(TrainOptions(store=store, out=tmp_path / str(seed)), changed(CONFIG, seed=seed, epochs=1))
    assert not same_run(tmp_path / "1", tmp_path / "2")


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


def test_logged_terms_add_up_to_the_loss(store, tmp_path):
    (line,) = train(TrainOptions(store=store, out=tmp_path), changed(CONFIG, epochs=1)).metrics
    total = line["contrastive"] + 1_000 * line["audio_hint"] + 100_000 * line["visual_hint"]
    assert line["loss"] == pytest.approx(total, rel=1e-5)


def test_hint_losses_fall(store, tmp_path):
    config = changed(CONFIG, epochs=15, batch=7, optim=OptimConfig(lr=1e-3))
    lines = train(TrainOptions(store=store, out=tmp_path), config).metrics
    assert lines[-1]["audio_hint"] < 0.7 * lines[0]["audio_hint"]
    assert lines[-1]["visual_hint"] < 0.9 * lines[0]["visual_hint"]


def test_teachers_can_be_left_out(store, tmp_path):
    config = changed(CONFIG, epochs=1, loss=LossWeights(audio_hint=0.0))
    (line,) = train(TrainOptions(store=store, out=tmp_path), config).metrics
    assert "audio_hint" not in line
    assert "visual_hint" in line


def test_hints_of_vectors_in_cells_teach_too(store, tmp_path):
    """A student that sees what a teacher of its own space says of each cell comes nearer to it."""
    store = Path(shutil.copytree(store, tmp_path / "store"))
    random = np.random.default_rng(4)
    with HintWriter(store, HintStamp(teacher="lite0", shape=(HINT_WIDTH, 3, 3))) as writer:
        towards = random.standard_normal((HINT_WIDTH, 1, 1))
        for name in Store(store).ids:
            value = towards + 0.1 * random.standard_normal((HINT_WIDTH, 3, 3))
            writer.add(name, value / np.linalg.norm(value, axis=0))
    config = changed(CONFIG, epochs=8, batch=7, visual_teacher="lite0", optim=OptimConfig(lr=1e-3))
    lines = train(TrainOptions(store=store, out=tmp_path / "run"), config).metrics
    assert lines[-1]["visual_hint"] < 0.7 * lines[0]["visual_hint"]
    assert set(load_model(tmp_path / "run").card["hints"]) == {"panns", "lite0"}
    with pytest.raises(Refused, match="visual_teacher was 'lite0', now 'detr'"):
        train(TrainOptions(store=store, out=tmp_path / "run"), changed(config, visual_teacher="detr"))


def test_another_run_in_the_folder_is_refused(store, tmp_path):
    train(TrainOptions(store=store, out=tmp_path / "run"), changed(CONFIG, epochs=1))
    with pytest.raises(Refused, match=r"optim\.lr was 0\.0001, now 0\.5"):
        train(TrainOptions(store=store, out=tmp_path / "run"), changed(CONFIG, optim=OptimConfig(lr=0.5)))
    other = write_store(tmp_path / "other", 6, seed=5, hints=True)
    with pytest.raises(Refused, match="data_hash"):
        train(TrainOptions(store=other, out=tmp_path / "run"), CONFIG)


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path):
    """A hint of 60000 squares to infinity under the weight; the weights on disk stay those of the last good step."""
    store = write_store(tmp_path / "store", 4)
    with HintWriter(store, HintStamp(teacher="panns", shape=(HINT_WIDTH,))) as writer:
        for name in Store(store).ids:
            writer.add(name, np.full(HINT_WIDTH, 60_000.0))
    config = changed(CONFIG, loss=LossWeights(audio_hint=1e38, visual_hint=0))
    with pytest.raises(Refused, match="not finite at step 1: loss inf, contrastive"):
        train(TrainOptions(store=store, out=tmp_path / "run"), config)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "trainer-state.pt").exists()


def test_a_damaged_clip_stops_training_by_name(tmp_path):
    spec = Store(write_store(tmp_path / "store", 3)).spec
    with StoreWriter(tmp_path / "store", StoreHeader(spec=spec)) as writer:
        writer.add(Clip(id="broken", picture=b"no", sound=np.zeros(spec.samples, np.int16), frame_hw=(1, 1)))
    config = changed(CONFIG, loss=LossWeights(audio_hint=0, visual_hint=0))
    with pytest.raises(Refused, match=r"clip broken of the store is damaged"):
        train(TrainOptions(store=tmp_path / "store", out=tmp_path / "run"), config)


def test_fewer_clips_than_a_batch_make_one_batch(store, tmp_path):
    events = []
    report = train(TrainOptions(store=store, out=tmp_path), changed(CONFIG, epochs=1, batch=128), events.append)
    assert report.steps_per_epoch == 1
    assert any("all 14 make one batch" in getattr(event, "text", "") for event in events)


def test_a_dry_run_refuses_a_start_that_is_not_there(store, tmp_path):
    options = TrainOptions(store=store, out=tmp_path / "run", dry_run=True)
    with pytest.raises(UsageError, match=r"gone\.safetensors"):
        train(options, replace(CONFIG, init=str(tmp_path / "gone.safetensors")))


def test_dry_run_writes_nothing(store, tmp_path):
    report = train(TrainOptions(store=store, out=tmp_path / "run", dry_run=True), CONFIG)
    assert (report.clips, report.steps_per_epoch, report.epochs_done) == (14, 3, 0)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("offline")
def test_absent_imagenet_weights_are_named_and_never_replaced(store, tmp_path):
    with pytest.raises(WeightsError, match="shufflenetv2") as caught:
        train(TrainOptions(store=store, out=tmp_path / "run"), changed(CONFIG, init="imagenet"))
    assert "--init random" in caught.value.hint


@pytest.mark.parametrize("name", ["absent.pth", "start.txt"])
def test_an_absent_start_is_answered_with_what_init_takes(store, tmp_path, name):
    (tmp_path / "start.txt").write_text("no model")
    with pytest.raises(UsageError, match=re.escape(name)) as caught:
        train(TrainOptions(store=store, out=tmp_path / "run"), changed(CONFIG, init=str(tmp_path / name)))
    assert caught.value.hint.startswith("--init takes imagenet, concepts, random, a run folder")
    assert "--model" not in f"{caught.value} {caught.value.hint}"


def test_a_model_can_be_the_start(store, tmp_path):
    train(TrainOptions(store=store, out=tmp_path / "first"), changed(CONFIG, epochs=1))
    slow = changed(CONFIG, epochs=1, init=str(tmp_path / "first"), optim=OptimConfig(lr=1e-12))
    train(TrainOptions(store=store, out=tmp_path / "second"), slow)
    one, other = (tensors(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert torch.allclose(one["img_proj.weight"], other["img_proj.weight"], atol=1e-6)
    with pytest.raises(UsageError, match=r"is a model with dim 16 \(here 8\)"):
        none = LossWeights(audio_hint=0, visual_hint=0)
        wide = changed(slow, model=ModelConfig(**{**vars(SMALL), "dim": 8}), loss=none)
        train(TrainOptions(store=store, out=tmp_path / "third"), wide)


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


def test_a_second_trainer_in_the_folder_is_refused(store, tmp_path):
    from avloc.files import folder_lock

    with folder_lock(tmp_path), pytest.raises(Refused, match="another avloc process"):
        train(TrainOptions(store=store, out=tmp_path), CONFIG)


def test_nothing_but_the_environment_differs_between_two_processes(store, tmp_path):
    """The model file holds no path and no clock: two machines make the same bytes."""
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run(command(store, tmp_path / "one", 1), check=True, capture_output=True, env=environment)
    subprocess.run(command(store, tmp_path / "other", 1), check=True, capture_output=True)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
        tmp_path / "other" / "model.safetensors"
    ).read_bytes()


def many(store: Path, out: Path, seeds: str, *more: str) -> list[object]:
    """`avloc train` over several seeds, one epoch each, without hints."""
    start = ("train", store, "--out", out, "--seeds", seeds, "--epochs", "1", "--no-audio-hint", "--no-visual-hint")
    return [*start, *SMALL_FLAGS, "--set", "workers=0", *more]


def alone(store: Path, out: Path, seed: int) -> None:
    none = LossWeights(audio_hint=0.0, visual_hint=0.0)
    train(TrainOptions(store=store, out=out), changed(CONFIG, epochs=1, seed=seed, loss=none))


def test_several_seeds_are_several_runs(store, tmp_path, monkeypatch, capfd):
    """Each is the run that its seed alone would have made; the command twice changes nothing."""
    avloc = Here(monkeypatch, capfd)
    done = avloc(*many(store, tmp_path / "many", "3,1", "--json"))
    reports = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert [report["seed"] for report in reports] == [3, 1]
    assert [report["run"] for report in reports] == [str(tmp_path / "many" / f"seed-{seed}") for seed in (3, 1)]
    for seed in (3, 1):
        alone(store, tmp_path / str(seed), seed)
        model = tmp_path / "many" / f"seed-{seed}" / "model.safetensors"
        assert model.read_bytes() == (tmp_path / str(seed) / "model.safetensors").read_bytes()
    before = {path: path.read_bytes() for path in (tmp_path / "many").rglob("*.safetensors")}
    assert avloc(*many(store, tmp_path / "many", "3,1", "--json")).out == done.out
    assert before == {path: path.read_bytes() for path in before}
    assert set(before) == set((tmp_path / "many").rglob("*.safetensors"))


def test_a_stopped_command_over_seeds_goes_on_where_it_was(store, tmp_path, monkeypatch, capfd):
    """Ctrl-C within the second run ends the whole; the same command finishes it and makes the third."""
    real, calls = avloc_train.train, []

    def interrupted(options, config, listener, stop, peers):
        calls.append(config.seed)
        if len(calls) == 2:
            stop()  # from here on the run, not the signal, decides when to end
            os.kill(os.getpid(), signal.SIGINT)
        return real(options, config, listener, stop, peers)

    avloc, out = Here(monkeypatch, capfd), tmp_path / "many"
    monkeypatch.setattr(avloc_train, "train", interrupted)
    assert avloc(*many(store, out, "1,2,3")).code == 130
    assert calls == [1, 2]
    assert not (out / "seed-2" / "model.safetensors").exists()
    assert not (out / "seed-3").exists()
    first = (out / "seed-1" / "model.safetensors").read_bytes()
    monkeypatch.setattr(avloc_train, "train", real)
    assert avloc(*many(store, out, "1,2,3")).code == 0
    assert (out / "seed-1" / "model.safetensors").read_bytes() == first
    for seed in (2, 3):
        alone(store, tmp_path / str(seed), seed)
        assert same_run(tmp_path / str(seed), out / f"seed-{seed}")


def test_ctrl_c_between_two_runs_ends_the_whole(store, tmp_path, monkeypatch, capfd):
    real = avloc_train.train

    def interrupted(*arguments):
        report = real(*arguments)
        os.kill(os.getpid(), signal.SIGINT)
        return report

    monkeypatch.setattr(avloc_train, "train", interrupted)
    done = Here(monkeypatch, capfd)(*many(store, tmp_path, "1,2", "--json"))
    assert (done.code, len(done.out.splitlines())) == (130, 1)
    assert not (tmp_path / "seed-2").exists()


def test_a_seed_folder_that_holds_another_run_is_found_before_the_first_step(store, tmp_path, monkeypatch, capfd):
    avloc = Here(monkeypatch, capfd)
    alone(store, tmp_path / "seed-2", 7)
    done = avloc(*many(store, tmp_path, "1,2"))
    assert (done.code, "seed was 7, now 2" in done.err) == (5, True)
    assert not (tmp_path / "seed-1").exists()
    done = avloc(*many(store, tmp_path / "seed-2", "1,2"))
    assert (done.code, "is a run" in done.err) == (5, True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--seeds", "1,2", "--seed", "3"), "--seeds and --seed"),
        (("--seeds", "1,2", "--set", "seed=3"), "--seeds and --seed"),
        (("--seeds", ""), "'' is not a seed"),
        (("--seeds", "1,,2"), "'' is not a seed"),
        (("--seeds", "1,-2"), "'-2' is not a seed"),
        (("--seeds", "1,two"), "'two' is not a seed"),
        (("--seeds", "1,٢"), "is not a seed"),
        (("--seeds", "1," + 5_000 * "9"), "is not a seed"),
        (("--seeds", "9999999999999999999"), "below 2^63"),
        (("--seeds", "1,01"), "names a seed twice"),
    ],
)
def test_impossible_seeds_are_named(store, tmp_path, monkeypatch, capfd, flags, words):
    done = Here(monkeypatch, capfd)("train", store, "--out", tmp_path / "run", *flags, *SMALL_FLAGS)
    assert (done.code, words in done.err) == (2, True), done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("ids", "clips", "listed"),
    [
        ("flickr_10k", "flickr_10k", "flickr_10k"),
        ("flickr_10k.txt", "flickr_10k", "flickr_10k"),
        ("flickr-10k.csv", "flickr_10k", "flickr_10k"),
        ("mine.txt", "flickr_10k", ""),
        ("", "flickr_10k", ""),
        ("flickr_10k.txt", "vggss_10k", ""),
        ("flickr_10k, vggss_10k", "flickr_10k", ""),
    ],
)
def test_the_card_names_the_published_list_that_was_trained_on(store, tmp_path, ids, clips, listed):
    """The name counts only if the clips are on the list."""
    source = Store(store)
    header = StoreHeader(spec=source.spec, provenance={"ids": ids})
    with StoreWriter(tmp_path / "store", header) as writer:
        for name, clip_id in zip(source.ids[:4], published_list(clips), strict=False):
            writer.add(Clip(**{**vars(source.read(name)), "id": clip_id}))
    config = changed(CONFIG, epochs=1, loss=LossWeights(audio_hint=0, visual_hint=0))
    train(TrainOptions(store=tmp_path / "store", out=tmp_path / "run"), config)
    card = load_model(tmp_path / "run").card
    assert (card["ids"], card["training_list"]) == (ids, listed)
    assert (card["clips"], card["training_list_clips"]) == (4, 10_000 if listed else 0)
    assert (card["config"]["seed"], card["hints"]) == (CONFIG.seed, {})


def test_the_last_epoch_is_never_called_a_chosen_one(store, tmp_path):
    none = LossWeights(audio_hint=0, visual_hint=0)
    train(TrainOptions(store=store, out=tmp_path, val="0.3"), changed(CONFIG, loss=none))
    cards = [load_model(tmp_path / name).card for name in ("model.safetensors", "last.safetensors")]
    assert [card["selection"].split()[0] for card in cards] == ["best", "last"]
    assert cards[0]["validation_data_hash"] == Store(store).data_hash()
