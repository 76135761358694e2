"""Weights and inputs of the reference numbers, generated from their seed.

Every tensor has a random stream of its own (numpy's legacy generator, whose streams never change), seeded by the seed
and by the position of its name in the key list. The suffix of the name selects the distribution.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def vectors(name: str):
    """Reference numbers of one system; AVLOC_PARITY names a folder that replaces those shipped here."""
    return np.load(folder() / f"{name}.npz")


def folder() -> Path:
    return Path(os.environ.get("AVLOC_PARITY", HERE))


def weights(key_list: str, seed: int) -> dict[str, np.ndarray]:
    named_shapes = json.loads((HERE / key_list).read_text())
    return {key: _weight(key, shape, seed * 100_003 + place) for place, (key, shape) in enumerate(named_shapes)}


def weights_of_files(key_list: str, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Weights of a system with several checkpoint files, by file stem."""
    streams = itertools.count(seed * 100_003)
    files = json.loads((HERE / key_list).read_text())
    return {
        Path(file).stem: {key: _weight(key, shape, next(streams)) for key, shape in named_shapes}
        for file, named_shapes in files.items()
    }


_RATES = {"a0": 1.0, "b0": 0.5}
"""Mean of the update rates of SSPL's predictive coding module."""


def _weight(key: str, shape: list[int], stream: int) -> np.ndarray:
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    normal = np.random.RandomState(stream).standard_normal(shape)
    rate = next((middle for name, middle in _RATES.items() if f".{name}." in f".{key}"), None)
    if rate is not None:
        return (rate + 0.5 * normal).astype(np.float32)
    if key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(normal)
    elif key.endswith("running_mean"):
        value = 0.05 * normal
    elif len(shape) > 1:
        value = normal * np.sqrt(2 / np.prod(shape[1:]))
    elif key.endswith("bias"):
        value = 0.05 * normal
    else:  # scale of a normalisation layer
        value = 1 + 0.1 * normal
    return value.astype(np.float32)


def hinted_batch(seed: int, batch: int) -> dict[str, np.ndarray]:
    """AVC's inputs: noise images and spectrograms, hints of both teachers; the second image has no visual hint."""
    draw = np.random.RandomState(seed).standard_normal
    audio_hint = draw((batch, 2048))
    visual_hint = 1e-3 * np.abs(draw((batch, 25, 25)))
    visual_hint[1] = np.nan
    image = draw((batch, 3, 224, 224))
    spectrogram = draw((batch, 1, 257, 276))
    named = {"image": image, "spectrogram": spectrogram, "audio_hint": audio_hint, "visual_hint": visual_hint}
    return {name: value.astype(np.float32) for name, value in named.items()}


def patchy_batch(seed: int, batch: int, width: int) -> dict[str, np.ndarray]:
    """EZ-VSL's inputs: images of 16-pixel patches, spectrograms with one level per bin, both with added noise."""
    draw = np.random.RandomState(seed).standard_normal
    image = _patchy(draw, batch)
    level = draw((batch, 1, 257, 1))
    spectrogram = 0.7 * level + 0.7 * draw((batch, 1, 257, width))
    return {"image": image.astype(np.float32), "spectrogram": spectrogram.astype(np.float32)}


def _patchy(draw, batch: int) -> np.ndarray:
    patches = np.kron(draw((batch, 3, 14, 14)), np.ones((16, 16)))
    return patches + 0.5 * draw((batch, 3, 224, 224))


def two_views(seed: int, batch: int) -> dict[str, np.ndarray]:
    """SSPL's and SACL's inputs: two images, log-mel patches with one level per band."""
    draw = np.random.RandomState(seed).standard_normal
    view1, view2 = _patchy(draw, batch), _patchy(draw, batch)
    level = draw((batch, 1, 1, 1, 64))
    patches = -1.0 + level + 0.7 * draw((batch, 3, 1, 96, 64))
    named = {"view1": view1, "view2": view2, "log_mel": patches[:, :, 0]}
    return {name: value.astype(np.float32) for name, value in named.items()}


def related_features(seed: int, batch: int, cells: int) -> dict[str, np.ndarray]:
    """LVS's visual and audio features.

    In each image the weight of its own audio feature grows from left to right; in the last one it is negative
    everywhere. The audio features of different clips are correlated.
    """
    draw = np.random.RandomState(seed + 13).standard_normal
    audio = 1.5 * draw(512) + draw((batch, 512))
    noise = draw((batch, 512, cells, cells))
    share = np.tile(np.linspace(-0.2, 0.9, cells), (batch, 1))
    share[-1] = np.linspace(-0.6, -0.3, cells)
    share = share[:, None, None, :]
    vision = share * audio[:, :, None, None] / np.sqrt(3.25) + np.sqrt(1 - share**2) * noise
    return {"vision": vision.astype(np.float32), "audio": audio.astype(np.float32)}
