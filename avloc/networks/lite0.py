"""EfficientNet-Lite0 (Tan et al., 2020): a small network that sees, with the key names of its published PyTorch file.

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

from avloc.errors import WeightsError
from avloc.networks.padding import SameConv2d
from avloc.transforms import IMAGENET_MEAN, IMAGENET_STD
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
_TWICE = {"_blocks.15.": "_block.", "_conv_head.": "_conv_head.", "_bn1.": "_bn1."}
"""What `Lite0WithClasses` can have a second time, and its names there."""
BESIDE_PUBLISHED = (*_TWICE, "_fc.")
"""Beginnings of the names of what can learn without a change to the second time."""
_EPSILON, _MOMENTUM = 1e-3, 0.01  # TensorFlow's 0.99, as PyTorch counts it

CLASS_SCALE = 1 / 2.27
"""What `Lite0WithClasses` multiplies a cell's logits by, their mean over classes taken out."""
CLASS_THRESHOLD = 1.5
"""What it takes away from them then: a class says something about a cell only above it."""


class OwnScale(nn.Module):
    """From frames with ImageNet's mean and deviation taken out to the scale of this network, (value - 127) / 128.

    Exact up to rounding, so that every trunk of avloc takes frames from `avloc.transforms.normalise_frames`. No
    parameters and no buffers: nothing of it is in the published file.
    """

    def forward(self, frames_B3HW: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 3, H, W]."""
        std = torch.tensor(IMAGENET_STD, dtype=torch.float64)
        mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64)
        scale = (std * 255 / 128).view(3, 1, 1).to(frames_B3HW)
        shift = ((mean * 255 - 127) / 128).view(3, 1, 1).to(frames_B3HW)
        return frames_B3HW * scale + shift


class Block(nn.Module):
    """Inverted bottleneck: widen, filter each channel, narrow; added to its input where the shapes agree."""

    def __init__(self, width: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.adds = stride == 1 and width == out
        self.widens = expansion != 1
        if self.widens:
            self._expand_conv = nn.Conv2d(width, inner, 1, bias=False)
            self._bn0 = _normalisation(inner)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride=stride, groups=inner, bias=False)
        self._bn1 = _normalisation(inner)
        self._project_conv = nn.Conv2d(inner, out, 1, bias=False)
        self._bn2 = _normalisation(out)
        self._relu = nn.ReLU6(inplace=True)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """[B, width, H, W] -> [B, out, H / stride, W / stride]."""
        inner = self._relu(self._bn0(self._expand_conv(features_BCHW))) if self.widens else features_BCHW
        inner = self._relu(self._bn1(self._depthwise_conv(inner)))
        out: Tensor = self._bn2(self._project_conv(inner))
        return out + features_BCHW if self.adds else out


class Lite0(nn.Module):
    """The whole network: trunk and classifier.

    Attributes:
        trunk: [B, 3, H, W] of normalised frames -> [B, 1280, H/32, W/32], not negative and at most 6.
        head: 1280 -> 1000; `_fc` of the published file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = build_lite0_trunk()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, frames_B3HW: Tensor) -> Tensor:
        """Logits [B, 1000] of frames from `avloc.transforms.normalise_frames`. Published for 224 pixels."""
        logits: Tensor = self.head(self.trunk(frames_B3HW).mean((2, 3)))
        return logits

    def class_maps(self, frames_B3HW: Tensor) -> Tensor:
        """What every cell alone says for every class: logits [B, 1000, H/32, W/32], whose mean over cells is `forward`.

        Class activation maps (Zhou et al., 2016), the bias included.
        """
        features = self.trunk(frames_B3HW)
        return torch.einsum("bchw,kc->bkhw", features, self.head.weight) + self.head.bias[:, None, None]


class Lite0WithClasses(nn.Sequential):
    """The trunk, and beside its features what each cell says for each class of ImageNet.

    A cell's logits (as `Lite0.class_maps`), less their mean over classes, times `CLASS_SCALE`, less `CLASS_THRESHOLD`,
    and at least 0. Few classes are left in a cell, and nothing where there is only ground.

    Keys of the state dict are those of the published file, `_fc` included.

    Args:
        channels: of the input.
        published: with a second end on the same trunk, for when the first learns and what it was is asked for still:
            the last block and what follows it once more, as `_published`. Its features come last.
    """

    def __init__(self, channels: int = 3, *, published: bool = False) -> None:
        parts = OrderedDict(build_lite0_trunk(channels).named_children())
        parts["_fc"] = nn.Linear(WIDTH, CLASSES)
        if published:
            parts["_published"] = _end()
        super().__init__(parts)

    def forward(self, frames_B3HW: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, 1280 + 1000 (+ 1280), H/32, W/32], the features first."""
        parts = dict(self.named_children())
        classifier, published = parts.pop("_fc"), parts.pop("_published", None)
        features = before = frames_B3HW
        for part in parts.values():
            if isinstance(part, nn.Sequential):  # the blocks
                before = part[:-1](features)
                features = part[-1](before)
            else:
                features = part(features)
        logits = classifier(features.movedim(1, -1)).movedim(-1, 1)
        classes = F.relu(CLASS_SCALE * (logits - logits.mean(1, keepdim=True)) - CLASS_THRESHOLD)
        return torch.cat((features, classes, *([published(before)] if published else [])), 1)


def published_end(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the published file's tensors that `Lite0WithClasses` has a second time, under the names there."""
    return {
        f"_published.{new}{key.removeprefix(old)}": value
        for old, new in _TWICE.items()
        for key, value in tensors.items()
        if key.startswith(old)
    }


def _end() -> nn.Sequential:
    """The last block and what follows it."""
    width, (_, kernel, stride, expansion, out) = _STAGES[-2][-1], _STAGES[-1]
    block = Block(width, out, kernel, stride, expansion)
    return nn.Sequential(OrderedDict([("_block", block), *_behind_blocks(out).items()]))


def _behind_blocks(width: int) -> dict[str, nn.Module]:
    return {
        "_conv_head": nn.Conv2d(width, WIDTH, 1, bias=False),
        "_bn1": _normalisation(WIDTH),
        "_relu1": nn.ReLU6(inplace=True),
    }


def build_lite0_trunk(channels: int = 3) -> nn.Sequential:
    """EfficientNet-Lite0 up to its last feature map (convolution, normalisation, ReLU6), with random weights.

    Children have the names of the published file, so that the trunk can be cut after one, and its state dict is that
    file less `_fc`. Only a trunk of 3 channels rescales its input (`OwnScale`): other channels are no colours.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if channels == 3:
        parts["_scale"] = OwnScale()
    parts["_conv_stem"] = SameConv2d(channels, _STEM, 3, stride=2, bias=False)
    parts["_bn0"] = _normalisation(_STEM)
    parts["_relu0"] = nn.ReLU6(inplace=True)
    parts["_blocks"], width = _blocks()
    parts.update(_behind_blocks(width))
    return nn.Sequential(parts)


def _blocks() -> tuple[nn.Sequential, int]:
    blocks, width = [], _STEM
    for repeats, kernel, first_stride, expansion, out in _STAGES:
        for number in range(repeats):
            stride = 1 if number else first_stride
            blocks.append(Block(width, out, kernel, stride, expansion))
            width = out
    return nn.Sequential(*blocks), width


def _normalisation(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=_EPSILON, momentum=_MOMENTUM)


def load_lite0(path: Path) -> Lite0:
    """EfficientNet-Lite0 with the published ImageNet weights, frozen, in eval mode, on the CPU.

    Args:
        path: `efficientnet-lite0-57934424.pth`.

    Raises:
        WeightsError: the file cannot be read as plain data or holds another network.
    """
    content = load_plain(path)
    heads = {f"head.{part}": content.pop(f"_fc.{part}", None) for part in ("weight", "bias")}
    network = Lite0()
    try:
        network.load_state_dict({**{f"trunk.{key}": value for key, value in content.items()}, **heads})
    except (RuntimeError, AttributeError) as error:
        raise WeightsError(f"{path} does not hold the weights of EfficientNet-Lite0: {error}") from error
    return network.eval().requires_grad_(requires_grad=False)
