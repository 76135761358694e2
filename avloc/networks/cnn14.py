"""PANNs Cnn14 (Kong et al., 2020): the network that listens, from `panns-inference`, without that package's habits.

Importing `panns_inference` makes a folder in the user's home, starts `wget` and sets up matplotlib. Only its file
`models.py` is wanted, and that needs none of it. So the file is imported as part of an empty shell of the package: the
package's own `__init__` never runs, and what `models.py` asks for without using it (matplotlib) or could ask for one
day (the label list) is played by stand-ins. Afterwards `sys.modules` is as it was: whoever imports the real package in
the same process gets the real one, and never our shell with its nameless labels.
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

from torch import Tensor, nn

from avloc.errors import WeightsError
from avloc.weights.torch_files import load_plain

RATE = 32_000  # Hz
CLASSES = 527  # AudioSet
WIDTH = 2048  # of the embedding
MIN_SAMPLES = 31 * 320  # five halvings need 32 spectrogram frames, 320 samples apart

_PACKAGE = "panns_inference"


def load_cnn14(path: Path) -> nn.Module:
    """Cnn14 with the published weights, frozen, in eval mode, on the CPU.

    Args:
        path: `Cnn14_mAP=0.431.pth`: a dictionary whose entry `model` is the state dict.

    Raises:
        WeightsError: the file cannot be read as plain data or holds something else.
    """
    content = load_plain(path)
    if not isinstance(content.get("model"), dict):
        raise WeightsError(f"{path} holds no entry 'model' with the weights of Cnn14")
    model = build_cnn14()
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise WeightsError(f"{path} does not hold the weights of Cnn14: {error}") from error
    return model.eval().requires_grad_(requires_grad=False)


def build_cnn14() -> nn.Module:
    """Cnn14 for 32 kHz and AudioSet's 527 classes, with random weights."""
    model: nn.Module = _cnn14_class()(
        sample_rate=RATE, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14_000, classes_num=CLASSES
    )
    return model


def embed(model: nn.Module, sound_BN: Tensor) -> Tensor:
    """Embeddings [B, 2048], not negative, of float waveforms in [-1, 1] at 32 kHz; N >= `MIN_SAMPLES`."""
    embedding: Tensor = model(sound_BN)["embedding"]
    return embedding


@cache
def _cnn14_class() -> type[nn.Module]:
    known = sys.modules.get(f"{_PACKAGE}.models")
    if known is None:
        importlib.import_module("torchlibrosa")  # for itself: its own imports must not meet the stand-ins
        with _stand_ins():
            known = importlib.import_module(f"{_PACKAGE}.models")
    found: type[nn.Module] = known.Cnn14
    return found


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Put the shell and its stand-ins into `sys.modules`, and take them and what they brought out again."""
    before = dict(sys.modules)
    sys.modules[_PACKAGE] = _shell()
    sys.modules[f"{_PACKAGE}.config"] = _config()
    # Where the real matplotlib is loaded but its pyplot is not, only that is played: no part of the real one may come
    # in here, since it would be taken out again and leave the rest in pieces.
    played = [name for name in ("matplotlib", "matplotlib.pyplot") if name not in before]
    sys.modules |= {name: ModuleType(name) for name in played}
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name in played or name.partition(".")[0] == _PACKAGE]:
            if name in before:
                sys.modules[name] = before[name]
            else:
                del sys.modules[name]


def _shell() -> ModuleType:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"no package {_PACKAGE}; it comes with avloc's dependencies", name=_PACKAGE)
    shell = ModuleType(_PACKAGE)
    shell.__path__ = list(spec.submodule_search_locations)
    return shell


def _config() -> ModuleType:
    config = ModuleType(f"{_PACKAGE}.config")
    labels = [f"class {number}" for number in range(CLASSES)]
    vars(config).update(labels=labels, classes_num=CLASSES, sample_rate=RATE)
    return config
