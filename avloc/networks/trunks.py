"""Networks without their classifiers, for pictures and for spectrograms."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from avloc.errors import UsageError, WeightsError, nearest
from avloc.networks import lite0, vit, yamnet
from avloc.transforms import MEL_RATE, log_mel, log_spectrogram
from avloc.weights.torch_files import load_plain

TORCHVISION_TRUNKS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vgg16",
    "vgg19",
    "efficientnet_b0",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
)
TRUNKS = (*TORCHVISION_TRUNKS, "efficientnet_lite0")
"""Trunks that see; they hear too, with another first convolution."""
SIGHT_TRUNKS = tuple(vit.WIDTHS)
"""Trunks that see pictures of one size and cannot hear."""
SOUND_TRUNKS = ("yamnet",)
"""Trunks that hear log-mel bands (`avloc.transforms.log_mel`) and cannot see."""
WITH_CLASSES = "+classes"
"""Behind the name of a trunk of `CLASSES`: it also says what its publisher's classifier sees or hears."""
CLASSES = {"efficientnet_lite0": lite0.CLASSES, "yamnet": yamnet.CLASSES}
"""How many classes there are, the last channels of such a trunk."""
WITH_PUBLISHED = "+published"
"""Behind that, of a trunk of `PUBLISHED`: its end is there a second time, whose features are the last channels and stay
what its publisher made them when the first learns."""
PUBLISHED = {"efficientnet_lite0": lite0.WIDTH}
"""How many channels that end has."""
WHOLE_WITH_CLASSES = (
    *(known + WITH_CLASSES for known in CLASSES),
    *(known + WITH_CLASSES + WITH_PUBLISHED for known in PUBLISHED),
)
"""Names of all trunks with classes."""
_HEADS = ("avgpool", "fc", "classifier")


def build_trunk(name: str, *, channels: int = 3) -> tuple[nn.Module, int]:
    """A network up to its last feature map, with random initial weights and the key names of its publisher.

    Args:
        name: one of `TRUNKS`, of `SIGHT_TRUNKS`, or of `SOUND_TRUNKS` for one channel; `resnet18:layer2` and the like
            stop after that part, which keeps a network small and its cells' view of the picture narrow;
            `yamnet+classes` and `efficientnet_lite0+classes` have the classes of their publishers as further channels,
            `efficientnet_lite0+classes+published` the features of the published network after them.
        channels: input channels; another number than 3 replaces the first convolution (no bias, as in the original).

    Returns:
        The network ([B, channels, H, W] -> [B, width, H/32, W/32], a finer grid if cut short or of `SIGHT_TRUNKS`,
        one cell of `yamnet+classes`) and its width.

    Raises:
        UsageError: unknown name or part, classes of a trunk that has none, a picture for one that only hears, or
            sound for one that only sees.
    """
    network, cut, last = name.partition(":")
    if WITH_CLASSES in name:
        return _with_classes(name, channels)
    _check_senses(network, channels)
    if name in SIGHT_TRUNKS:
        return vit.PatchTokens(name), vit.WIDTHS[name]
    parts = _parts(network, channels)
    if cut and last not in parts:
        raise UsageError(f"{network} has no part {last!r}; valid: {', '.join(parts)}")
    keep = list(parts)[: list(parts).index(last) + 1] if cut else list(parts)
    trunk = nn.Sequential(OrderedDict((key, parts[key]) for key in keep))
    if network in TORCHVISION_TRUNKS and channels != 3:
        _replace_stem(trunk, channels)
    return trunk, _width(trunk, channels)


def _with_classes(name: str, channels: int) -> tuple[nn.Module, int]:
    network = family(name)
    if name not in WHOLE_WITH_CLASSES:
        valid = ", ".join(WHOLE_WITH_CLASSES)
        raise UsageError(f"no trunk {name!r}: classes go with whole trunks that have them; valid: {valid}")
    _check_senses(network, channels)
    if name.endswith(WITH_PUBLISHED) and channels != 3:
        raise UsageError(f"{name} sees and cannot hear: nothing that hears was published of it")
    if network == "yamnet":
        return yamnet.YAMNetWithClasses(channels), yamnet.WIDTH + yamnet.CLASSES
    published = published_channels(name)
    return lite0.Lite0WithClasses(channels, published=published > 0), lite0.WIDTH + lite0.CLASSES + published


def _check_senses(network: str, channels: int) -> None:
    if network in SOUND_TRUNKS and channels != 1:
        valid = ", ".join((*TRUNKS, *SIGHT_TRUNKS))
        raise UsageError(f"{network} hears and cannot see; valid for pictures: {valid}")
    if network in SIGHT_TRUNKS and channels != 3:
        raise UsageError(f"{network} sees and cannot hear; valid for sound: {', '.join((*TRUNKS, *SOUND_TRUNKS))}")


def _parts(network: str, channels: int) -> dict[str, nn.Module]:
    if network == "yamnet":
        return dict(yamnet.build_yamnet_trunk(channels).named_children())
    if network == "efficientnet_lite0":
        return dict(lite0.build_lite0_trunk(channels).named_children())
    if network not in TORCHVISION_TRUNKS:
        valid = (*TRUNKS, *SIGHT_TRUNKS, *SOUND_TRUNKS, *WHOLE_WITH_CLASSES)
        raise UsageError(f"unknown trunk {network!r}; valid: {', '.join(valid)}", hint=nearest(network, valid))
    import torchvision  # takes as long to import as torch, and the shipped model has no trunk of it

    whole = torchvision.models.get_model(network, weights=None)
    return {key: part for key, part in whole.named_children() if key not in _HEADS}


def check_frame(name: str, side: int) -> None:
    """Raise UsageError where a trunk cannot see frames of so many pixels across."""
    if family(name) in SIGHT_TRUNKS:
        vit.check_side(side, side)


def keep_resolution(trunk: nn.Module, name: str) -> None:
    """Let the last part of a ResNet keep its resolution: cells of 16 pixels, 14 x 14 of them on 224 pixels.

    Args:
        trunk: what `build_trunk` made.
        name: the name that it was made under.

    Raises:
        UsageError: it has no such part.
    """
    last = getattr(trunk, "layer4", None)
    if not name.startswith("resnet") or last is None:
        raise UsageError(f"the last part of {name} cannot keep its resolution; valid: a whole ResNet")
    for part in last.modules():
        if isinstance(part, nn.Conv2d):
            part.stride = (1, 1)


def family(name: str) -> str:
    """The network behind a trunk's name: that without `:part` and without `+classes`."""
    return name.partition(":")[0].partition("+")[0]


def class_channels(name: str) -> int:
    """How many of a trunk's channels, the last ones but for `published_channels`, are classes; 0 for one without."""
    return CLASSES[family(name)] if WITH_CLASSES in name else 0


def published_channels(name: str) -> int:
    """How many of a trunk's channels, the very last ones, are features of its published end; 0 for one without."""
    return PUBLISHED.get(family(name), 0) if name.endswith(WITH_PUBLISHED) else 0


def heard_by(name: str, rate: int) -> Callable[[Tensor, int], Tensor]:
    """What makes the input of a trunk that hears out of waveforms [B, N] in [-1, 1] and their rate in Hz.

    Args:
        name: of the trunk; `SOUND_TRUNKS` hear log-mel bands, all others log-spectrograms.
        rate: of the model in Hz; 0 takes each file's own.

    Raises:
        UsageError: the trunk hears at another rate only.
    """
    if family(name) not in SOUND_TRUNKS:
        return log_spectrogram
    if rate != MEL_RATE:
        needs = f"{name} hears sound at {MEL_RATE} Hz only"
        has = f"model.rate is {rate}" if rate else "model.rate = 0 takes each file's own rate"
        raise UsageError(f"{needs}, and {has}", hint=f"--set model.rate={MEL_RATE}")
    return log_mel


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
    if family(name) != "yamnet":
        load_imagenet(trunk, path)
        return
    tensors = yamnet.read_yamnet(path).items()
    _fill(trunk, {key.removeprefix("trunk.").replace("head.", "_fc."): value for key, value in tensors}, path)


def load_imagenet(trunk: nn.Module, path: Path) -> None:
    """Put published ImageNet weights into a trunk that sees; tensors of parts that it lacks are ignored.

    Raises:
        WeightsError: the file is not a state dict of this trunk, as torchvision or its publisher names its tensors.
    """
    tensors = load_plain(path)
    _fill(trunk, {**tensors, **lite0.published_end(tensors)}, path)


def _fill(trunk: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    wanted = {key.partition(".")[0] for key in trunk.state_dict()}
    kept = {key: value for key, value in tensors.items() if key.partition(".")[0] in wanted}
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
