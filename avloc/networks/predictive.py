"""SSPL's predictive coding module: image features aligned with a sound by iterated prediction and correction.

Song, Wang, Fan, Tan and Zhang, "Self-Supervised Predictive Learning: A Negative-Free Method for Sound Source
Localization in Visual Scenes", CVPR 2022. Three layers of 512 channels, 3x3, 7x7 and 14x14. Predictions go from
the image down to the sound, errors back up. Attribute names are the published checkpoints' key names.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTH, _SOUND_WIDTH = 512, 128
_CYCLES = 4
_SMALLEST = 3


def _down() -> nn.Module:
    """A layer's prediction of the one below it."""
    convolution = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv2d=convolution, pool=nn.MaxPool2d(2)))


def _up() -> nn.Module:
    """An error on 7x7 cells as a correction on 14x14."""
    convolution = nn.ConvTranspose2d(_WIDTH, _WIDTH, 3, padding=1, bias=False)
    upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return nn.Sequential(OrderedDict(upsample=upsample, convtrans2d=convolution))


def _norms(count: int) -> nn.ModuleList:
    return nn.ModuleList(nn.BatchNorm2d(_WIDTH) for _ in range(count))


def _rates(value: float) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(torch.full((1, _WIDTH, 1, 1), value)) for _ in range(3))


class PredictiveCoding(nn.Module):
    """Aligns features [B, 512, 14, 14] of an image with the embedding [B, 128] of its sound."""

    def __init__(self) -> None:
        super().__init__()
        self.PredProcess = nn.ModuleList([nn.Conv2d(_WIDTH, _SOUND_WIDTH, 1), _down(), _down()])
        self.ErrorProcess = nn.ModuleList(
            [
                nn.ConvTranspose2d(_SOUND_WIDTH, _WIDTH, 1, bias=False),
                nn.ConvTranspose2d(_WIDTH, _WIDTH, 3, stride=2, bias=False),
                _up(),
                nn.ConvTranspose2d(_WIDTH, _WIDTH, 1),
            ]
        )
        self.b0, self.a0 = _rates(0.5), _rates(1.0)
        self.BNPred, self.BNError = _norms(2), _norms(3)
        self.BNPred_step, self.BNError_step = _norms(2 * _CYCLES), _norms(3 * _CYCLES)

    def forward(self, image_BDHW: Tensor, audio_BD: Tensor) -> Tensor:
        """The aligned features [B, 512, 14, 14], from those of the image and the unit embedding of the sound."""
        middle = F.gelu(self.BNPred[1](self.PredProcess[2](image_BDHW)))
        predicted = [F.gelu(self.BNPred[0](self.PredProcess[1](middle))), middle, image_BDHW]
        states = self._correct(predicted, predicted, audio_BD, list(self.BNError))
        keep = [torch.relu(rate) for rate in self.b0]
        for cycle in range(_CYCLES):
            states[2] = F.gelu((1 - keep[2]) * states[2] + keep[2] * image_BDHW)
            for layer in (1, 0):
                predicted[layer] = self.PredProcess[layer + 1](states[layer + 1])
                mixed = (1 - keep[layer]) * states[layer] + keep[layer] * predicted[layer]
                states[layer] = F.gelu(self.BNPred_step[2 * cycle + layer](mixed))
            norms = [self.BNError_step[3 * cycle + layer] for layer in range(3)]
            states = self._correct(states, predicted, audio_BD, norms)
        aligned: Tensor = self.ErrorProcess[3](states[2])
        return aligned

    def _correct(
        self, states: list[Tensor], predicted: list[Tensor], audio_BD: Tensor, norms: list[nn.Module]
    ) -> list[Tensor]:
        """The way up: every layer is corrected by the prediction error of the layer below."""
        expected = F.gelu(self.PredProcess[0](states[0])).mean((2, 3))
        error = (audio_BD - expected)[:, :, None, None].expand(-1, -1, _SMALLEST, _SMALLEST)
        corrected: list[Tensor] = []
        for layer, state in enumerate(states):
            change = torch.relu(self.a0[layer]) * self.ErrorProcess[layer](error)
            corrected.append(F.gelu(norms[layer](state + change)))
            error = corrected[layer] - predicted[layer]
        return corrected
