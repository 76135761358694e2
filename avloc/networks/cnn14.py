"""PANNs Cnn14 (Kong et al., 2020) from `panns_inference.models`, imported without its package.

Importing `panns_inference` makes a folder in the user's home, runs `wget` and sets up matplotlib. So `models.py` is
imported with stubs for the package, its configuration and matplotlib; afterwards `sys.modules` is restored, and a later
import of the package gets the real one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from avloc.errors import WeightsError
from avloc.networks.base import load_weights
from avloc.weights.torch_files import load_plain

RATE = 32_000  # Hz
CLASSES = 527  # AudioSet
WIDTH = 2048  # of the embedding
MIN_SAMPLES = 31 * 320  # five halvings need 32 spectrogram frames, 320 samples apart

_PACKAGE = "panns_inference"


def load_cnn14(path: Path) -> nn.Module:
    """Cnn14 with the published weights of `Cnn14_mAP=0.431.pth`, frozen, in eval mode, on the CPU.

    Raises:
        WeightsError: the file cannot be read as plain data or holds something else.
    """
    content = load_plain(path)
    if not isinstance(content.get("model"), dict):
        raise WeightsError(f"{path} holds no entry 'model' with the weights of Cnn14")
    model = build_cnn14()
    load_weights(model, content["model"], path, "Cnn14")
    for name in ("spectrogram_extractor", "logmel_extractor"):
        setattr(model, name, _FullPrecision(getattr(model, name)))
    return model.eval().requires_grad_(requires_grad=False)


def build_cnn14() -> nn.Module:
    """Cnn14 for 32 kHz and AudioSet's 527 classes, with random weights."""
    model: nn.Module = _cnn14_class()(
        sample_rate=RATE, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14_000, classes_num=CLASSES
    )
    return model


class _FullPrecision(nn.Module):
    """A layer without autocast: the spectrogram is a convolution, and bfloat16 would drown quiet bands."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return self.layer(inputs)  # type: ignore[no-any-return]


def embed(model: nn.Module, sound_BN: Tensor) -> Tensor:
    """Embeddings [B, 2048], not negative, of float waveforms in [-1, 1] at 32 kHz; N >= `MIN_SAMPLES`."""
    embedding: Tensor = model(sound_BN)["embedding"]
    return embedding


@cache
def _cnn14_class() -> type[nn.Module]:
    known = sys.modules.get(f"{_PACKAGE}.models")
    if known is None:
        importlib.import_module("torchlibrosa")  # first: its imports must not find the stubs
        with _stubs():
            known = importlib.import_module(f"{_PACKAGE}.models")
    found: type[nn.Module] = known.Cnn14
    return found


@contextmanager
def _stubs() -> Iterator[None]:
    """Put the stubs into `sys.modules`; afterwards remove them and what was imported with them."""
    before = dict(sys.modules)
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"no package {_PACKAGE}; it comes with avloc's dependencies", name=_PACKAGE)
    package, config = ModuleType(_PACKAGE), ModuleType(f"{_PACKAGE}.config")
    package.__path__ = list(spec.submodule_search_locations)
    labels = [f"class {number}" for number in range(CLASSES)]
    vars(config).update(labels=labels, classes_num=CLASSES, sample_rate=RATE)
    sys.modules |= {_PACKAGE: package, config.__name__: config}
    # No part of the real matplotlib may be imported here: its removal would leave a loaded matplotlib broken.
    stubs = [name for name in ("matplotlib", "matplotlib.pyplot") if name not in before]
    sys.modules |= {name: ModuleType(name) for name in stubs}
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name in stubs or name.partition(".")[0] == _PACKAGE]:
            if name in before:
                sys.modules[name] = before[name]
            else:
                del sys.modules[name]
