"""Cost of a model for one picture with one sound: parameters, and multiply-adds of one forward pass.

The networks run on torch's meta device under `FlopCounterMode`, which needs no weights. The counter reports two
operations per multiply-add; the numbers here are half of it.

Convolutions and matrix products count, those of attention and of the cosines included. The Fourier transform of the
sound, normalisations, activations, softmax, additions and resizing do not. Parameters are the trainable ones: the
frozen batch normalisations of DETR's backbone are constants (Carion et al., 2020).
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

OWN_RATE = 22_050  # Hz; sample rate used for models that take each file's own rate


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one part for one picture with one sound."""

    parameters: int
    multiply_adds: int
    spectrogram_frames: int = 0
    """Width of the spectrogram; 0 without audio input."""


DETR_PRIOR = Cost(parameters=41_524_768, multiply_adds=60_169_600_000)
"""`avloc.priors.DetrPrior`: all of DETR-R50 on a frame of 800 x 800 pixels, measured once because it takes seconds.

The paper prints 36.8 M and 57.1 G, counted by `thop`, which skips attention: without its weights and products this
count is 36.8 M and 57.0 G.
"""


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """A row of the cost table: a model alone, or with the priors fused into its map."""

    name: str
    parameters: int
    multiply_adds: int
    spectrogram_frames: int
    note: str = ""
    """A remark on the numbers, or ''."""


def cost_rows(config: ModelConfig, prior: str = "resnet18") -> list[CostRow]:
    """The model, the model with an object prior (`OG-`), and with the DETR prior too (`OG-...-DETR`).

    A row is the sum of its parts. `prior` is the backbone of the object prior.

    Raises:
        UsageError: unknown backbone.
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
    """Both networks and their similarity map, at the configuration's frame, seconds and rate (`OWN_RATE` if it is 0).

    Raises:
        UsageError: unknown backbone, or a sample rate that it does not take.
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
def object_prior_cost(backbone: str = "resnet18") -> Cost:
    """`avloc.priors.ObjectPrior`: its backbone.

    Raises:
        UsageError: unknown backbone.
    """
    import torch

    from avloc.networks.builder import build_backbone
    from avloc.priors import SIDE

    def forward(network: nn.Module) -> None:
        network(torch.empty((1, 3, SIDE, SIDE)))

    parameters, multiply_adds = measured(lambda: build_backbone(backbone), forward)
    return Cost(parameters=parameters, multiply_adds=multiply_adds)


def measured(build: Callable[[], Network], forward: Callable[[Network], None]) -> tuple[int, int]:
    """Parameters and multiply-adds of a network in evaluation mode; `forward` runs it once."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    # Fake tensors, because `transformers` reads the values of a mask that is on the meta device only.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("meta"), torch.no_grad():
        network = build()
        network.eval()
        with FlopCounterMode(display=False) as counter:
            forward(network)
        return sum(weight.numel() for weight in network.parameters()), counter.get_total_flops() // 2
