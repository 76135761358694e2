"""The networks of AVE: losses, initial weights, published files."""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avloc.ave.matching import AveMatch
from avloc.ave.networks import AVE, Features, build_network, of_clip
from avloc.checkpoint import load_model
from avloc.config import ModelConfig
from avloc.errors import UsageError
from avloc.registry import EVENT_SPECS
from tests.parity import drawing_events
from tests.parity.comparing import tensors
from tests.synthetic_ave import features


def ave(**own) -> AVE:
    torch.manual_seed(0)
    own = {"classes": 28, "dmrn": False, "weak": False, "cross_entropy": False, **own}
    return AVE(ModelConfig(method="ave", dim=512, rate=16_000, seconds=10.0, own=own))


@pytest.mark.parametrize("dmrn", [False, True])
@pytest.mark.parametrize("weak", [False, True])
@pytest.mark.parametrize("cross_entropy", [False, True])
def test_every_parameter_has_a_gradient_for_clips_of_any_length(dmrn, weak, cross_entropy):
    model = ave(classes=5, dmrn=dmrn, weak=weak, cross_entropy=cross_entropy)
    batch = features(3, 4, background=5)
    predicted = model.predict(batch.visual, batch.audio)
    assert predicted.scores.shape == predicted.probabilities.shape == (3, 4, 6)
    torch.testing.assert_close(predicted.attention.sum((2, 3)), torch.ones(3, 4))
    alone = model.predict(batch.visual[1:2], batch.audio[1:2])
    torch.testing.assert_close(alone.scores, predicted.scores[1:2])
    (loss,) = model.losses(batch).values()
    loss.backward()
    (group,) = model.groups()
    assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in group.parameters)


def test_the_published_loss_has_a_floor_and_cross_entropy_has_none():
    perfect = F.one_hot(torch.arange(29), 29) * 1000.0
    floor = F.multilabel_soft_margin_loss(perfect.softmax(-1), F.one_hot(torch.arange(29), 29).float())
    assert floor.item() == pytest.approx(0.680, abs=5e-4)
    batch = features(2, 3)
    predicted = ave().predict(batch.visual, batch.audio)
    truth = F.one_hot(batch.labels, 29).float()
    theirs = F.multilabel_soft_margin_loss(predicted.probabilities.flatten(0, 1), truth.flatten(0, 1))
    torch.testing.assert_close(ave().losses(batch), {"event": theirs})
    plain = -predicted.scores.log_softmax(-1)[truth > 0].mean()
    torch.testing.assert_close(ave(cross_entropy=True).losses(batch), {"event": plain})


def test_weak_labels_are_the_classes_of_clips():
    labels = torch.tensor([[28, 4, 4, 28], [28, 28, 28, 28], [0, 0, 0, 0]])
    batch = features(3, 4)
    batch = Features(visual=batch.visual, audio=batch.audio, labels=labels, clips=torch.tensor([4, 28, 0]))
    scores = of_clip(ave().predict(batch.visual, batch.audio).scores)
    expected = F.cross_entropy(scores, torch.tensor([4, 28, 0]))
    torch.testing.assert_close(ave(weak=True, cross_entropy=True).losses(batch), {"event": expected})
    theirs = F.multilabel_soft_margin_loss(scores.softmax(-1), F.one_hot(torch.tensor([4, 28, 0]), 29).float())
    torch.testing.assert_close(ave(weak=True).losses(batch), {"event": theirs})


def test_initial_weights_are_the_published_ones():
    drawn = {name for name, part in ave().named_modules() if isinstance(part, torch.nn.Linear)}
    for dmrn, xavier in ((False, drawn), (True, {"L2"})):
        model = ave(dmrn=dmrn)
        for name, part in model.named_modules():
            if isinstance(part, torch.nn.Linear) and part.weight.numel() > 1000:
                outputs, inputs = part.weight.shape
                bound = math.sqrt(6 / (outputs + inputs)) if name in xavier else math.sqrt(1 / inputs)
                assert part.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
    layer = AveMatch(ModelConfig(method="ave-match", dim=512, own={"margin": 2.0})).visual[0]
    assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 640), rel=0.02)
    assert not layer.bias.any()


def test_published_files_are_recognised():
    files = {name: tensors(state) for name, state in drawing_events.weights(3).items()}
    sizes = {"AV_att": 1_335_246, "AV_att_weak": 1_335_246, "DMRN": 1_571_150}
    for name, size in sizes.items():
        config, state = AVE.from_published({name: files[name]})
        own = {"classes": 28, "dmrn": name == "DMRN", "weak": name == "AV_att_weak", "cross_entropy": False}
        assert (config.method, config.rate, config.seconds, config.own) == ("ave", 16_000, 10.0, own)
        model = AVE(config)
        model.load_state_dict(state)
        assert sum(weight.numel() for weight in model.parameters()) == size
        assert AveMatch.from_published({name: files[name]}) is None
    keras = files["cmm_model_weights"]
    config, state = AveMatch.from_published({"cmm_model_weights": keras})
    model = AveMatch(config)
    model.load_state_dict(state)
    assert torch.equal(model.audio[2].weight, keras["dense_4/dense_4/kernel:0"].T)
    assert sum(weight.numel() for weight in model.parameters()) == 98_688
    assert AVE.from_published({"cmm_model_weights": keras}) is None
    assert AVE.from_published(files) is AveMatch.from_published(files) is None


def test_pickled_modules_and_keras_weights_are_loaded(tmp_path):
    from tests.torch03_files import Module, Stored, old_file, parameter

    config = ModelConfig(**EVENT_SPECS["ave"].settings["model"])
    state = build_network(config).state_dict()
    numbers = {str(place): value.numpy().ravel() for place, value in enumerate(state.values())}
    flat = {
        name: parameter(Stored(str(place), value.numel()), 0, tuple(value.shape), tuple(value.stride()))
        for place, (name, value) in enumerate(state.items())
    }
    parts: dict[str, dict] = {}
    for name, value in flat.items():
        part, _, own = name.partition(".")
        parts.setdefault(part, {})[own] = value
    children = {part: Module("torch.nn.modules.linear.Linear", **own) for part, own in parts.items()}
    for stem, weak in (("AV_att", False), ("AV_att_weak", True)):
        model = load_model(old_file(tmp_path / f"{stem}.pt", Module("models.att_Net.att_Net", children), numbers))
        assert (model.config.method, model.config.own["weak"], model.config.own["classes"]) == ("ave", weak, 28)
        assert all(torch.equal(model.state[name], value) for name, value in state.items())
    keras = tmp_path / "cmm_model_weights.h5"
    sizes = {"dense_1": (512, 128), "dense_2": (128, 64), "dense_3": (128, 128), "dense_4": (128, 64)}
    with h5py.File(keras, "w") as file:
        for name, shape in sizes.items():
            file[f"{name}/{name}/kernel:0"] = np.ones(shape, np.float32)
            file[f"{name}/{name}/bias:0"] = np.ones(shape[1], np.float32)
    assert load_model(keras).config.method == "ave-match"


def test_a_localizer_is_not_a_network_of_events():
    with pytest.raises(UsageError, match="not events"):
        build_network(ModelConfig(method="lvs"))
