"""The training loop: runs resume bit for bit, stop cleanly, and repeat; batches, losses, and several seeds."""

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
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import avloc.train as avloc_train
from avloc import loader_processes
from avloc.checkpoint import load_model
from avloc.config import LossWeights, ModelConfig, OptimConfig
from avloc.distributed import Peers
from avloc.errors import Refused
from avloc.store import Clip, HintStamp, HintWriter, Store, StoreHeader, StoreWriter
from avloc.train import TrainOptions, train
from avloc.train.batches import EpochBatches
from avloc.train.localizer import LocalizerTask
from tests.processes import Here
from tests.run_folders import same_run
from tests.small_training import CONFIG, SMALL, SMALL_FLAGS, changed
from tests.synthetic_scenes import HINT_WIDTH, write_store


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
@pytest.mark.parametrize("stop_signal", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(store, eight_epochs, tmp_path, stop_signal):
    """Through the real entry point: 8 epochs in one go equal 2 or more, a kill, and the rest."""
    epochs, stopped = 8, tmp_path / "stopped"
    process = subprocess.Popen(command(store, stopped, epochs), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for_epochs(process, stopped, 2)
    process.send_signal(stop_signal)
    process.communicate()
    assert process.returncode == (-9 if stop_signal == signal.SIGKILL else 128 + stop_signal), (
        "it was stopped, not finished"
    )
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


def test_convolutions_are_benchmarked_in_steps_alone(store, tmp_path, monkeypatch):
    found, step, validate = {"step": set(), "validation": set()}, torch.optim.Adam.step, LocalizerTask.validate

    def watched(kind, call):
        def wrapped(*arguments):
            found[kind].add(torch.backends.cudnn.benchmark)
            return call(*arguments)

        return wrapped

    monkeypatch.setattr(torch.optim.Adam, "step", watched("step", step))
    monkeypatch.setattr(LocalizerTask, "validate", watched("validation", validate))
    train(TrainOptions(store=store, out=tmp_path, val="0.3"), changed(CONFIG, epochs=1))
    assert found == {"step": {True}, "validation": {False}}
    assert not torch.backends.cudnn.benchmark
    assert load_model(tmp_path).card["tf32"] is False


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


def test_the_same_command_twice_changes_nothing(store, tmp_path):
    for _ in range(2):
        train(TrainOptions(store=store, out=tmp_path), CONFIG)
        files = {
            path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".safetensors", ".jsonl")
        }
    train(TrainOptions(store=store, out=tmp_path), CONFIG)
    assert files == {name: (tmp_path / name).read_bytes() for name in files}


def test_the_number_of_loader_processes_does_not_matter(store, tmp_path):
    train(TrainOptions(store=store, out=tmp_path / "none", val="0.3"), CONFIG)
    train(TrainOptions(store=store, out=tmp_path / "two", val="0.3"), changed(CONFIG, workers=2))
    assert same_run(tmp_path / "none", tmp_path / "two")


def test_the_seed_matters(store, tmp_path):
    for seed in (1, 2):
        train(TrainOptions(store=store, out=tmp_path / str(seed)), changed(CONFIG, seed=seed, epochs=1))
    assert not same_run(tmp_path / "1", tmp_path / "2")


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
    """With hints in its own embedding space for every cell, a model comes closer to them."""
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


@pytest.mark.parametrize("late_on", [("cuda",), ("cuda", "cpu")])
def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path, monkeypatch, late_on):
    """A hint of 60000 squares to infinity under the weight; weights and files stay those of the last good step.

    A GPU finds it in the step, and the host one step later.
    """
    store = write_store(tmp_path / "store", 8)
    with HintWriter(store, HintStamp(teacher="panns", shape=(HINT_WIDTH,))) as writer:
        for name in Store(store).ids:
            writer.add(name, np.full(HINT_WIDTH, 60_000.0))
    config = changed(CONFIG, loss=LossWeights(audio_hint=1e38, visual_hint=0))
    monkeypatch.setattr("avloc.train.step_losses.LATE_ON", late_on)
    steps, step = [], torch.optim.Adam.step

    def watched(optimiser):
        weights = optimiser.param_groups[0]["params"]
        before = [weight.detach().clone() for weight in weights]
        step(optimiser)
        steps.append(all(map(torch.equal, before, weights)))

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    with pytest.raises(Refused, match="not finite at step 1: loss inf, contrastive"):
        train(TrainOptions(store=store, out=tmp_path / "run"), config)
    assert steps == [True] * len(late_on), "the weights are the same"
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "trainer-state.pt").exists()


def test_losses_read_late_make_the_same_run(store, tmp_path, monkeypatch):
    events = {"on time": [], "late": []}
    train(TrainOptions(store=store, out=tmp_path / "on time"), CONFIG, events["on time"].append)
    monkeypatch.setattr("avloc.train.step_losses.LATE_ON", ("cuda", "cpu"))
    train(TrainOptions(store=store, out=tmp_path / "late"), CONFIG, events["late"].append)
    assert events["late"] == events["on time"], "every step is reported once, before the end of its epoch"
    assert same_run(tmp_path / "on time", tmp_path / "late")
    steps = iter([False, True])
    train(TrainOptions(store=store, out=tmp_path / "cut"), CONFIG, should_stop=lambda: next(steps, False))
    train(TrainOptions(store=store, out=tmp_path / "cut"), CONFIG)
    assert same_run(tmp_path / "on time", tmp_path / "cut")


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


@given(st.integers(2, 30), st.integers(2, 12), st.integers(0, 5), st.integers(1, 4))
def test_every_epoch_is_a_permutation_in_full_batches(clips, batch, seed, epochs):
    stream = list(EpochBatches(clips, batch, seed, epochs))
    size = min(clips, batch)
    assert len(stream) == epochs * (clips // size)
    assert all(len(positions) == size for positions in stream)
    steps = clips // size
    for epoch in range(epochs):
        positions_of_epoch = [place for positions in stream[epoch * steps : (epoch + 1) * steps] for place in positions]
        assert len(set(positions_of_epoch)) == len(positions_of_epoch)
        assert set(positions_of_epoch) <= set(range(clips))


@given(st.integers(2, 30), st.integers(2, 12), st.integers(0, 5), st.data())
def test_the_order_can_resume_at_any_step(clips, batch, seed, data):
    whole = list(EpochBatches(clips, batch, seed, 3))
    first = data.draw(st.integers(0, len(whole)))
    rest = EpochBatches(clips, batch, seed, 3, first_step=first)
    assert list(rest) == whole[first:]
    assert len(rest) == len(whole) - first


def test_epochs_and_seeds_differ():
    one, other = EpochBatches(50, 10, 1, 2), EpochBatches(50, 10, 2, 2)
    assert list(one)[:5] != list(one)[5:]
    assert list(one) != list(other)


@given(st.integers(2, 40), st.integers(2, 12), st.integers(1, 5))
def test_the_shares_of_all_processes_make_the_batch(clips, batch, size):
    whole = list(EpochBatches(clips, batch, 3, 2))
    parts = [list(EpochBatches(clips, batch, 3, 2, peers=Peers(rank, size))) for rank in range(size)]
    assert [[*chain(*rows)] for rows in zip(*parts, strict=True)] == whole
    for rows in zip(*parts, strict=True):
        assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_a_dry_run_checks_shared_memory(store, tmp_path, monkeypatch):
    monkeypatch.setattr(loader_processes.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    monkeypatch.setattr(loader_processes, "_SHARED_MEMORY", tmp_path)
    options = TrainOptions(store=store, out=tmp_path / "run", dry_run=True)
    assert train(options, changed(CONFIG, workers=0)).dry_run
    with pytest.raises(Refused, match="loader processes need"):
        train(options, changed(CONFIG, workers=1))
