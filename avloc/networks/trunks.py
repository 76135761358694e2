"""Networks without their classifiers, for pictures and for spectrograms."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from avloc.errors import UsageError, WeightsError
from avloc.networks.lite0 import build_lite0_trunk
from avloc.networks.plain import load_plain
from avloc.networks.yamnet import build_yamnet_trunk, read_yamnet_tflite

TORCHVISION_TRUNKS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vgg16",
    "efficientnet_b0",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
)
TRUNKS = (*TORCHVISION_TRUNKS, "efficientnet_lite0")
"""Trunks that see; they hear too, with another first convolution."""
SOUND_TRUNKS = ("yamnet",)
"""Trunks that hear log-mel bands (`avloc.transforms.log_mel`) and cannot see."""
_HEADS = ("avgpool", "fc", "classifier")


def build_trunk(name: str, *, channels: int = 3) -> tuple[nn.Module, int]:
    """A network up to its last feature map, with random initial weights and the key names of its publisher.

    Args:
        name: one of `TRUNKS`, or of `SOUND_TRUNKS` for one channel; `resnet18:layer2` and the like stop after that
            part, which keeps a network small and its cells' view of the picture narrow.
        channels: input channels; another number than 3 replaces the first convolution (no bias, as in the original).

    Returns:
        The network ([B, channels, H, W] -> [B, width, H/32, W/32], a finer grid if cut short) and its width.

    Raises:
        UsageError: unknown name or part, or a picture for a trunk that only hears.
    """
    network, cut, last = name.partition(":")
    parts = _parts(network, channels)
    if cut and last not in parts:
        raise UsageError(f"{network} has no part {last!r}; valid: {', '.join(parts)}")
    keep = list(parts)[: list(parts).index(last) + 1] if cut else list(parts)
    trunk = nn.Sequential(OrderedDict((key, parts[key]) for key in keep))
    if network in TORCHVISION_TRUNKS and channels != 3:
        _replace_stem(trunk, channels)
    return trunk, _width(trunk, channels)


def _parts(network: str, channels: int) -> dict[str, nn.Module]:
    if network in SOUND_TRUNKS and channels != 1:
        raise UsageError(f"{network} hears and cannot see; valid for pictures: {', '.join(TRUNKS)}")
    if network == "yamnet":
        return dict(build_yamnet_trunk(channels).named_children())
    if network == "efficientnet_lite0":
        return dict(build_lite0_trunk(channels).named_children())
    if network not in TORCHVISION_TRUNKS:
        raise UsageError(f"unknown trunk {network!r}; valid: {', '.join((*TRUNKS, *SOUND_TRUNKS))}")
    whole = torchvision.models.get_model(network, weights=None)
    return {key: part for key, part in whole.named_children() if key not in _HEADS}


def _replace_stem(trunk: nn.Module, channels: int) -> None:
    path, stem = next((path, part) for path, part in trunk.named_modules() if isinstance(part, nn.Conv2d))
    parent = trunk.get_submodule(path.rpartition(".")[0])
    new = nn.Conv2d(
        channels,
        stem.out_channels,
        kernel_size=stem.kernel_size,  # type: ignore[arg-type]
        stride=stem.stride,  # type: ignore[arg-type]
        padding=stem.padding,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )
    setattr(parent, path.rpartition(".")[2], new)


def _width(trunk: nn.Module, channels: int) -> int:
    """Channels of the last feature map, read off one small forward pass that leaves the statistics alone."""
    was_training = trunk.training
    with torch.no_grad():
        out: Tensor = trunk.eval()(torch.zeros(1, channels, 64, 64))
    trunk.train(was_training)
    return out.shape[1]


def load_pretrained(trunk: nn.Module, name: str, path: Path) -> None:
    """Put published weights into a trunk from `build_trunk`; tensors of parts that it lacks are ignored.

    Args:
        trunk: what `build_trunk` made, also if cut short.
        name: the name that it was made under.
        path: the file that `avloc.weights.trunk_weights` names.

    Raises:
        WeightsError: the file does not hold the weights of this trunk.
    """
    if name.partition(":")[0] != "yamnet":
        load_imagenet(trunk, path)
        return
    tensors = {key.removeprefix("trunk."): value for key, value in read_yamnet_tflite(path).items()}
    _fill(trunk, tensors, path)


def load_imagenet(trunk: nn.Module, path: Path) -> None:
    """Put published ImageNet weights into a trunk that sees; tensors of parts that it lacks are ignored.

    Raises:
        WeightsError: the file is not a state dict of this trunk, as torchvision or its publisher names its tensors.
    """
    _fill(trunk, load_plain(path), path)


def _fill(trunk: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    wanted = {key for key, _ in trunk.named_children()}
    kept = {key: value for key, value in tensors.items() if key.split(".")[0] in wanted}
    try:
        trunk.load_state_dict(kept)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not hold the weights of this trunk: {error}") from error


def init_from_scratch(module: nn.Module) -> None:
    """The reference's initial weights for everything that is not pretrained (EZ-VSL and AVC `model.py`)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.01)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, mean=1.0, std=0.02)
            nn.init.zeros_(part.bias)
