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
from avloc.networks.backbones import BackboneName
from avloc.networks.base import Backbone, BackboneOutput, SameConv2d

CLASSES = 521  # of AudioSet, in the order of `yamnet_class_map.csv`
WIDTH = 1024  # of the last feature map

CLASS_OFFSET = 5.0
"""Class scores are logits plus this, at least 0: a probability below 0.7 % counts as 0."""

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


class YAMNet(nn.Module):
    """The whole network.

    Attributes:
        trunk: [B, 1, 64, T] of `avloc.transforms.log_mel` -> [B, 1024, 2, ceil(T/32)]; children `stem`, `block1` ...
            `block13`.
        head: 1024 -> 521.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(layers())
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, mel_B1FT: Tensor) -> Tensor:
        """Logits [B, 521]; their sigmoids are the published scores. Published for T = 96 frames, 0.96 s."""
        logits: Tensor = self.head(self.trunk(mel_B1FT).mean((2, 3)))
        return logits


class YAMNetWithClasses(Backbone):
    """A backbone with class scores, logits plus `CLASS_OFFSET` and at least 0; one cell for the whole sound.

    Features are averaged over frequency and time, as in the published network. Key names are those of the layers, and
    `_fc` of the classifier.
    """

    def __init__(self, name: BackboneName, channels: int = 1) -> None:
        super().__init__(name, channels, {**layers(channels), "_fc": nn.Linear(WIDTH, CLASSES)})

    def forward(self, inputs_BCHW: Tensor) -> BackboneOutput:
        """[B, channels, 64, T] of `avloc.transforms.log_mel` -> features [B, 1024, 1, 1] and scores [B, 521, 1, 1]."""
        *trunk, classifier = self
        features = inputs_BCHW
        for part in trunk:
            features = part(features)
        embedding = features.mean((2, 3))
        scores = F.relu(classifier(embedding) + CLASS_OFFSET)[:, :, None, None]
        features = embedding[:, :, None, None]
        return BackboneOutput(features, features, scores)


def layers(channels: int = 1) -> OrderedDict[str, nn.Module]:
    """All layers but the classifier, with random weights: [B, channels, F, T] -> [B, 1024, F/32, T/32]."""
    stem = OrderedDict(conv=SameConv2d(channels, _STEM, 3, stride=2), relu=nn.ReLU())
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(stem))
    width = _STEM
    for number, (stride, out) in enumerate(_BLOCKS, 1):
        parts[f"block{number}"] = _separable(width, out, stride)
        width = out
    return parts


def _separable(width: int, out: int, stride: int) -> nn.Sequential:
    """A depthwise 3x3 and a pointwise 1x1 convolution, each with ReLU."""
    depthwise = SameConv2d(width, width, 3, stride=stride, groups=width)
    pointwise = nn.Conv2d(width, out, 1)
    return nn.Sequential(OrderedDict(depthwise=depthwise, relu1=nn.ReLU(), pointwise=pointwise, relu2=nn.ReLU()))


def load_yamnet(path: Path) -> YAMNet:
    """YAMNet with the pretrained weights of `yamnet.safetensors`, frozen, in eval mode, on the CPU, in float32.

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


def read_backbone(path: Path) -> dict[str, Tensor]:
    """The published weights under the key names of a backbone, `_fc` for the classifier.

    Raises:
        WeightsError: see `read_yamnet`.
    """
    tensors = read_yamnet(path).items()
    return {key.removeprefix("trunk.").replace("head.", "_fc."): value for key, value in tensors}
