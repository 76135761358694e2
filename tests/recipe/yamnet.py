"""The published YAMNet, converted from TensorFlow Lite to the file that avloc reads."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from avloc.errors import WeightsError
from avloc.files import atomic_path, sha256_of
from avloc.networks.yamnet import YAMNet
from avloc.weights.lookup import SOURCE_HASH
from tests.recipe.tflite import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, Layer, read_layers


def convert_yamnet(source: Path, target: Path) -> Path:
    """Write the weights of `yamnet_int8.tflite` as a state dict of `avloc.networks.yamnet.YAMNet`.

    Raises:
        WeightsError: the file is unreadable or holds another network.
    """
    data = save(read_yamnet_tflite(source), {SOURCE_HASH: sha256_of(source)})
    with atomic_path(target) as part:
        part.write_bytes(data)
    return target


def read_yamnet_tflite(path: Path) -> dict[str, Tensor]:
    """The state dict of `YAMNet` in the published file, its 8-bit weights as float32.

    Keys: `trunk.stem.conv`, `trunk.block1.depthwise`, `trunk.block1.pointwise` ... `trunk.block13.pointwise`, `head`,
    each with `.weight` and `.bias`. The file's front end is left out: `avloc.transforms.log_mel` computes it.

    Raises:
        WeightsError: the file is unreadable or holds another network.
    """
    layers = [layer for layer in read_layers(path) if not _is_front_end(layer)]
    with torch.device("meta"):
        wanted = YAMNet().state_dict()
    names = [key.removesuffix(".weight") for key in wanted if key.endswith(".weight")]
    tensors = {}
    for name, layer in zip(names, layers, strict=False):
        tensors[f"{name}.weight"] = _transposed(layer)
        tensors[f"{name}.bias"] = torch.tensor(layer.bias)
    if len(layers) != len(names) or any(tensors[key].shape != value.shape for key, value in wanted.items()):
        raise WeightsError(f"{path} does not hold the weights of YAMNet: its layers are others")
    return tensors


def _is_front_end(layer: Layer) -> bool:
    """The matrix that makes mel bands out of 257 frequency bins."""
    return layer.kind == FULLY_CONNECTED and layer.weight.shape[1] == 257


def _transposed(layer: Layer) -> Tensor:
    """In PyTorch's order of axes, with frequency before time."""
    weight = torch.tensor(layer.weight)
    if layer.kind == CONV_2D:
        weight = weight.permute(0, 3, 2, 1)
    elif layer.kind == DEPTHWISE_CONV_2D:
        weight = weight.permute(3, 0, 2, 1)
    return weight.contiguous()
