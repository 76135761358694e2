"""Training on events: resuming, sharing batches, selection, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from avloc.ave.event_table import EventTable
from avloc.ave.training import EventTask
from avloc.checkpoint import load_model, save_model
from avloc.config import parse_settings, resolve_config
from avloc.distributed import Peers
from avloc.engine import weighted_total
from avloc.errors import WeightsError
from avloc.progress import silent
from avloc.train import TrainOptions, train
from tests.fake_gpu import fake_gpu, on_gpu
from tests.run_folders import same_run
from tests.synthetic_ave import KINDS, NOISE_ROWS, OWN, make_run, write_ave
from tests.training_steps import EVENT_STEPS, event_step


@pytest.mark.parametrize("method", ["ave", "ave-match"])
def test_an_interrupted_run_is_resumed_bit_for_bit(store, tmp_path, method):
    options = {"method": method, "val": "val"}
    whole = make_run(store, tmp_path / "whole", **options)
    steps = iter([False, False, True])
    own = [] if method == "ave-match" else [f"ave.classes={KINDS}"]
    config = resolve_config(parse_settings([*own, "epochs=2", "batch=16"]), method)
    cut = TrainOptions(store=store, out=tmp_path / "cut", val="val")
    assert train(cut, config, should_stop=lambda: next(steps, False)).interrupted
    train(cut, config)
    assert same_run(whole, tmp_path / "cut")


@pytest.mark.parametrize(
    ("method", "settings"),
    [*(("ave", (f"ave.{name}=true",)) for name in ("weak", "dmrn", "cross_entropy")), ("ave", ()), ("ave-match", ())],
)
def test_a_step_on_a_gpu_waits_for_nothing_and_copies_each_input_once(store, method, settings):
    own = [] if method == "ave-match" else [f"ave.classes={KINDS}"]
    config = resolve_config(parse_settings([*own, *settings]), method)
    task = EventTask(TrainOptions(store=store, out=store / "none", device="cpu"), config, silent)
    task.start(silent)
    (batch,) = task.load([[0, 1, 2]])
    with torch.backends.cudnn.flags(enabled=False), fake_gpu() as copies:  # cuDNN would look for a driver
        on_gpu(task.model)
        task.device = torch.device("cuda")
        copies.clear()
        terms = task.terms(batch, torch.Generator())
    assert all(term.is_cuda for term in terms.values())
    assert (copies.blocking, copies.pageable, len(copies.pinned)) == ([], [], 4)


@pytest.mark.parametrize(("method", "setting"), EVENT_STEPS)
def test_gradients_of_a_step_need_no_values_on_the_host(method, setting):
    """On torch's meta device, whose tensors have no values: the fake GPU has no backward half."""
    step = event_step(method, setting, 3, torch.device("meta"))
    weighted_total(step.terms(), step.config.loss).backward()
    assert {weight.grad.device.type for weight in step.model.parameters()} == {"meta"}


def test_parts_of_a_batch_have_the_loss_and_gradient_of_the_whole(store):
    """Unequal ones too: what `DistributedDataParallel` takes the mean of."""
    config = resolve_config(parse_settings([f"ave.classes={KINDS}"]), "ave")
    task = EventTask(TrainOptions(store=store, out=store / "none", device="cpu"), config, silent)
    task.start(silent)

    def step(*positions: int) -> tuple[float, torch.Tensor]:
        task.model.zero_grad()
        loss = task.terms(task.training_set.batch(positions), torch.Generator())["event"]
        loss.backward()
        return loss.item(), task.model.affine_v.weight.grad.clone()

    whole, gradient = step(0, 1, 2)

    class Two(Peers):
        def with_rows(self, count: int) -> Peers:
            return replace(self, counts=(1, 2))

    task._peers = Two(size=2)
    parts = [step(0), step(1, 2)]
    assert np.mean([loss for loss, _ in parts]) == pytest.approx(whole, rel=1e-6)
    torch.testing.assert_close(torch.stack([grad for _, grad in parts]).mean(0), gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("method", "sign"), [("ave", 1), ("ave-match", -1)])
def test_the_better_epoch_has_the_higher_score(store, tmp_path, method, sign):
    own = [] if method == "ave-match" else [f"ave.classes={KINDS}"]
    task = EventTask(
        TrainOptions(store=store, out=tmp_path, val="val"), resolve_config(parse_settings(own), method), silent
    )
    task.start(silent)
    score, value = task.validate()
    assert score == sign * value
    batch = task.held_out.batch(range(len(task.held_out)))
    with torch.no_grad():
        if method == "ave":
            expected = (task.model.predict(batch.visual, batch.audio).scores.argmax(2) == batch.labels).float().mean()
        else:
            expected = task.model.losses(batch)["contrastive"]
    assert value == pytest.approx(expected.item(), rel=1e-5)
    assert task.model.training


def test_only_the_training_part_is_used(store, tmp_path):
    table = EventTable.of(store)
    card = load_model(make_run(store, tmp_path / "a", epochs=1)).card
    assert (card["clips"], card["classes"]) == (len(table.part("train")), list(table.classes))
    weak = load_model(make_run(store, tmp_path / "b", "ave.weak=true", epochs=1)).card
    assert weak["clips"] == len(table.part("train")) + NOISE_ROWS


def test_dmrn_starts_from_the_plain_network_except_for_the_head(store, tmp_path):
    plain = make_run(store, tmp_path / "plain", epochs=1)
    begun = make_run(store, tmp_path / "dmrn", "ave.dmrn=true", f"init={plain}", "optim.lr=1e-12", epochs=1)
    theirs, ours = load_model(plain).state, load_model(begun).state
    shared = [name for name in theirs if name in ours and not name.startswith("L")]
    assert "lstm_video.weight_ih_l0" in shared
    assert all(torch.allclose(theirs[name], ours[name], atol=1e-9) for name in shared)
    assert ours["L2.weight"].shape == (KINDS + 1, 256)
    assert load_model(begun).card["init"]["without"] == "head"
    model = load_model(plain)
    rest = {name: value for name, value in model.state.items() if not name.startswith("lstm_audio")}
    save_model(tmp_path / "part.safetensors", model.config, rest, model.card)
    with pytest.raises(WeightsError, match="lstm_audio"):
        make_run(store, tmp_path / "other", "ave.dmrn=true", f"init={tmp_path}/part.safetensors", epochs=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "ave"), "has 4 classes of events"),
        (("--method", "ave", *OWN, "--val", "0.1"), "valid: val, test"),
        (("--method", "ave", *OWN, "--init", "imagenet"), "valid: random, or a model file"),
        (("--method", "ave", *OWN, "--set", "model.tau=0.1"), "--set model.tau does not apply to --method ave"),
        (("--method", "ave", *OWN, "--set", "precision=bf16"), "--set precision does not apply to --method ave"),
        (("--method", "ave-match", "--set", "ave.weak=true"), "settings of ave go with --method ave"),
        (("--method", "ave-match", "--set", "ave_match.margin=0"), "ave_match.margin = 0"),
        (("--method", "avc", "--no-audio-hint", "--no-visual-hint"), "leaves 0 clips"),
    ],
)
def test_invalid_settings_are_refused(store, tmp_path, here, arguments, words):
    done = here("train", store, "--out", tmp_path / "run", *arguments)
    assert done.code in (2, 5)
    assert words in done.err
    assert not (tmp_path / "run" / "config.toml").exists()


def test_training_without_events_has_the_command_as_a_hint(tmp_path, here):
    done = here("train", tmp_path, "--out", tmp_path / "run", "--method", "ave")
    assert (done.code, "avloc prepare AVE_FOLDER --layout ave" in done.err) == (5, True)


@pytest.mark.slow
def test_training_beats_the_baselines_with_each_kind_of_label(tmp_path, here):
    """Far above what needs no model, on held-out clips."""
    write_ave(tmp_path / "AVE", clips=160, events=8)
    data = tmp_path / "store"
    assert here("prepare", tmp_path / "AVE", "--layout", "ave", "--out", data).code == 0

    def score(testset: str, *flags: str) -> dict:
        run = tmp_path / testset
        done = here("train", data, "--out", run, *flags)
        assert done.code == 0, done.err
        return json.loads(here("eval", run, "--testset", testset, "--store", data, "--json").out)

    own = ("--method", "ave", "--set", "ave.classes=8", "--batch", "16", "--epochs", "14")
    full = score("ave", *own)
    assert max(full["baselines"][name] for name in ("commonest class", "background")) < 0.3
    assert full["accuracy"] > 0.9
    weak = score("ave-weak", *own, "--set", "ave.weak=true")
    assert weak["accuracy"] > weak["baselines"]["the clip's event"] > weak["baselines"]["commonest class"]
    match = score("ave-match", "--method", "ave-match", "--epochs", "12")
    for way in ("visual_to_audio", "audio_to_visual"):
        assert match[way] > match["baselines"]["window at random"] + 0.2
