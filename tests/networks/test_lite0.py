"""EfficientNet-Lite0 against a slow reference with random weights, and with the real weights if at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from avloc.errors import WeightsError
from avloc.networks.base import SameConv2d
from avloc.networks.builder import build_backbone, load_pretrained
from avloc.networks.lite0 import InputScale, load_lite0
from avloc.transforms import normalise_frames
from avloc.weights import LITE0
from tests.recipe_makers import DATA, real, save_lite0

# --- TensorFlow's padding ---------------------------------------------------------------------------------------------


def slow_same(picture: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    size, side = picture.shape, len(kernel)
    cells = [-(-length // stride) for length in size]
    before = [max((count - 1) * stride + side - length, 0) // 2 for count, length in zip(cells, size, strict=True)]
    out = np.zeros(cells)
    for row, column in np.ndindex(*cells):
        for i, j in np.ndindex(side, side):
            y, x = row * stride + i - before[0], column * stride + j - before[1]
            if 0 <= y < size[0] and 0 <= x < size[1]:
                out[row, column] += picture[y, x] * kernel[i, j]
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 5]), st.integers(1, 3))
def test_padding_against_a_slow_reference(height, width, side, stride):
    random = np.random.default_rng(height * 10 + width)
    picture, kernel = random.normal(size=(height, width)), random.normal(size=(side, side))
    convolution = SameConv2d(1, 1, side, stride=stride, bias=False).double()
    with torch.no_grad():
        convolution.weight.copy_(torch.from_numpy(kernel))
        ours = convolution(torch.from_numpy(picture)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(ours, slow_same(picture, kernel, stride), atol=1e-12)


# --- EfficientNet-Lite0 -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lite0") / "efficientnet-lite0-57934424.pth"
    save_lite0(path)
    return path


def slow_lite0(state: dict[str, torch.Tensor], frames_B3HW: torch.Tensor) -> torch.Tensor:
    """[B, 1280, h, w] of uint8 frames whose side is a multiple of 32, from the file's keys and the published facts."""

    def convolved(x, key, stride=1):
        kernel = state[f"{key}.weight"]
        side = kernel.shape[-1]
        pads = {(3, 2): (0, 1), (5, 2): (1, 2)}.get((side, stride), (side // 2, side // 2))
        groups = x.shape[1] if kernel.shape[1] == 1 else 1
        return F.conv2d(F.pad(x, (*pads, *pads)), kernel, stride=stride, groups=groups)

    def normed(x, key):
        mean, var, weight, bias = (
            state[f"{key}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    x = normed(convolved((frames_B3HW.float() - 127) / 128, "_conv_stem", 2), "_bn0").clamp(0, 6)
    for number in range(16):
        key, before = f"_blocks.{number}", x
        if number:
            x = normed(convolved(x, f"{key}._expand_conv"), f"{key}._bn0").clamp(0, 6)
        x = convolved(x, f"{key}._depthwise_conv", 2 if number in (1, 3, 5, 11) else 1)
        x = normed(convolved(normed(x, f"{key}._bn1").clamp(0, 6), f"{key}._project_conv"), f"{key}._bn2")
        x = x + before if x.shape == before.shape else x
    return normed(convolved(x, "_conv_head"), "_bn1").clamp(0, 6)


def test_lite0_against_a_slow_reference(lite0_file):
    state = torch.load(lite0_file, weights_only=True)
    assert len(state) == 296
    network = load_lite0(lite0_file)
    frames = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference, ours = slow_lite0(state, frames), network.trunk(normalise_frames(frames))
        assert ours.shape == (2, 1280, 2, 3)
        assert reference.std() > 0.1
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
        logits = reference.mean((2, 3)) @ state["_fc.weight"].T + state["_fc.bias"]
        torch.testing.assert_close(network(normalise_frames(frames)), logits, rtol=1e-4, atol=1e-4)
        maps = network.class_maps(normalise_frames(frames))
    torch.testing.assert_close(maps.mean((2, 3)), logits, rtol=1e-4, atol=1e-4)


def test_lite0_rescales_its_input():
    values = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    ours = InputScale()(normalise_frames(values))
    torch.testing.assert_close(ours, (values.float() - 127) / 128, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite0:_blocks"])
def test_the_vision_trunk_takes_the_file(name, lite0_file):
    trunk = build_backbone(name)
    width = trunk.width()
    load_pretrained(trunk, "efficientnet_lite0", lite0_file)
    state = torch.load(lite0_file, weights_only=True)
    assert width == (320 if "_blocks" in name else 1280)
    assert all(torch.equal(value, state[key]) for key, value in trunk.state_dict().items())
    if name == "efficientnet_lite0":
        assert set(trunk.state_dict()) == {key for key in state if not key.startswith("_fc")}


@pytest.mark.parametrize(("name", "channels"), [("efficientnet_lite0", 3), ("efficientnet_lite0", 1), ("yamnet", 1)])
def test_every_weight_of_a_trunk_can_learn(name, channels):
    torch.manual_seed(0)
    trunk = build_backbone(name, channels=channels)
    trunk.train()(torch.randn(2, channels, 64, 96)).features.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in trunk.parameters())


def test_files_of_other_networks_are_refused(tmp_path, lite0_file):
    other = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, other)
    with pytest.raises(WeightsError, match=r"other\.pth does not hold the weights of EfficientNet-Lite0"):
        load_lite0(other)
    trunk = build_backbone("efficientnet_lite0")
    with pytest.raises(WeightsError, match=r"other\.pth"):
        load_pretrained(trunk, "efficientnet_lite0", other)
    audio = build_backbone("yamnet", channels=1)
    with pytest.raises(WeightsError, match="cannot be read as weights of YAMNet"):
        load_pretrained(audio, "yamnet", lite0_file)


def test_lite0_agrees_with_the_published_code():
    published = pytest.importorskip("efficientnet_lite_pytorch", reason="no published code to compare with")
    path = real(LITE0)
    reference = published.EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(torch.load(path, weights_only=True))
    frames = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = reference.extract_features((frames.float() - 127) / 128)
        torch.testing.assert_close(load_lite0(path).trunk(normalise_frames(frames)), theirs, rtol=0, atol=1e-4)


def test_lite0_names_real_dogs():
    network = load_lite0(real(LITE0))
    if not DATA.is_dir():
        pytest.skip("no labelled pictures beside the repository")
    pictures = sorted((DATA / "images" / "dog").iterdir())[:20]
    frames = [np.asarray(Image.open(path).convert("RGB").resize((224, 224))) for path in pictures]
    with torch.no_grad():
        best = network(normalise_frames(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2))).argmax(1)
    assert ((best >= 151) & (best <= 268)).float().mean() >= 0.7  # the breeds among ImageNet's classes
