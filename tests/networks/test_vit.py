"""The vision transformer as a backbone: torchvision's own tokens, its published names, and what it cannot do."""

from __future__ import annotations

import pytest
import torch
import torchvision

from avloc.checkpoint import load_model, save_model
from avloc.config import ModelConfig
from avloc.cost import model_cost
from avloc.engine import Engine
from avloc.errors import UsageError, WeightsError
from avloc.methods import build
from avloc.networks.builder import build_backbone, load_pretrained

CPU = torch.device("cpu")
WITH_VIT = ModelConfig(dim=16, vision_trunk="vit_b_16", audio_trunk="shufflenet_v2_x0_5", seconds=1.0)


@pytest.fixture(scope="module")
def published() -> torch.nn.Module:
    torch.manual_seed(0)
    network = torchvision.models.vit_b_16(weights=None).eval()
    torch.nn.init.normal_(network.class_token)  # zeros where nothing was learned: these would hide a mistake
    return network


@pytest.fixture(scope="module")
def trunk(published, tmp_path_factory) -> torch.nn.Module:
    path = tmp_path_factory.mktemp("vit") / "vit.pth"
    torch.save(published.state_dict(), path)
    made = build_backbone("vit_b_16")
    assert made.width() == 768
    load_pretrained(made, "vit_b_16", path)
    return made.eval()


def frames(side: int = 224) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_cells_are_the_tokens_of_torchvisions_encoder(published, trunk):
    """Its own forward pass up to the classifier, token by token."""
    tokens = []
    hook = published.encoder.register_forward_hook(lambda _module, _given, out: tokens.append(out))
    with torch.no_grad():
        published(frames())
        cells = trunk(frames()).features
    hook.remove()
    assert cells.shape == (2, 768, 14, 14)
    for row, column in ((0, 0), (0, 13), (5, 2), (13, 13)):
        torch.testing.assert_close(cells[:, :, row, column], tokens[0][:, 1 + 14 * row + column])


def test_its_tensors_have_torchvisions_names(published, trunk):
    expected = {key for key in published.state_dict() if not key.startswith("heads.")}
    assert set(trunk.state_dict()) == expected


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not hold the weights of vit_b_16"):
        load_pretrained(build_backbone("vit_b_16"), "vit_b_16", tmp_path / "other.pth")


def test_other_sizes_are_refused_with_the_one_that_is_valid(trunk):
    with pytest.raises(UsageError, match="224 x 224 pixels, not 96 x 96") as caught:
        trunk(frames(96))
    assert caught.value.hint == "--set model.frame=224"
    with pytest.raises(UsageError, match="224 x 224 pixels, not 128 x 128"):
        build(ModelConfig(vision_trunk="vit_b_16", frame=128))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"audio_trunk": "vit_b_16"}, "vit_b_16 takes image input only; valid for audio: resnet18"),
        ({"vision_trunk": "vit_b_16:encoder"}, "unknown|no part"),
        ({"vision_trunk": "vit_b_16+classes"}, "no backbone 'vit_b_16.classes'"),
        ({"method": "lvs", "vision_trunk": "vit_b_16", "dim": 512}, "valid: the width of both backbones"),
    ],
)
def test_what_it_cannot_be_is_named(settings, words):
    with pytest.raises(UsageError, match=words):
        build(ModelConfig(**settings))


def test_a_model_with_it_is_saved_costed_and_used_in_both_precisions(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "vit.safetensors"
    save_model(path, WITH_VIT, build(WITH_VIT).state_dict(), {"name": "vit"})
    draws = torch.Generator().manual_seed(2)
    frame = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=draws)
    sound = torch.randint(-9000, 9000, (1, 22_050), dtype=torch.int16, generator=draws)
    fine, coarse = (
        Engine.from_file(load_model(path), CPU, kind).predict(frame, sound, 22_050) for kind in ("fp32", "bf16")
    )
    assert fine.shape == (1, 14, 14)
    assert (fine - coarse).abs().max() < 0.05
    assert model_cost(WITH_VIT).multiply_adds > 16e9, "16.9 G by torchvision's count of the whole network"
