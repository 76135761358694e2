"""AVE's cross-modality matching: an embedding of seconds of audio and of video in a common space.

Tian et al., "Audio-Visual Event Localization in Unconstrained Videos", ECCV 2018. The loss is contrastive, on pairs of
the *same* second: seconds of an event are positive pairs, seconds of background negative ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from avloc.ave.networks import AUDIO_CHANNELS, VISUAL_CHANNELS, EventMethod, Features
from avloc.config import ModelConfig
from avloc.methods.base import Published
from avloc.registry import EVENT_SPECS

_HIDDEN, _COMMON = 128, 64
_SLOPE = 0.3
"""Negative slope of Keras's leaky ReLU."""
_LEAST_SQUARE = 1e-7
"""Keras's epsilon: keeps the gradient of the square root finite for equal vectors."""

_LAYERS = {"visual.0": "dense_1", "visual.2": "dense_2", "audio.0": "dense_3", "audio.2": "dense_4"}
"""Layers of `AveMatch` -> layers of the published file."""


class AveMatch(EventMethod):
    """A small network for each modality, initialised as in Keras.

    `visual` maps features [..., 512] as `pool` returns them, `audio` features [..., 128], to embeddings [..., 64].

    Args:
        config: `own` has `margin`, the distance above which negative pairs have no loss.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.visual, self.audio = _tower(VISUAL_CHANNELS), _tower(AUDIO_CHANNELS)

    def losses(self, features: Features) -> dict[str, Tensor]:
        """Term `contrastive`, over all seconds of the batch: d^2 for an event, else max(margin - d, 0)^2."""
        distances = distance(self.visual(pool(features.visual)), self.audio(features.audio))
        event = (features.labels != features.background).to(distances)
        short = F.relu(self.config.own["margin"] - distances)
        return {"contrastive": (event * distances**2 + (1 - event) * short**2).mean()}

    @classmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """The four dense layers of the authors' Keras file, whose kernels are (in, out)."""
        if len(files) != 1:
            return None
        (content,) = files.values()
        state: dict[str, Tensor] = {}
        for ours, theirs in _LAYERS.items():
            kernel, bias = (content.get(f"{theirs}/{theirs}/{part}:0") for part in ("kernel", "bias"))
            if not isinstance(kernel, Tensor) or not isinstance(bias, Tensor) or kernel.ndim != 2:
                return None
            state |= {f"{ours}.weight": kernel.T.contiguous(), f"{ours}.bias": bias}
        own = {"margin": 2.0}
        return ModelConfig(**EVENT_SPECS["ave-match"].settings["model"], own=own), state


def pool(visual: Tensor) -> Tensor:
    """[..., 512] mean over the cells of [..., h, w, 512]."""
    return visual.mean((-3, -2))


def distance(visual: Tensor, audio: Tensor) -> Tensor:
    """[...] Euclidean distance of embeddings [..., 64], which are broadcast; slightly above 0 for equal ones."""
    return (visual - audio).square().sum(-1).clamp(min=_LEAST_SQUARE).sqrt()


def _tower(width: int) -> nn.Sequential:
    tower = nn.Sequential(nn.Linear(width, _HIDDEN), nn.LeakyReLU(_SLOPE), nn.Linear(_HIDDEN, _COMMON))
    for layer in tower:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return tower
