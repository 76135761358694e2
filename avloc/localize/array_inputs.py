"""What the library is given: pictures and sounds of NumPy, Pillow and PyTorch, each checked and made one kind."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avloc.errors import InputError
from avloc.media import as_shown

if TYPE_CHECKING:
    from torch import Tensor

    Frame = NDArray[np.uint8] | Image.Image | Tensor
    Waveform = NDArray[np.floating] | NDArray[np.int16] | Tensor

_FRAMES = "valid: [H, W, 3] uint8 RGB (of PyTorch also [3, H, W]), or a picture of Pillow"
_WAVEFORMS = "valid: [n] mono, float32 or float64 in [-1, 1], or int16"
_RATES = (1_000, 768_000)
_SHORTEST_S = 0.05
_LOUDEST = 8.0
"""Beyond this a waveform is no overshoot of a decoder but in other units."""
_INT16_STEPS = 32_768


def frame_of(frame: object) -> NDArray[np.uint8]:
    """A frame as [H, W, 3] uint8 RGB.

    Args:
        frame: an array [H, W, 3], a tensor [H, W, 3] or [3, H, W], both uint8, or a picture of Pillow
            that is not of 32-bit numbers.

    Raises:
        InputError: something else, or a tensor that could be either.
    """
    if isinstance(frame, Image.Image):
        rgb = as_shown(frame)
    else:
        rgb = _array(frame, "frame", _FRAMES)
        if not isinstance(frame, np.ndarray):
            rgb = _channels_last(rgb)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise InputError(f"the frame is {list(rgb.shape)} {rgb.dtype}; {_FRAMES}")
    return rgb


def sound_of(waveform: object, rate: object) -> tuple[NDArray[np.float32], int]:
    """A waveform as [n] float32, and its rate.

    Args:
        waveform: [n], an array or a tensor, float32 or float64 in [-1, 1], or int16.
        rate: Hz, any whole number.

    Raises:
        InputError: something else, or too short, too loud, or not finite.
    """
    samples = _array(waveform, "waveform", _WAVEFORMS)
    if samples.ndim != 1 or samples.dtype not in (np.float32, np.float64, np.int16):
        more = "; average its channels first" if samples.ndim == 2 else ""
        raise InputError(f"the waveform is {list(samples.shape)} {samples.dtype}{more}; {_WAVEFORMS}")
    hertz = _checked_rate(rate)
    if len(samples) < _SHORTEST_S * hertz:
        raise InputError(f"the waveform is too short: {len(samples)} samples; valid: {_SHORTEST_S:g} s or more")
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(_INT16_STEPS), hertz
    if not np.isfinite(samples).all():
        raise InputError(f"the waveform has samples that are not numbers (NaN or infinity); {_WAVEFORMS}")
    if float(np.abs(samples).max()) > _LOUDEST:
        raise InputError(f"the waveform reaches {float(np.abs(samples).max()):.4g}; {_WAVEFORMS}")
    return samples.astype(np.float32, copy=False), hertz


def _checked_rate(rate: object) -> int:
    try:
        hertz = operator.index(rate)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"the rate is {rate!r}; valid: a whole number of Hz") from None
    if not _RATES[0] <= hertz <= _RATES[1]:
        raise InputError(f"the rate is {hertz} Hz; valid: {_RATES[0]} to {_RATES[1]} Hz")
    return hertz


def _array(given: object, what: str, valid: str) -> NDArray[Any]:
    """An array as it is, a tensor from whatever device as an array."""
    import torch

    if isinstance(given, np.ndarray):
        return given
    if not isinstance(given, torch.Tensor):
        raise InputError(f"the {what} is a {type(given).__name__}; {valid}")
    try:
        return given.detach().cpu().numpy()
    except (RuntimeError, TypeError):  # it is sparse, holds no data, or is of a type that NumPy does not have
        kind = f"{given.dtype} {given.layout} on {given.device}"
        raise InputError(f"the {what} is a tensor {list(given.shape)} {kind}; {valid}") from None


def _channels_last(rgb: NDArray[Any]) -> NDArray[Any]:
    """[H, W, 3] of a tensor's [3, H, W]; what is neither stays as it is."""
    if rgb.ndim != 3 or rgb.shape[0] != 3:
        return rgb
    if rgb.shape[2] == 3:
        either = "which can be [H, W, 3] and [3, H, W]"
        raise InputError(f"the frame is a tensor {list(rgb.shape)}, {either}; valid: an array of NumPy, [H, W, 3]")
    return np.ascontiguousarray(np.moveaxis(rgb, 0, 2))
