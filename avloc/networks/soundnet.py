"""SoundNet of 8 layers (Aytar, Vondrick and Torralba, 2016): a network that hears which objects and places are seen.

It was taught by vision networks on two million silent labels: its outputs are the 1000 classes of ImageNet and the 401
of Places. Layout and padding are those of the authors' Torch model, whose weights the file `sound8.npy` holds; the
Keras port that ships the file uses other strides in the last layers.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avloc.errors import WeightsError

RATE = 22_050  # Hz
SCALE = 256.0  # waveforms of [-1, 1] times this
OBJECTS, SCENES = 1_000, 401
MIN_SAMPLES = 242_142  # 11 s: what the heads need for one answer; see `tiled`

_LAYERS = (
    (16, 64, 32, 8),
    (32, 32, 16, 8),
    (64, 16, 8, 1),
    (128, 8, 4, 1),
    (256, 4, 2, 4),
    (512, 4, 2, 1),
    (1024, 4, 2, 1),
)
"""Channels, kernel, padding of each convolution (stride 2), and the pooling behind it."""
_HARMLESS = frozenset(
    {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }
)


class SoundNet(nn.Module):
    """The convolutions and both heads.

    Attributes:
        trunk: [B, 1, N] of scaled waveforms -> [B, 1024, T]; children `conv1` ... `conv7`.
        objects: the head for ImageNet's classes.
        scenes: the head for those of Places.
    """

    def __init__(self) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        width = 1
        for number, (out, kernel, padding, pool) in enumerate(_LAYERS, 1):
            parts[f"conv{number}"] = _layer(width, out, kernel, padding, pool)
            width = out
        self.trunk = nn.Sequential(parts)
        self.objects = nn.Conv1d(width, OBJECTS, 8, stride=2)
        self.scenes = nn.Conv1d(width, SCENES, 8, stride=2)

    def features(self, sound_BN: Tensor) -> Tensor:
        """What the last common layer says, [B, 1024, T], of float waveforms in [-1, 1] at 22 050 Hz: a cell is 1.5 s.

        The last cell is left out. It lies over the padding, where the published weights answer a hundred to a thousand
        times as loudly as anywhere else, whatever is heard; in the 20 s that they were trained on, no head reads it.
        """
        features: Tensor = self.trunk(sound_BN.unsqueeze(1) * SCALE)
        return features[..., :-1]

    def forward(self, sound_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of objects [B, 1000, S] and of scenes [B, 401, S] in time, of waveforms as in `features`.

        N >= `MIN_SAMPLES` gives S >= 1; tile what is shorter.
        """
        features = self.features(sound_BN)
        return self.objects(features), self.scenes(features)


def tiled(sound_BN: Tensor, samples: int = MIN_SAMPLES) -> Tensor:
    """Waveforms repeated until they have `samples`; longer ones as they are."""
    length = sound_BN.shape[-1]
    if length >= samples:
        return sound_BN
    return sound_BN.repeat(1, -(-samples // length))[:, :samples]


def _layer(width: int, out: int, kernel: int, padding: int, pool: int) -> nn.Sequential:
    parts = OrderedDict(
        conv=nn.Conv1d(width, out, kernel, stride=2, padding=padding),
        norm=nn.BatchNorm1d(out, eps=1e-5),
        relu=nn.ReLU(inplace=True),
    )
    return nn.Sequential(OrderedDict(**parts, pool=nn.MaxPool1d(pool)) if pool > 1 else parts)


def load_soundnet(path: Path) -> SoundNet:
    """SoundNet with the published weights, frozen, in eval mode, on the CPU.

    Args:
        path: `sound8.npy`: a pickled dictionary of arrays, read without running what it may carry.

    Raises:
        WeightsError: the file cannot be read, asks for anything but arrays, or holds another network.
    """
    stored = read_arrays(path)
    network = SoundNet()
    try:
        tensors: dict[str, Tensor] = {}
        for number in range(1, len(_LAYERS) + 1):
            tensors |= _layer_tensors(f"trunk.conv{number}", stored[f"conv{number}"])
        for head, name in (("objects", "conv8"), ("scenes", "conv8_2")):
            tensors |= _convolution(head, stored[name])
        network.load_state_dict({**network.state_dict(), **tensors})
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} does not hold the weights of SoundNet: {error}") from error
    return network.eval().requires_grad_(requires_grad=False)


def _layer_tensors(name: str, stored: dict[str, Any]) -> dict[str, Tensor]:
    norms = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
    return {
        **_convolution(f"{name}.conv", stored),
        **{f"{name}.norm.{ours}": torch.tensor(stored[theirs]) for ours, theirs in norms.items()},
    }


def _convolution(name: str, stored: dict[str, Any]) -> dict[str, Tensor]:
    """Stored kernels are (length, 1, in, out)."""
    weight = torch.tensor(stored["weights"])[:, 0].permute(2, 1, 0).contiguous()
    return {f"{name}.weight": weight, f"{name}.bias": torch.tensor(stored["biases"])}


def read_arrays(path: Path) -> dict[str, Any]:
    """The dictionary of arrays in a `.npy` file that was pickled, by Python 2 too.

    Raises:
        WeightsError: it cannot be read, asks for anything that is no array (named in the message), or is no dictionary.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"it is of version {version}")
            np.lib.format.read_array_header_1_0(file)
            content = _ArraysOnly(file, encoding="latin1").load()
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        pickle.PickleError,
    ) as error:
        raise WeightsError(f"{path} cannot be read as arrays: {error}") from error
    inside = content.item() if isinstance(content, np.ndarray) and content.shape == () else content
    if not isinstance(inside, dict):
        raise WeightsError(f"{path} holds a {type(inside).__name__}, not a dictionary of arrays")
    return inside


class _ArraysOnly(pickle.Unpickler):
    """Makes arrays and containers of them; whatever else a pickle asks for could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
