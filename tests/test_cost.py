"""Model cost: published counts, counts by hand, and no side effects."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from avloc.config import ModelConfig
from avloc.cost import DETR_PRIOR, OWN_RATE, cost_rows, measured, model_cost, object_prior_cost
from avloc.errors import UsageError
from avloc.methods import build
from avloc.networks.backbones import TORCHVISION
from avloc.networks.builder import build_backbone
from avloc.networks.detr import SIDE
from avloc.transforms import log_spectrogram
from tests.small_models import SMALL
from tests.teacher_weights import build_detr

AVC_AT_44_KHZ = ModelConfig(rate=44_100)


def counted_by_hand(network: nn.Module, forward) -> int:
    """Multiply-adds of convolutions and linear layers, from their output shapes in a forward pass."""
    counts: list[int] = []

    def note(part: nn.Module, _inputs, out: torch.Tensor) -> None:
        each = part.weight[0].numel()  # multiply-adds per output value
        counts.append(out.numel() * each)

    hooks = [part.register_forward_hook(note) for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        forward(network.eval())
    for hook in hooks:
        hook.remove()
    return sum(counts)


@pytest.mark.parametrize(
    ("config", "frames", "giga"),
    [(AVC_AT_44_KHZ, 554, 7.128), (ModelConfig(), 276, 4.510)],
    ids=["44.1 kHz", "22.05 kHz"],
)
def test_avc_costs_what_the_paper_states_at_either_sample_rate(config, frames, giga):
    cost = model_cost(config)
    assert (cost.parameters, cost.spectrogram_frames) == (24_448_000, frames)
    assert round(cost.multiply_adds / 1e9, 3) == giga


@pytest.mark.parametrize(
    "config",
    [SMALL, replace(SMALL, frame=96, seconds=1.0, rate=16_000, vision_trunk="resnet18:layer2", dim=5)],
    ids=["small", "cut short"],
)
def test_a_model_costs_what_is_counted_by_hand(config):
    cost = model_cost(config)
    model = build(config)
    spectrogram = log_spectrogram(torch.zeros(1, int(config.seconds * config.rate)), config.rate)
    image: list[torch.Tensor] = []

    def forward(network) -> None:
        image.append(network.encode_image(torch.zeros(1, 3, config.frame, config.frame))[0])
        network.encode_audio(spectrogram)

    by_hand = counted_by_hand(model, forward)
    assert cost.multiply_adds == by_hand + image[0].numel()  # cosine similarity: one product per value of each cell
    assert cost.parameters == sum(weight.numel() for weight in model.parameters())
    assert cost.spectrogram_frames == spectrogram.shape[-1]


HEADS = {
    "vgg16": (512 * 49, 4096, 4096, 1000),
    "vgg19": (512 * 49, 4096, 4096, 1000),
    "resnet50": (2048, 1000),
    "resnet101": (2048, 1000),
    "efficientnet_b0": (1280, 1000),
    "mobilenet_v3_small": (576, 1024, 1000),
    "shufflenet_v2_x0_5": (1024, 1000),
}


@pytest.mark.parametrize("trunk", TORCHVISION)
def test_priors_cost_what_torchvision_states_minus_the_classifier(trunk):
    published = torchvision.models.get_model_weights(trunk)["IMAGENET1K_V1"].meta
    widths = HEADS.get(trunk, (512, 1000))
    layers = list(itertools.pairwise(widths))
    cost = object_prior_cost(trunk)
    assert cost.parameters == published["num_params"] - sum(wide * out + out for wide, out in layers)
    whole = cost.multiply_adds + sum(math.prod(layer) for layer in layers)
    assert whole / 1e9 == pytest.approx(published["_ops"], abs=0.0011)  # "_ops" is in 1e9, rounded or cut to 0.001
    assert cost.spectrogram_frames == 0


def test_resnet18_costs_the_well_known_figures():
    cost = object_prior_cost()
    assert cost.parameters == 11_176_512
    assert round(cost.multiply_adds / 1e9, 2) == 1.81


def test_a_prior_costs_what_is_counted_by_hand():
    network = build_backbone("efficientnet_b0")
    by_hand = counted_by_hand(network, lambda network: network(torch.zeros(1, 3, 224, 224)))
    assert object_prior_cost("efficientnet_b0").multiply_adds == by_hand


WIDTH, QUERIES, CELLS = 256, 100, (SIDE // 32) ** 2


def attention_by_hand() -> int:
    """Attention of six encoder layers over cells and six decoder layers over queries, then cells."""

    def one(queries: int, keys: int) -> int:
        projections = 2 * queries * WIDTH**2 + 2 * keys * WIDTH**2
        return projections + 2 * queries * keys * WIDTH

    return 6 * (one(CELLS, CELLS) + one(QUERIES, QUERIES) + one(QUERIES, CELLS))


def test_the_stated_cost_of_detr_is_the_measured_one():
    def forward(network):
        network(pixel_values=torch.empty((1, 3, SIDE, SIDE)), output_attentions=True)

    assert measured(build_detr, forward) == (DETR_PRIOR.parameters, DETR_PRIOR.multiply_adds)


def test_detr_costs_what_is_counted_by_hand():
    """Carion et al., 2020; the backbone is torchvision's, and 800 and 224 are multiples of its stride."""
    backbone = object_prior_cost("resnet50").multiply_adds * CELLS // 7**2
    projection = CELLS * 2048 * WIDTH
    hidden = 6 * 2 * (CELLS + QUERIES) * WIDTH * 2048
    heads = QUERIES * WIDTH * (92 + WIDTH + WIDTH + 4)
    assert DETR_PRIOR.multiply_adds == backbone + projection + attention_by_hand() + hidden + heads


def test_detr_has_the_number_of_parameters_in_its_authors_log():
    """Their log counts 41 302 368 trainable parameters: all but the frozen stem and first stage of the backbone."""
    first_stage = (64 + 2 * 256) * 64 + 3 * 9 * 64 * 64 + 4 * 64 * 256
    assert DETR_PRIOR.parameters == 41_302_368 + 7 * 7 * 3 * 64 + first_stage


def test_the_count_of_detr_exceeds_that_of_the_paper_by_attention():
    with torch.device("meta"):
        weights = dict(build_detr().named_parameters())
    attention = [weight.numel() for name, weight in weights.items() if "_attn." in name]
    assert len(attention) == 18 * 8
    cost = DETR_PRIOR
    assert round((cost.parameters - sum(attention)) / 1e6, 1) == 36.8
    assert (cost.multiply_adds - attention_by_hand()) / 1e9 == pytest.approx(57.1, abs=0.1)


def test_rows_add_up():
    plain, og, og_detr = cost_rows(AVC_AT_44_KHZ)
    assert [row.name for row in (plain, og, og_detr)] == ["AVC", "OG-AVC", "OG-AVC-DETR"]
    model, prior, detr = model_cost(AVC_AT_44_KHZ), object_prior_cost("resnet18"), DETR_PRIOR
    for field in ("parameters", "multiply_adds"):
        parts = [getattr(part, field) for part in (model, prior, detr)]
        assert [getattr(row, field) for row in (plain, og, og_detr)] == [parts[0], sum(parts[:2]), sum(parts)]
    assert {row.spectrogram_frames for row in (plain, og, og_detr)} == {554}
    assert {row.note for row in (plain, og, og_detr)} == {""}


def test_the_cost_of_a_model_without_a_fixed_rate_names_the_measured_rate():
    rows = cost_rows(replace(SMALL, method="ezvsl", rate=0))
    assert [row.name for row in rows] == ["EZVSL", "OG-EZVSL", "OG-EZVSL-DETR"]
    assert all("own rate" in row.note and f"{OWN_RATE} Hz" in row.note for row in rows)
    same = cost_rows(replace(SMALL, method="ezvsl", rate=OWN_RATE))
    assert [replace(row, note="") for row in rows] == same


def test_counting_has_no_side_effects():
    """Neither on later random numbers nor on networks that run afterwards."""
    for cost in (model_cost, object_prior_cost):
        cost.cache_clear()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    rows = cost_rows(SMALL)
    assert torch.equal(torch.rand(3), expected)
    assert torch.empty(1).device.type == "cpu"
    assert cost_rows(SMALL) == rows
    network = build_backbone("shufflenet_v2_x0_5")
    assert network(torch.zeros(2, 3, 64, 64)).features.isfinite().all()


def test_unknown_trunks_are_named():
    with pytest.raises(UsageError, match="unknown backbone 'nonesuch'"):
        model_cost(replace(SMALL, audio_trunk="nonesuch"))
    with pytest.raises(UsageError, match="unknown backbone 'nonesuch'"):
        object_prior_cost("nonesuch")
