"""EfficientNet-Lite0 (Tan et al., 2020): a small image network, with the key names of its published PyTorch file.

Facts (layout, padding, scaling of the input) are those of `efficientnet/lite` in tensorflow/tpu and of its port, the
package `efficientnet-lite-pytorch`. Stochastic depth, which that port applies in training, is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avloc.networks.backbones import BackboneName
from avloc.networks.base import Backbone, BackboneOutput, SameConv2d, load_weights
from avloc.transforms import IMAGENET_MEAN, IMAGENET_STD, constant
from avloc.weights.torch_files import load_plain

CLASSES = 1_000  # of ImageNet
WIDTH = 1_280  # of the last feature map

_STEM = 32
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Repeats, kernel, stride of the first, expansion, output channels."""
_HEAD = {"_blocks.15.": "_block.", "_conv_head.": "_conv_head.", "_bn1.": "_bn1."}
"""Tensors of the head that `Lite0WithClasses` can have a frozen copy of: published prefix -> prefix in the copy."""
_EPSILON, _MOMENTUM = 1e-3, 0.01  # TensorFlow's 0.99, as PyTorch counts it

CLASS_SCALE, CLASS_THRESHOLD = 1 / 2.27, 1.5
"""Class scores of a cell: its logits less their mean over classes, scaled, less the threshold, and at least 0."""


class InputScale(nn.Module):
    """From frames normalised with ImageNet's mean and deviation to this network's input, (value - 127) / 128.

    So every backbone takes frames from `avloc.transforms.normalise_frames`. No parameters and no buffers.
    """

    def forward(self, frames_B3HW: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 3, H, W]."""
        return frames_B3HW * constant(_input_scale, frames_B3HW) + constant(_input_shift, frames_B3HW)


def _input_scale() -> Tensor:
    return (torch.tensor(IMAGENET_STD, dtype=torch.float64) * 255 / 128).view(3, 1, 1)


def _input_shift() -> Tensor:
    return ((torch.tensor(IMAGENET_MEAN, dtype=torch.float64) * 255 - 127) / 128).view(3, 1, 1)


class MBConv(nn.Module):
    """Inverted bottleneck (MBConv): expand, depthwise convolution, project; with a residual where the shapes agree."""

    def __init__(self, width: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.adds = stride == 1 and width == out
        self.widens = expansion != 1
        if self.widens:
            self._expand_conv = nn.Conv2d(width, inner, 1, bias=False)
            self._bn0 = _batch_norm(inner)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride=stride, groups=inner, bias=False)
        self._bn1 = _batch_norm(inner)
        self._project_conv = nn.Conv2d(inner, out, 1, bias=False)
        self._bn2 = _batch_norm(out)
        self._relu = nn.ReLU6(inplace=True)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """[B, width, H, W] -> [B, out, H / stride, W / stride]."""
        inner = self._relu(self._bn0(self._expand_conv(features_BCHW))) if self.widens else features_BCHW
        inner = self._relu(self._bn1(self._depthwise_conv(inner)))
        out: Tensor = self._bn2(self._project_conv(inner))
        return out + features_BCHW if self.adds else out


class Lite0(nn.Module):
    """The whole network.

    Attributes:
        trunk: [B, 3, H, W] of normalised frames -> [B, 1280, H/32, W/32], in [0, 6].
        head: 1280 -> 1000; `_fc` of the published file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(layers())
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, frames_B3HW: Tensor) -> Tensor:
        """Logits [B, 1000] of frames from `avloc.transforms.normalise_frames`. Published for 224 pixels."""
        logits: Tensor = self.head(self.trunk(frames_B3HW).mean((2, 3)))
        return logits

    def class_maps(self, frames_B3HW: Tensor) -> Tensor:
        """Logits of every cell, [B, 1000, H/32, W/32], whose mean over cells is `forward`.

        Class activation maps (Zhou et al., 2016), the bias included.
        """
        features = self.trunk(frames_B3HW)
        return torch.einsum("bchw,kc->bkhw", features, self.head.weight) + self.head.bias[:, None, None]


class Lite0WithClasses(Backbone):
    """A backbone with class scores of every cell (`CLASS_SCALE`): few are above 0, and none in plain background.

    Key names are those of the published file, `_fc` included. With `name.frozen_head`, a frozen copy of the pretrained
    head (the last block and what follows it) is appended as `_published`: `prior_features` stay those of the published
    network while the first head is trained.
    """

    def __init__(self, name: BackboneName, channels: int = 3) -> None:
        parts = layers(channels)
        parts["_fc"] = nn.Linear(WIDTH, CLASSES)
        if name.frozen_head:
            parts["_published"] = _head()
        super().__init__(name, channels, parts)

    def forward(self, inputs_BCHW: Tensor) -> BackboneOutput:
        """[B, channels, H, W] -> features [B, 1280, H/32, W/32] and scores of 1000 classes."""
        parts = dict(self.named_children())
        classifier, frozen_head = parts.pop("_fc"), parts.pop("_published", None)
        features = before = inputs_BCHW
        for part in parts.values():
            if isinstance(part, nn.Sequential):  # the blocks
                before = part[:-1](features)
                features = part[-1](before)
            else:
                features = part(features)
        logits = classifier(features.movedim(1, -1)).movedim(-1, 1)
        scores = F.relu(CLASS_SCALE * (logits - logits.mean(1, keepdim=True)) - CLASS_THRESHOLD)
        return BackboneOutput(features, features if frozen_head is None else frozen_head(before), scores)

    def trainable(self, part: str) -> bool:
        """With a frozen head only what it does not depend on: the first head and the classifier."""
        return not self.name.frozen_head or f"{part}.".startswith((*_HEAD, "_fc."))


def frozen_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the published file that the frozen head copies, under its key names."""
    return {
        f"_published.{new}{key.removeprefix(old)}": value
        for old, new in _HEAD.items()
        for key, value in tensors.items()
        if key.startswith(old)
    }


def _head() -> nn.Sequential:
    """The last block and what follows it."""
    width, (_, kernel, stride, expansion, out) = _STAGES[-2][-1], _STAGES[-1]
    block = MBConv(width, out, kernel, stride, expansion)
    return nn.Sequential(OrderedDict([("_block", block), *_behind_blocks(out).items()]))


def _behind_blocks(width: int) -> dict[str, nn.Module]:
    return {
        "_conv_head": nn.Conv2d(width, WIDTH, 1, bias=False),
        "_bn1": _batch_norm(WIDTH),
        "_relu1": nn.ReLU6(inplace=True),
    }


def layers(channels: int = 3) -> OrderedDict[str, nn.Module]:
    """All layers but the classifier, with random weights, under the names of the published file.

    Only an input of 3 channels, an image, is rescaled (`InputScale`).
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if channels == 3:
        parts["_scale"] = InputScale()
    parts["_conv_stem"] = SameConv2d(channels, _STEM, 3, stride=2, bias=False)
    parts["_bn0"] = _batch_norm(_STEM)
    parts["_relu0"] = nn.ReLU6(inplace=True)
    blocks, width = [], _STEM
    for repeats, kernel, first_stride, expansion, out in _STAGES:
        for number in range(repeats):
            stride = 1 if number else first_stride
            blocks.append(MBConv(width, out, kernel, stride, expansion))
            width = out
    parts["_blocks"] = nn.Sequential(*blocks)
    parts.update(_behind_blocks(width))
    return parts


def _batch_norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=_EPSILON, momentum=_MOMENTUM)


def load_lite0(path: Path) -> Lite0:
    """EfficientNet-Lite0 with the published ImageNet weights, frozen, in eval mode, on the CPU.

    Raises:
        WeightsError: the file cannot be read as plain data or holds another network.
    """
    content = load_plain(path)
    heads = {f"head.{part}": content.pop(f"_fc.{part}", None) for part in ("weight", "bias")}
    network = Lite0()
    tensors = {**{f"trunk.{key}": value for key, value in content.items()}, **heads}
    load_weights(network, tensors, path, "EfficientNet-Lite0")
    return network.eval().requires_grad_(requires_grad=False)
