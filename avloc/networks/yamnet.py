"""YAMNet (Plakal and Ellis, 2019): MobileNet-v1 for 521 classes of sound, on log-mel spectrograms.

The axes are frequency, then time, [B, 1, 64, T], as everywhere in avloc; the published network has time first, so its
kernels are transposed on reading. Batch normalisation is folded into the convolutions, as in the published file.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avloc.backbone_names import BackboneName
from avloc.errors import WeightsError
from avloc.networks.base import Backbone, BackboneOutput, SameConv2d
from avloc.networks.tflite import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, Layer, read_layers

CLASSES = 521  # of AudioSet, in the order of `yamnet_class_map.csv`
WIDTH = 1024  # of the last feature map
SAMPLES = 15_600  # at 16 kHz: input of the published network

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

    def logits_in_time(self, mel_B1FT: Tensor) -> Tensor:
        """Logits [B, ceil(T/32), 521], one for every 32 frames (0.32 s)."""
        logits: Tensor = self.head(self.trunk(mel_B1FT).mean(2).transpose(1, 2))
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
    """YAMNet with the published weights, frozen, in eval mode, on the CPU, in float32.

    Args:
        path: `yamnet_int8.tflite`.

    Raises:
        WeightsError: the file cannot be read or holds another network.
    """
    tensors = read_yamnet_tflite(path)
    with torch.device("meta"):
        network = YAMNet()
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def read_backbone(path: Path) -> dict[str, Tensor]:
    """The published weights under the key names of a backbone, `_fc` for the classifier.

    Raises:
        WeightsError: the file cannot be read or holds another network.
    """
    tensors = read_yamnet_tflite(path).items()
    return {key.removeprefix("trunk.").replace("head.", "_fc."): value for key, value in tensors}


def read_yamnet_tflite(path: Path) -> dict[str, Tensor]:
    """The state dict of `YAMNet` out of the published file, its 8-bit weights as float32.

    Keys: `trunk.stem.conv`, `trunk.block1.depthwise`, `trunk.block1.pointwise` ... `trunk.block13.pointwise`, `head`,
    each with `.weight` and `.bias`. The front end that the file carries is left out: `avloc.transforms.log_mel` has it.

    Raises:
        WeightsError: the file cannot be read or holds another network.
    """
    layers = [layer for layer in read_layers(path) if not _is_front_end(layer)]
    with torch.device("meta"):
        wanted = YAMNet().state_dict()
    names = [key.removesuffix(".weight") for key in wanted if key.endswith(".weight")]
    tensors = {}
    for name, layer in zip(names, layers, strict=False):
        tensors[f"{name}.weight"] = _turned(layer)
        tensors[f"{name}.bias"] = torch.tensor(layer.bias)
    if len(layers) != len(names) or any(tensors[key].shape != value.shape for key, value in wanted.items()):
        raise WeightsError(f"{path} does not hold the weights of YAMNet: its layers are others")
    return tensors


def _is_front_end(layer: Layer) -> bool:
    """The matrix that makes mel bands out of 257 frequency bins."""
    return layer.kind == FULLY_CONNECTED and layer.weight.shape[1] == 257


def _turned(layer: Layer) -> Tensor:
    """In PyTorch's order of axes, with frequency before time."""
    weight = torch.tensor(layer.weight)
    if layer.kind == CONV_2D:
        weight = weight.permute(0, 3, 2, 1)
    elif layer.kind == DEPTHWISE_CONV_2D:
        weight = weight.permute(3, 0, 2, 1)
    return weight.contiguous()
