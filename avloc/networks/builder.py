"""Building backbones by name, their audio input, and loading pretrained weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from avloc.errors import UsageError
from avloc.networks import lite0, yamnet
from avloc.networks.backbones import AUDIO_ONLY, CONVNETS, IMAGE_ONLY, TORCHVISION, BackboneName
from avloc.networks.base import Backbone, load_weights
from avloc.transforms import MEL_RATE, log_mel, log_spectrogram
from avloc.weights.torch_files import load_plain

_HEADS = ("avgpool", "fc", "classifier")


def build_backbone(name: str, *, channels: int = 3) -> Backbone:
    """A backbone with random weights. Its grid is H/32 x W/32, finer if cut, 14 x 14 for `vit_b_16`.

    Args:
        name: see `avloc.networks.backbones`.
        channels: of the input: 3 for images, 1 for audio; any number but 3 replaces a torchvision network's first
            convolution by one with a bias only where the original has one.

    Raises:
        UsageError: unknown name or layer, or a network that does not take such input.
    """
    parsed = BackboneName.parse(name)
    network = parsed.network
    if network in AUDIO_ONLY and channels != 1:
        raise UsageError(f"{network} takes audio input only; valid for images: {', '.join((*CONVNETS, *IMAGE_ONLY))}")
    if channels != 3 and (network in IMAGE_ONLY or parsed.frozen_head):
        raise UsageError(f"{name} takes image input only; valid for audio: {', '.join((*CONVNETS, *AUDIO_ONLY))}")
    if network in IMAGE_ONLY:
        from avloc.networks.vit import ViTBackbone

        return ViTBackbone(parsed)
    if parsed.class_scores:
        return (yamnet.YAMNetWithClasses if network == "yamnet" else lite0.Lite0WithClasses)(parsed, channels)
    layers = _layers(network, channels)
    names = list(layers)
    if parsed.last_layer is not None:
        if parsed.last_layer not in names:
            raise UsageError(f"{network} has no part {parsed.last_layer!r}; valid: {', '.join(names)}")
        names = names[: names.index(parsed.last_layer) + 1]
    backbone = Backbone(parsed, channels, {name: layers[name] for name in names})
    if network in TORCHVISION and channels != 3:
        _replace_stem(backbone, channels)
    return backbone


def _layers(network: str, channels: int) -> dict[str, nn.Module]:
    if network == "yamnet":
        return yamnet.layers(channels)
    if network == "efficientnet_lite0":
        return lite0.layers(channels)
    import torchvision  # takes as long to import as torch, and the shipped model does not need it

    whole = torchvision.models.get_model(network, weights=None)
    return {name: layer for name, layer in whole.named_children() if name not in _HEADS}


def _replace_stem(backbone: nn.Module, channels: int) -> None:
    path, stem = next((path, part) for path, part in backbone.named_modules() if isinstance(part, nn.Conv2d))
    parent = backbone.get_submodule(path.rpartition(".")[0])
    new = nn.Conv2d(
        channels,
        stem.out_channels,
        kernel_size=stem.kernel_size,  # type: ignore[arg-type]
        stride=stem.stride,  # type: ignore[arg-type]
        padding=stem.padding,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )
    setattr(parent, path.rpartition(".")[2], new)


def audio_transform(network: str, rate: int) -> Callable[[Tensor, int], Tensor]:
    """The function that turns waveforms [B, N] in [-1, 1] and their rate in Hz into the input of an audio backbone.

    Networks of `AUDIO_ONLY` take log-mel spectrograms, all others log-spectrograms. `rate` is that of the model in Hz;
    0 is each file's own.

    Raises:
        UsageError: the network takes another rate only.
    """
    if network not in AUDIO_ONLY:
        return log_spectrogram
    if rate != MEL_RATE:
        has = f"model.rate is {rate}" if rate else "model.rate = 0 takes each file's own rate"
        raise UsageError(f"{network} takes audio at {MEL_RATE} Hz only, and {has}", hint=f"--set model.rate={MEL_RATE}")
    return log_mel


def load_pretrained(module: nn.Module, network: str, path: Path) -> None:
    """Load the published weights of a network; tensors of top-level modules that `module` lacks are ignored.

    `module` is a backbone, or modules of the network under their published names; `path` is the file of
    `avloc.weights.backbone_weights`.

    Raises:
        WeightsError: the file does not hold the weights of this network.
    """
    tensors = yamnet.read_backbone(path) if network == "yamnet" else load_plain(path)
    if network == "efficientnet_lite0":
        tensors |= lite0.frozen_head(tensors)
    wanted = {key.partition(".")[0] for key in module.state_dict()}
    kept = {key: value for key, value in tensors.items() if key.partition(".")[0] in wanted}
    load_weights(module, kept, path, network)
