"""What a model costs for one picture with one sound: parameters, and multiply-adds of one forward pass.

Measured, not computed by formula: the networks run on torch's meta device, whose tensors have shapes and no numbers,
and torch's `FlopCounterMode` counts what they do. That needs no weights and little time. The counter says two
operations for each multiply-add; given here are multiply-adds, half of it.

Counted are convolutions and matrix products, those of attention and of the cosines included. Not counted are the
Fourier transform of the sound, normalisations, activations, softmax, additions and resizing. Parameters are what could
be learned: the frozen batch normalisations of DETR's backbone are constants (Carion et al., 2020), and not among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from avloc.config import ModelConfig

if TYPE_CHECKING:
    from torch import nn

    Network = TypeVar("Network", bound=nn.Module)

OWN_RATE = 22_050  # Hz; at which a model is measured that takes each file's own rate


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one part takes for one picture with one sound."""

    parameters: int
    multiply_adds: int
    spectrogram_frames: int = 0
    """Width of the spectrogram; 0 where nothing is heard."""


DETR_PRIOR = Cost(parameters=41_524_768, multiply_adds=60_169_600_000)
"""`avloc.priors.DetrPrior`: the whole of DETR-R50, on a frame of 800 x 800 pixels, once measured like the others.

The paper prints 36.8 M and 57.1 G, counted by `thop`. The difference is attention, its weights and its products:
without them this count is 36.8 M and 57.0 G. To measure it takes seconds, and it has no settings.
"""


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """A line of a table: a model by itself, or together with the priors that are fused in."""

    name: str
    parameters: int
    multiply_adds: int
    spectrogram_frames: int
    note: str = ""
    """What a reader must know beside the numbers, or ''."""


def cost_rows(config: ModelConfig, prior: str = "resnet18") -> list[CostRow]:
    """The model, the model with an object prior (`OG-`), and with the DETR prior too (`OG-...-DETR`).

    A row is the sum of its parts, which run side by side.

    Args:
        config: of a method that is one of `avloc.registry.METHOD_SPECS`.
        prior: trunk of the object prior.

    Raises:
        UsageError: unknown trunk.
    """
    name, model = config.method.upper(), model_cost(config)
    object_prior = object_prior_cost(prior)
    lines = {name: [model], f"OG-{name}": [model, object_prior], f"OG-{name}-DETR": [model, object_prior, DETR_PRIOR]}
    return [
        CostRow(
            name=line,
            parameters=sum(part.parameters for part in parts),
            multiply_adds=sum(part.multiply_adds for part in parts),
            spectrogram_frames=model.spectrogram_frames,
            note="" if config.rate else f"takes each file's own rate; measured at {OWN_RATE} Hz",
        )
        for line, parts in lines.items()
    ]


@cache
def model_cost(config: ModelConfig) -> Cost:
    """Both networks and their similarity map, at the configuration's frame, seconds and rate.

    Args:
        config: of a method that is one of `avloc.registry.METHOD_SPECS`; a rate of 0 is measured at `OWN_RATE`.

    Raises:
        UsageError: unknown trunk, or a rate at which it cannot hear.
    """
    import torch

    from avloc.methods import Embeddings, Method, build

    rate = config.rate or OWN_RATE
    with torch.device("meta"):
        method = build(config)
    spectrograms = method.audio_input(torch.empty((1, int(config.seconds * rate)), device="meta"), rate).shape

    def forward(model: Method) -> None:
        image, _ = model.encode_image(torch.empty((1, 3, config.frame, config.frame)))
        model.similarity(Embeddings(image, model.encode_audio(torch.empty(spectrograms))))

    frames = math.prod(spectrograms[axis] for axis in method.time_axes)
    parameters, multiply_adds = measured(lambda: build(config), forward)
    return Cost(parameters=parameters, multiply_adds=multiply_adds, spectrogram_frames=frames)


@cache
def object_prior_cost(trunk: str = "resnet18") -> Cost:
    """`avloc.priors.ObjectPrior`, whose trunk has no classifier.

    Raises:
        UsageError: unknown trunk.
    """
    import torch

    from avloc.networks.backbones import build_backbone
    from avloc.priors import SIDE

    def forward(network: nn.Module) -> None:
        network(torch.empty((1, 3, SIDE, SIDE)))

    parameters, multiply_adds = measured(lambda: build_backbone(trunk), forward)
    return Cost(parameters=parameters, multiply_adds=multiply_adds)


def measured(build: Callable[[], Network], forward: Callable[[Network], None]) -> tuple[int, int]:
    """Parameters and multiply-adds of a network, in evaluation, that `forward` runs once."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    # Meta tensors alone would do, but `transformers` asks a mask for its values unless it knows it to be fake.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("meta"), torch.no_grad():
        network = build()
        network.eval()
        with FlopCounterMode(display=False) as counter:
            forward(network)
        return sum(weight.numel() for weight in network.parameters()), counter.get_total_flops() // 2
