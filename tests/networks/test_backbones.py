"""Backbones: names, outputs, class scores against explicit arithmetic, audio input, features for the object prior."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
import torch

from avloc.config import ModelConfig
from avloc.cost import cost_rows, model_cost
from avloc.engine import Engine
from avloc.errors import UsageError
from avloc.methods import build
from avloc.networks import lite0, yamnet
from avloc.networks.backbones import AUDIO_ONLY, CONVNETS, IMAGE_ONLY, WITH_CLASSES, BackboneName
from avloc.networks.base import fold_batch_norms
from avloc.networks.builder import audio_transform, build_backbone, load_pretrained
from avloc.transforms import log_mel, log_spectrogram, normalise_frames
from avloc.weights import LITE0, YAMNET, backbone_weights
from tests.recipe_makers import save_lite0, save_yamnet
from tests.small_models import SMALL

CPU = torch.device("cpu")
CLASSES = {"efficientnet_lite0": lite0.CLASSES, "yamnet": yamnet.CLASSES}
CLASS_MODEL = ModelConfig(
    vision_trunk="efficientnet_lite0+classes",
    audio_trunk="yamnet+classes",
    dim=12,
    frame=64,
    rate=16_000,
    seconds=1.0,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("weights")
    state = save_lite0(folder / "lite0.pth")
    torch.save({**state, "_fc.weight": 20 * state["_fc.weight"]}, folder / "lite0.pth")  # random logits are all alike
    save_yamnet(folder / "yamnet.safetensors")
    return {"efficientnet_lite0": folder / "lite0.pth", "yamnet": folder / "yamnet.safetensors"}


def loaded(name: str, files, channels: int = 3) -> torch.nn.Module:
    trunk = build_backbone(name, channels=channels)
    load_pretrained(trunk, trunk.name.network, files[trunk.name.network])
    return trunk.eval()


def sound(clips: int = 2, samples: int = 16_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(-9_000, 9_000, (clips, samples), dtype=torch.int16, generator=generator)


def pictures(clips: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (clips, 3, 64, 96), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", CONVNETS)
def test_every_convnet_takes_images_and_audio(name):
    image, audio = build_backbone(name), build_backbone(name, channels=1)
    width = image.width()
    assert width == audio.width()
    with torch.no_grad():
        assert image.eval()(torch.zeros(1, 3, 224, 224)).features.shape == (1, width, 7, 7)
        assert audio.eval()(torch.zeros(1, 1, 257, 276)).features.shape[:2] == (1, width)


@pytest.mark.parametrize("name", [*CONVNETS, *(name for name in WITH_CLASSES if "lite0" in name)])
def test_folded_normalisations_change_nothing_but_rounding(name):
    torch.manual_seed(0)
    trunk = build_backbone(name)
    norms = [part for part in trunk.eval().modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_(0, 0.2), norm.running_var.uniform_(0.5, 2)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5), torch.nn.init.normal_(norm.bias, 0, 0.2)
    frames = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        before = trunk(frames)
        fold_batch_norms(trunk)
        after = trunk(frames)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in trunk.modules())
    for one, other in zip(before, after, strict=True):
        assert one is other is None or (one - other).abs().max() <= 1e-5 * one.abs().max()


def test_a_trunk_can_be_cut_short():
    whole = build_backbone("resnet18")
    cut = build_backbone("resnet18:layer2")
    assert cut.width() == 128
    assert set(cut.state_dict()) == {key for key in whole.state_dict() if not key.startswith(("layer3", "layer4"))}
    with torch.no_grad():
        assert cut.eval()(torch.zeros(1, 3, 224, 224)).features.shape == (1, 128, 28, 28)
    with pytest.raises(UsageError, match="layer1, layer2"):
        build_backbone("resnet18:layer9")
    with pytest.raises(UsageError, match="no part ''"):
        build_backbone("resnet18:")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_classes_that_are_seen_against_arithmetic(files, layout):
    frames = normalise_frames(pictures()).contiguous(memory_format=layout)
    network = lite0.load_lite0(files["efficientnet_lite0"])
    with torch.no_grad():
        features = network.trunk(frames).double().numpy()
        ours = loaded("efficientnet_lite0+classes", files)(frames).concatenated()
    weight, bias = (part.double().numpy() for part in (network.head.weight.data, network.head.bias.data))
    expected = np.zeros((2, 2_280, 2, 3))
    for n, row, column in np.ndindex(2, 2, 3):
        cell = features[n, :, row, column]
        logits = [sum(weight[k] * cell) + bias[k] for k in range(1_000)]
        middle = sum(logits) / 1_000
        classes = [max(0.0, lite0.CLASS_SCALE * (logit - middle) - lite0.CLASS_THRESHOLD) for logit in logits]
        expected[n, :, row, column] = [*cell, *classes]
    assert 0 < (expected[:, 1_280:] > 0).mean() < 1, "the threshold has something to do"
    assert np.abs(ours.numpy() - expected).max() < 1e-4


def test_audio_class_scores_against_arithmetic(files):
    network = yamnet.load_yamnet(files["yamnet"])
    mel = torch.randn(2, 1, 64, 98, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        features = network.trunk(mel).double().numpy()
        ours = loaded("yamnet+classes", files, channels=1)(mel).concatenated()
    weight, bias = (part.double().numpy() for part in (network.head.weight.data, network.head.bias.data))
    assert ours.shape == (2, 1_545, 1, 1)
    assert 0 < (ours[:, 1_024:] > 0).float().mean() < 1, "the offset has something to do"
    for n in range(2):
        embedding = np.array([np.mean(channel) for channel in features[n]])
        classes = [max(0.0, float(weight[k] @ embedding + bias[k]) + 5) for k in range(521)]
        np.testing.assert_allclose(ours[n, :, 0, 0].numpy(), [*embedding, *classes], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("name", "channels"), [("efficientnet_lite0", 3), ("efficientnet_lite0", 1), ("yamnet", 1)])
def test_classes_are_one_more_part_of_the_trunk(name, channels):
    plain, trunk = build_backbone(name, channels=channels), build_backbone(f"{name}+classes", channels=channels)
    assert trunk.width() == plain.width() + CLASSES[name]
    assert set(trunk.state_dict()) == {*plain.state_dict(), "_fc.weight", "_fc.bias"}
    with torch.no_grad():
        out = trunk.eval()(torch.zeros(1, channels, 64, 64))
    assert (out.features.shape[1], out.class_scores.shape[1]) == (plain.width(), CLASSES[name])


def test_every_tensor_of_the_file_is_taken(files):
    state = torch.load(files["efficientnet_lite0"], weights_only=True)
    ours = loaded("efficientnet_lite0+classes", files).state_dict()
    assert ours.keys() == state.keys()
    assert all(torch.equal(ours[key], value) for key, value in state.items())
    head = yamnet.load_yamnet(files["yamnet"]).head
    assert torch.equal(loaded("yamnet+classes", files, channels=1).state_dict()["_fc.weight"], head.weight)
    for name in ("yamnet+classes", "yamnet:block3"):
        assert backbone_weights(BackboneName.parse(name).network) == YAMNET
    for name in ("efficientnet_lite0+classes", "efficientnet_lite0+classes+published"):
        assert backbone_weights(BackboneName.parse(name).network) == LITE0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18+classes", r"no backbone 'resnet18\+classes'.*yamnet\+classes"),
        ("yamnet:block5+classes", "class scores need a whole network"),
        ("yamnet+classes:block5", "class scores need a whole network"),
        ("efficientnet_lite0+classes+classes", "class scores need a whole network"),
        ("yamnet+classes", "yamnet takes audio input only; valid for images: resnet18"),
        ("yamnet+class", "no part|unknown backbone"),
        ("yamnet+classes+published", r"no backbone 'yamnet\+classes\+published'.*lite0\+classes\+published"),
        ("resnet18+classes+published", "class scores need a whole network"),
        ("efficientnet_lite0+published", r"unknown backbone.*lite0\+classes\+published"),
        ("efficientnet_lite0+published+classes", "class scores need a whole network"),
    ],
)
def test_invalid_names_are_refused(name, words):
    with pytest.raises(UsageError, match=words):
        build_backbone(name)


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        *((name, (name, None, False, False)) for name in (*CONVNETS, *IMAGE_ONLY, *AUDIO_ONLY)),
        ("resnet18:layer2", ("resnet18", "layer2", False, False)),
        ("yamnet+classes", ("yamnet", None, True, False)),
        ("efficientnet_lite0+classes", ("efficientnet_lite0", None, True, False)),
        ("efficientnet_lite0+classes+published", ("efficientnet_lite0", None, True, True)),
    ],
)
def test_names_of_configurations_and_model_files(name, parsed):
    assert astuple(BackboneName.parse(name)) == parsed
    assert "+classes" not in name or name in WITH_CLASSES


def test_a_frozen_head_takes_no_audio():
    with pytest.raises(UsageError, match="takes image input only"):
        build_backbone("efficientnet_lite0+classes+published", channels=1)


def test_the_frozen_head_is_that_of_the_file_whatever_becomes_of_the_other(files):
    frames = normalise_frames(pictures())
    reference, before = lite0.load_lite0(files["efficientnet_lite0"]), loaded("efficientnet_lite0+classes", files)
    trunk = loaded("efficientnet_lite0+classes+published", files)
    state = trunk.state_dict()
    published = {key: value for key, value in state.items() if key.startswith("_published.")}
    assert state.keys() - published.keys() == before.state_dict().keys()
    for network in (reference.trunk, before, trunk, trunk._published):  # some of it beyond what ReLU6 lets through
        network._bn1.weight.data.mul_(50)
    heads = {key for key in before.state_dict() if trunk.trainable(key)}
    first = {key for key in heads if not key.startswith("_fc.")}
    assert len(first) == len(published) == 24
    with torch.no_grad():
        features = reference.trunk(frames)
        assert 0.001 < (features == 6).float().mean() < 0.9
        assert torch.equal(trunk(frames).concatenated(), before(frames).concatenated())
        assert torch.equal(trunk(frames).prior_features, features)
        for key, value in trunk.named_parameters():
            if key in heads:
                value.mul_(1.5)
        assert not torch.allclose(trunk(frames).features, features)
        assert torch.equal(trunk(frames).prior_features, features)


def test_the_activation_is_that_of_the_frozen_head(files):
    name = "efficientnet_lite0+classes+published"
    engine = Engine(replace(CLASS_MODEL, vision_trunk=name), CPU)
    load_pretrained(engine.model.imgnet, "efficientnet_lite0", files["efficientnet_lite0"])
    engine.model.eval()
    with torch.no_grad():
        engine.model.imgnet._bn1.bias.add_(0.1)
    frames = normalise_frames(pictures())
    image, activation = engine.model.encode_image(frames)
    out = engine.model.imgnet(frames)
    assert [part.shape[1] for part in out] == [1_280, 1_280, 1_000]
    expected = np.abs(out.prior_features.detach().double().numpy()).mean(1)
    np.testing.assert_allclose(activation.numpy(), expected, rtol=1e-5)
    assert not np.allclose(expected, np.abs(out.features.detach().numpy()).mean(1), rtol=1e-2, atol=0)
    projected = engine.model.img_proj(torch.cat((out.features, out.class_scores), 1))
    assert torch.allclose(image, torch.nn.functional.normalize(projected, dim=1), atol=1e-6)


def transform(name: str, rate: int):
    return audio_transform(BackboneName.parse(name).network, rate)


def test_each_backbone_has_the_audio_input_that_it_was_trained_with():
    for name in (*CONVNETS, "resnet18:layer2", "efficientnet_lite0+classes", "efficientnet_lite0+classes+published"):
        assert transform(name, 22_050) is transform(name, 0) is log_spectrogram
    for name in (*AUDIO_ONLY, "yamnet:block5", "yamnet+classes"):
        assert transform(name, 16_000) is log_mel
        for rate in (0, 22_050):
            with pytest.raises(UsageError, match=r"yamnet.* 16000 Hz only") as caught:
                transform(name, rate)
            assert "--set model.rate=16000" in caught.value.hint


def test_the_engine_computes_the_audio_input_of_its_backbone():
    wave = sound().float() / 32_767
    plain = Engine(replace(SMALL, rate=16_000), CPU).spectrogram(sound(), 16_000)
    assert torch.equal(plain, log_spectrogram(wave, 16_000))
    engine = Engine(replace(SMALL, audio_trunk="yamnet:block5", rate=16_000), CPU)
    assert torch.equal(engine.spectrogram(sound(), 16_000), log_mel(wave, 16_000))
    with pytest.raises(UsageError, match=r"model\.rate is 22050"):
        Engine(replace(SMALL, audio_trunk="yamnet"), CPU)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_of_classes_predicts(precision):
    torch.manual_seed(0)
    engine = Engine(CLASS_MODEL, CPU, precision)
    engine.model.eval()
    embeddings = engine.embed(pictures()[..., :64], sound(), 16_000)
    assert (embeddings.image.shape, embeddings.audio.shape) == ((2, 12, 2, 2), (2, 12))
    assert torch.allclose(embeddings.audio.norm(dim=1), torch.ones(2), atol=1e-3)
    shortest = engine.encode_sound(sound(samples=1_600), 16_000)
    assert shortest.isfinite().all()


@pytest.mark.parametrize("config", [SMALL, CLASS_MODEL, replace(CLASS_MODEL, vision_trunk="efficientnet_lite0")])
def test_activation_is_the_mean_of_the_features_without_class_scores(config):
    torch.manual_seed(0)
    engine = Engine(config, CPU)
    engine.model.eval()
    frames = normalise_frames(pictures())
    embeddings = engine.encode([frames], engine.spectrogram(sound(), config.rate))
    plain = build_backbone(config.vision_trunk.partition("+")[0])
    width = plain.width()
    plain.load_state_dict({k: v for k, v in engine.model.imgnet.state_dict().items() if not k.startswith("_fc")})
    with torch.no_grad():
        features = plain.eval()(frames).features.numpy()
    expected = sum(np.abs(features[:, channel]) for channel in range(width)) / width
    assert features.shape[1] == width
    assert not embeddings.activation.requires_grad
    assert embeddings.image.requires_grad
    np.testing.assert_allclose(embeddings.activation.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(replace(embeddings, audio=-embeddings.audio).activation, embeddings.activation)
    assert torch.equal(engine.model.encode_image(frames)[0], embeddings.image)


def test_the_cost_of_a_frozen_head_is_that_of_its_convolutions():
    ends = replace(CLASS_MODEL, vision_trunk="efficientnet_lite0+classes+published")
    ours, less = model_cost(ends), model_cost(CLASS_MODEL)
    block = 192 * 1_152 + 9 * 1_152 + 1_152 * 320
    assert ours.multiply_adds - less.multiply_adds == (64 // 32) ** 2 * (block + 320 * 1_280)
    assert ours.parameters - less.parameters == block + 320 * 1_280 + 2 * (1_152 + 1_152 + 320 + 1_280)


def test_the_cost_of_classes_is_that_of_their_classifiers():
    plain = replace(CLASS_MODEL, vision_trunk="efficientnet_lite0", audio_trunk="yamnet")
    ours, less = model_cost(CLASS_MODEL), model_cost(plain)
    heads = 1_280 * 1_000 + 1_024 * 521
    projections = (1_000 + 521) * CLASS_MODEL.dim
    assert ours.parameters - less.parameters == heads + 1_000 + 521 + projections
    cells = (64 // 32) ** 2
    more = cells * (1_280 * 1_000 + 1_000 * CLASS_MODEL.dim) + 1_024 * 521 + 521 * CLASS_MODEL.dim
    assert ours.multiply_adds - less.multiply_adds == more
    assert ours.spectrogram_frames == less.spectrogram_frames == 98
    assert ours.parameters == sum(weight.numel() for weight in build(CLASS_MODEL).parameters())
    with pytest.raises(UsageError, match="16000 Hz only"):
        cost_rows(replace(CLASS_MODEL, rate=0))
