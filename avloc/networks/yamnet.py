"""YAMNet (Plakal and Ellis, 2019): MobileNet-v1 on log-mel bands of sound, with 521 classes of AudioSet.

Inputs are [B, 1, 64, T], frequency before time as everywhere in avloc; the published network has time first, and its
kernels are transposed here. Batch normalisation is folded into the convolutions, as in the published TensorFlow Lite
file. `python -m tests.recipe yamnet` converts that file to the one that is read here.
"""

from __future__ import annotations

import shlex
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from avloc.errors import WeightsError
from avloc.networks.padding import SameConv2d

CLASSES = 521  # of AudioSet, in the order of `yamnet_class_map.csv`
WIDTH = 1024  # of the last feature map
SAMPLES = 15_600  # at 16 kHz: input length of the published network

CLASS_OFFSET = 5.0
"""What `YAMNetWithClasses` adds to a class's logit: a probability below 0.7 % becomes 0."""

_STEM = 32
_BLOCKS = (
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),
    (1, 1024),
)
"""Stride and output channels of each depthwise separable block."""


class Stem(nn.Module):
    """The first convolution and its ReLU: [B, channels, F, T] -> [B, 32, F/2, T/2]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = SameConv2d(channels, _STEM, 3, stride=2)

    def forward(self, features_BCFT: Tensor) -> Tensor:
        """Filter."""
        return F.relu(self.conv(features_BCFT))


class Separable(nn.Module):
    """A 3x3 convolution of every channel by itself, then a 1x1 convolution across channels, each with ReLU."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = SameConv2d(width, width, 3, stride=stride, groups=width)
        self.pointwise = nn.Conv2d(width, out, 1)

    def forward(self, features_BCFT: Tensor) -> Tensor:
        """Filter, then mix."""
        return F.relu(self.pointwise(F.relu(self.depthwise(features_BCFT))))


class YAMNet(nn.Module):
    """The whole network: trunk and classifier.

    Attributes:
        trunk: [B, 1, 64, T] -> [B, 1024, 2, ceil(T/32)] of `avloc.transforms.log_mel`; children `stem`, `block1` ...
            `block13`.
        head: 1024 -> 521.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = build_yamnet_trunk()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, mel_B1FT: Tensor) -> Tensor:
        """Logits [B, 521]; their sigmoids are the published scores. Published for T = 96 frames, 0.96 s."""
        logits: Tensor = self.head(self.trunk(mel_B1FT).mean((2, 3)))
        return logits

    def logits_in_time(self, mel_B1FT: Tensor) -> Tensor:
        """Logits [B, ceil(T/32), 521] for every 32 frames, 0.32 s, each from the receptive field of the trunk."""
        logits: Tensor = self.head(self.trunk(mel_B1FT).mean(2).transpose(1, 2))
        return logits


class YAMNetWithClasses(nn.Sequential):
    """The trunk with its classifier: features and class scores of the whole sound.

    Features are averaged over frequency and time, as in the published network. The score of a class is its logit plus
    `CLASS_OFFSET`, at least 0. Keys of the state dict are those of the trunk, and `_fc`.
    """

    def __init__(self, channels: int = 1) -> None:
        parts = OrderedDict(build_yamnet_trunk(channels).named_children())
        super().__init__(OrderedDict([*parts.items(), ("_fc", nn.Linear(WIDTH, CLASSES))]))

    def forward(self, mel_BCFT: Tensor) -> Tensor:
        """[B, channels, 64, T] of `avloc.transforms.log_mel` -> [B, 1024 + 521, 1, 1], the features first."""
        *trunk, classifier = self
        features = mel_BCFT
        for part in trunk:
            features = part(features)
        embedding = features.mean((2, 3))
        classes = F.relu(classifier(embedding) + CLASS_OFFSET)
        return torch.cat((embedding, classes), 1)[:, :, None, None]


def build_yamnet_trunk(channels: int = 1) -> nn.Sequential:
    """YAMNet up to its last feature map, with random weights: [B, channels, F, T] -> [B, 1024, F/32, T/32]."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=Stem(channels))
    width = _STEM
    for number, (stride, out) in enumerate(_BLOCKS, 1):
        parts[f"block{number}"] = Separable(width, out, stride)
        width = out
    return nn.Sequential(parts)


def load_yamnet(path: Path) -> YAMNet:
    """YAMNet with pretrained weights, frozen, in eval mode, on the CPU, in float32.

    Args:
        path: `yamnet.safetensors`.

    Raises:
        WeightsError: the file is unreadable or holds another network.
    """
    with torch.device("meta"):
        network = YAMNet()
    try:
        network.load_state_dict(read_yamnet(path), assign=True)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not hold the weights of YAMNet: {error}") from error
    return network.eval().requires_grad_(requires_grad=False)


def read_yamnet(path: Path) -> dict[str, Tensor]:
    """The state dict of `YAMNet` in a `.safetensors` file, in float32.

    Raises:
        WeightsError: the file is unreadable, or one of TensorFlow Lite, which has to be converted first.
    """
    if path.suffix == ".tflite":
        hint = f"In a checkout of avloc, convert it: python -m tests.recipe yamnet {shlex.quote(str(path))}"
        raise WeightsError(f"{path} is a TensorFlow Lite file, which avloc does not read", hint=hint)
    try:
        # Copied, since convolutions round differently where memory is not aligned, as in a mapped file.
        return {key: value.to(torch.float32, copy=True) for key, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as weights of YAMNet: {error}") from error
