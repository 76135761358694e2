"""Before the first step: clips and their hints, initial weights, frozen backbones, and the card."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avloc import weights
from avloc.annotations.testsets import published_list
from avloc.checkpoint import load_model
from avloc.config import LossWeights, ModelConfig, OptimConfig, TrainConfig, read_toml, resolve_config
from avloc.errors import Refused, UsageError, WeightsError
from avloc.methods import build
from avloc.networks.concepts import CONCEPTS, concept_projections, concepts_hash
from avloc.networks.lite0 import frozen_head
from avloc.networks.yamnet import read_yamnet
from avloc.store import Clip, HintStamp, HintWriter, Store, StoreHeader, StoreWriter
from avloc.train import TrainOptions, plan, train
from avloc.weights import LITE0, YAMNET, Located, Weight
from tests.processes import Here
from tests.recipe_makers import save_lite0, save_yamnet
from tests.run_folders import same_run, tensors
from tests.small_models import SMALL
from tests.small_training import CONFIG, changed
from tests.synthetic_scenes import HINT_WIDTH, write_store

NO_HINTS = LossWeights(audio_hint=0, visual_hint=0)
SHARED_WORDS = ModelConfig(
    vision_trunk="efficientnet_lite0+classes",
    audio_trunk="yamnet+classes",
    dim=len(CONCEPTS) + 2,
    frame=64,
    rate=16_000,
)
FROZEN = TrainConfig(
    model=SMALL, loss=NO_HINTS, init="random", freeze=True, batch=4, epochs=2, workers=0, precision="fp32"
)
CONCEPTUAL = replace(FROZEN, model=SHARED_WORDS, init="concepts")


@pytest.fixture
def published(tmp_path, monkeypatch) -> dict[str, Located]:
    """Random files in the place of the published ones, whose hashes only the published ones have."""
    save_lite0(tmp_path / "lite0.pth")
    save_yamnet(tmp_path / "yamnet.safetensors")
    found = {
        LITE0.name: Located(path=tmp_path / "lite0.pth", hashes={"lite0.pth": "a"}, verified=True),
        YAMNET.name: Located(path=tmp_path / "yamnet.safetensors", hashes={"yamnet.safetensors": "b"}, verified=False),
    }

    def locate(weight: Weight, **_options) -> Located:
        return found[weight.name]

    monkeypatch.setattr(plan, "locate", locate)
    return found


def trunks(run: Path) -> dict[str, torch.Tensor]:
    state = tensors(run / "model.safetensors")
    return {key: value for key, value in state.items() if key.startswith(("imgnet.", "audnet."))}


def test_frozen_trunks_stay_bit_for_bit(store, tmp_path):
    """Statistics of normalisations too; the projections learn."""
    torch.manual_seed(FROZEN.seed)
    begun = plan.Engine(SMALL, torch.device("cpu")).model.state_dict()
    train(TrainOptions(store=store, out=tmp_path / "run", val="0.3"), FROZEN)
    ended = tensors(tmp_path / "run" / "last.safetensors")
    changed = {key for key, value in ended.items() if not torch.equal(value, begun[key])}
    assert changed == {"img_proj.weight", "img_proj.bias", "aud_proj.weight", "aud_proj.bias"}


def test_a_frozen_run_resumes_bit_for_bit(store, tmp_path):
    train(TrainOptions(store=store, out=tmp_path / "whole"), FROZEN)
    steps = iter([False, True])
    report = train(TrainOptions(store=store, out=tmp_path / "cut"), FROZEN, should_stop=lambda: next(steps, False))
    assert report.interrupted
    train(TrainOptions(store=store, out=tmp_path / "cut"), FROZEN)
    assert same_run(tmp_path / "whole", tmp_path / "cut")
    state = torch.load(tmp_path / "whole" / "trainer-state.pt", weights_only=True)
    assert len(state["optimiser"]["state"]) == 4, "nothing is kept for what does not learn"


def test_a_frozen_run_is_another_run(store, tmp_path):
    out = tmp_path / "run"
    train(TrainOptions(store=store, out=out), replace(FROZEN, epochs=1))
    with pytest.raises(Refused, match="freeze was True, now False"):
        train(TrainOptions(store=store, out=out), replace(FROZEN, freeze=False))


def test_thawed_parts_learn_and_their_statistics_stay(store, tmp_path):
    torch.manual_seed(FROZEN.seed)
    begun = plan.Engine(SMALL, torch.device("cpu")).model
    config = replace(FROZEN, thaw="imgnet.stage4.3,imgnet.conv5")
    train(TrainOptions(store=store, out=tmp_path / "run"), config)
    ended = tensors(tmp_path / "run" / "last.safetensors")
    changed = {key for key, value in ended.items() if not torch.equal(value, begun.state_dict()[key])}
    thawed = {key for key, _ in begun.named_parameters() if key.startswith(("imgnet.stage4.3.", "imgnet.conv5."))}
    assert len(thawed) == 12
    assert changed == {"img_proj.weight", "img_proj.bias", "aud_proj.weight", "aud_proj.bias", *thawed}


@pytest.mark.parametrize("name", ["imgnet.layer9", "layer1", "img_proj", "imgnet.maxpool", "imgnet.conv5,"])
def test_a_part_that_is_not_there_cannot_thaw(store, tmp_path, name):
    options = TrainOptions(store=store, out=tmp_path / "run")
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=f"no part '{name.rpartition(',')[2]}' is frozen") as caught:
            train(replace(options, dry_run=dry_run), replace(FROZEN, thaw=name))
    hint = caught.value.hint
    assert "imgnet.conv5" in hint
    assert "maxpool" not in hint
    assert not (tmp_path / "run").exists()


def test_only_what_is_frozen_can_thaw():
    with pytest.raises(UsageError, match=r"thaw = 'imgnet\.conv5' is impossible; valid: empty, unless freeze = true"):
        replace(FROZEN, freeze=False, thaw="imgnet.conv5")
    for method, first in (("lvs", "thaw = 'frame'"), ("sspl", "freeze = True")):
        with pytest.raises(UsageError, match=f"{first} does not apply to --method {method}"):
            resolve_config({"freeze": True, "thaw": "frame"}, method)


def test_the_frozen_head_stays_while_the_other_trains_as_it_would_alone(store, tmp_path, published):
    ends = replace(CONCEPTUAL, thaw="imgnet._blocks.15,imgnet._conv_head,imgnet._bn1")
    alone, both = tmp_path / "alone", tmp_path / "both"
    train(TrainOptions(store=store, out=alone), ends)
    model = replace(SHARED_WORDS, vision_trunk="efficientnet_lite0+classes+published")
    train(TrainOptions(store=store, out=both), replace(ends, model=model))
    ours, theirs = tensors(both / "last.safetensors"), tensors(alone / "last.safetensors")
    for key, value in theirs.items():  # sums over slices of channels round differently
        torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-6)
    file = torch.load(published[LITE0.name].path, weights_only=True)
    stay = {f"imgnet.{key}": value for key, value in frozen_head(file).items()}
    assert ours.keys() - theirs.keys() == stay.keys()
    assert all(torch.equal(ours[key], value) for key, value in stay.items())
    learned = "imgnet._conv_head.weight"
    assert not torch.equal(ours[learned], stay["imgnet._published._conv_head.weight"])


@pytest.mark.parametrize("name", ["imgnet", "imgnet._blocks", "imgnet._blocks.14", "imgnet._bn0", "imgnet._published"])
def test_what_a_frozen_head_depends_on_cannot_thaw(store, tmp_path, published, name):
    model = replace(SHARED_WORDS, vision_trunk="efficientnet_lite0+classes+published")
    frozen = replace(CONCEPTUAL, model=model, thaw=f"imgnet._conv_head,{name}")
    options = TrainOptions(store=store, out=tmp_path / "run", dry_run=True)
    with pytest.raises(UsageError, match=f"no part '{name}' is frozen and trainable") as caught:
        train(options, frozen)
    assert "Valid are imgnet._blocks.15, imgnet._conv_head, imgnet._bn1, imgnet._fc, audnet." in caught.value.hint
    assert f"{name}," not in caught.value.hint
    for settings in ({"freeze": False, "thaw": ""}, {"init": "random"}):
        with pytest.raises(UsageError, match="needs pretrained weights and frozen layers before it") as caught:
            train(options, replace(frozen, **settings))
        assert "--set freeze=true" in caught.value.hint


def test_what_thaws_is_what_learns():
    """`groups` of SACL lists the thawed parts."""
    config = resolve_config({"init": "random", "freeze": True, "thaw": "frame"}, "sacl")
    model = build(config.model)
    model.freeze_backbones()
    before = sum(len(group.parameters) for group in model.groups())
    model.thaw("frame")
    assert sum(len(group.parameters) for group in model.groups()) == before + len(list(model.frame.parameters()))


def test_frozen_trunks_leave_no_gradient_behind():
    engine = plan.Engine(SMALL, torch.device("cpu"))
    engine.model.freeze_backbones()
    engine.model.train()
    assert engine.model.training
    assert not any(part.training for trunk in (engine.model.imgnet, engine.model.audnet) for part in trunk.modules())
    frames = torch.rand(2, 3, 64, 64)
    assert not engine.model.imgnet(frames).features.requires_grad
    assert engine.model.encode_image(frames)[0].requires_grad
    assert plan.Engine(SMALL, torch.device("cpu")).model.train().imgnet.training, "another model is not frozen"


def test_concepts_are_where_a_run_begins(store, tmp_path, published, monkeypatch):
    started = []
    real = plan.start_engine

    def watched(*arguments):
        engine, init = real(*arguments)
        started.append({key: value.clone() for key, value in engine.model.state_dict().items()})
        return engine, init

    monkeypatch.setattr("avloc.train.localizer.start_engine", watched)
    train(TrainOptions(store=store, out=tmp_path / "run"), replace(CONCEPTUAL, epochs=1))
    (begun,) = started
    names = ("img_proj.weight", "img_proj.bias", "aud_proj.weight", "aud_proj.bias")
    assert all(torch.equal(begun[name], part) for name, part in zip(names, concept_projections(), strict=True))
    state = torch.load(published[LITE0.name].path, weights_only=True)
    assert all(torch.equal(begun[f"imgnet.{key}"], value) for key, value in state.items())
    yamnet = read_yamnet(published[YAMNET.name].path)
    assert torch.equal(begun["audnet.block13.pointwise.weight"], yamnet["trunk.block13.pointwise.weight"])
    assert torch.equal(begun["audnet._fc.bias"], yamnet["head.bias"])
    assert all(torch.equal(begun[key], value) for key, value in trunks(tmp_path / "run").items())
    audio = {"weights": "yamnet.safetensors", "sha256": "b", "verified": False}
    init = {"weights": "lite0.pth", "sha256": "a", "verified": True, "audio": audio, "concepts": concepts_hash()}
    assert (
        load_model(tmp_path / "run").card["init"] == init == read_toml(tmp_path / "run" / "config.toml")["run"]["init"]
    )


def test_a_run_from_concepts_resumes_and_refuses_another_table(store, tmp_path, published, monkeypatch):
    for epochs in (1, 2):
        train(TrainOptions(store=store, out=tmp_path / "two"), replace(CONCEPTUAL, epochs=epochs))
    train(TrainOptions(store=store, out=tmp_path / "whole"), CONCEPTUAL)
    assert same_run(tmp_path / "whole", tmp_path / "two")
    monkeypatch.setattr(plan, "concepts_hash", lambda: "another")
    with pytest.raises(Refused, match="init"):
        train(TrainOptions(store=store, out=tmp_path / "two"), CONCEPTUAL)


@pytest.mark.parametrize("change", [{"dim": 16}, {"vision_trunk": "resnet18"}, {"audio_trunk": "yamnet"}])
@pytest.mark.parametrize("dry_run", [False, True])
def test_concepts_go_with_their_networks_only(store, tmp_path, published, change, dry_run):
    options = TrainOptions(store=store, out=tmp_path / "run", dry_run=dry_run)
    with pytest.raises(UsageError, match="--init concepts") as caught:
        train(options, replace(CONCEPTUAL, model=replace(SHARED_WORDS, **change)))
    needs = ("vision_trunk=efficientnet_lite0+classes", "audio_trunk=yamnet+classes", f"dim={len(CONCEPTS) + 2}")
    assert all(f"--set model.{need}" in caught.value.hint for need in needs)
    assert not (tmp_path / "run").exists()


def test_published_weights_go_into_an_audio_network(store, tmp_path, published):
    model = replace(SMALL, vision_trunk="efficientnet_lite0", audio_trunk="yamnet:block5", rate=16_000)
    config = replace(FROZEN, model=model, init="imagenet", epochs=1)
    train(TrainOptions(store=store, out=tmp_path / "run"), config)
    yamnet, ours = read_yamnet(published[YAMNET.name].path), trunks(tmp_path / "run")
    assert torch.equal(ours["audnet.block5.pointwise.weight"], yamnet["trunk.block5.pointwise.weight"])
    assert load_model(tmp_path / "run").card["init"]["audio"]["sha256"] == "b"
    plain = replace(config, model=replace(model, audio_trunk="shufflenet_v2_x0_5"))
    train(TrainOptions(store=store, out=tmp_path / "plain"), plain)
    assert "audio" not in load_model(tmp_path / "plain").card["init"]


def test_absent_sound_weights_are_named_and_never_replaced(store, tmp_path, published, monkeypatch, offline):
    def locate(weight: Weight, **options) -> Located:
        return weights.locate(weight, **options) if weight == YAMNET else published[weight.name]

    monkeypatch.setattr(plan, "locate", locate)
    with pytest.raises(WeightsError, match=r"yamnet\.safetensors") as caught:
        train(TrainOptions(store=store, out=tmp_path / "run"), CONCEPTUAL)
    assert "--init random" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_the_wrong_rate_is_named_before_anything_is_written(store, tmp_path, monkeypatch, capfd):
    flags = ("--audio-trunk", "yamnet", "--vision-trunk", "shufflenet_v2_x0_5", "--init", "random")
    hints = ("--no-audio-hint", "--no-visual-hint")
    for more in ((), ("--dry-run",), ("--set", "model.rate=0")):
        done = Here(monkeypatch, capfd)("train", store, "--out", tmp_path / "run", *flags, *hints, *more)
        assert (done.code, "--set model.rate=16000" in done.err) == (2, True), done.err
        assert not (tmp_path / "run").exists()
    assert Store(store).spec.rate == 22_050


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (replace(NO_HINTS, same_class="masked"), "same_class = masked, but no clip of .* has a label"),
        (replace(NO_HINTS, box=1.0), "box = 1, but no clip of .* has a box or a mask"),
        (replace(NO_HINTS, peak=0.5), "peak = 0.5, but no clip of .* has a box or a mask"),
    ],
)
def test_what_nothing_in_the_store_can_teach_is_refused(loss, words, tmp_path):
    bare = write_store(tmp_path / "bare", 4, boxes=False)
    with pytest.raises(UsageError, match=words) as caught:
        train(TrainOptions(store=bare, out=tmp_path / "run", dry_run=True), replace(FROZEN, loss=loss))
    assert "--kind train" in caught.value.hint


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
