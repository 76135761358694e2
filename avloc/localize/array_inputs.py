"""Check and convert the frames and waveforms passed to the library: NumPy, Pillow or PyTorch to NumPy."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avloc.errors import InputError
from avloc.media.pictures import as_shown

if TYPE_CHECKING:
    from torch import Tensor

    Frame = NDArray[np.uint8] | Image.Image | Tensor
    Waveform = NDArray[np.floating] | NDArray[np.int16] | Tensor

_VALID_FRAMES = "valid: [H, W, 3] uint8 RGB (PyTorch: also [3, H, W]), or a Pillow image"
_VALID_WAVEFORMS = "valid: [n] mono, float32 or float64 in [-1, 1], or int16"
_RATES = (1_000, 768_000)
_SHORTEST_S = 0.05
_LOUDEST = 8.0
"""Decoders overshoot 1 a little; a waveform beyond this is in other units."""
_INT16_STEPS = 32_768


def to_frame(frame: object) -> NDArray[np.uint8]:
    """Convert a frame to [H, W, 3] uint8 RGB.

    Args:
        frame: uint8 array [H, W, 3], uint8 tensor [H, W, 3] or [3, H, W], or Pillow image without 32-bit pixels.

    Raises:
        InputError: invalid type, shape or dtype, or a tensor of ambiguous layout.
    """
    if isinstance(frame, Image.Image):
        rgb = as_shown(frame)
    else:
        rgb = _to_numpy(frame, "frame", _VALID_FRAMES)
        if not isinstance(frame, np.ndarray):
            rgb = _channels_last(rgb)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise InputError(f"the frame is {list(rgb.shape)} {rgb.dtype}; {_VALID_FRAMES}")
    return rgb


def to_waveform(waveform: object, rate: object) -> tuple[NDArray[np.float32], int]:
    """Convert a waveform to [n] float32; returns it with its sample rate.

    Args:
        waveform: array or tensor [n], float32 or float64 in [-1, 1], or int16.
        rate: sample rate in Hz, an integer.

    Raises:
        InputError: invalid type or shape, or too short, out of range or not finite.
    """
    samples = _to_numpy(waveform, "waveform", _VALID_WAVEFORMS)
    if samples.ndim != 1 or samples.dtype not in (np.float32, np.float64, np.int16):
        more = "; average its channels first" if samples.ndim == 2 else ""
        raise InputError(f"the waveform is {list(samples.shape)} {samples.dtype}{more}; {_VALID_WAVEFORMS}")
    hertz = _checked_rate(rate)
    if len(samples) < _SHORTEST_S * hertz:
        raise InputError(f"the waveform is too short: {len(samples)} samples; valid: {_SHORTEST_S:g} s or more")
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(_INT16_STEPS), hertz
    if not np.isfinite(samples).all():
        raise InputError(f"the waveform has samples that are NaN or infinite; {_VALID_WAVEFORMS}")
    if float(np.abs(samples).max()) > _LOUDEST:
        raise InputError(f"the waveform reaches {float(np.abs(samples).max()):.4g}; {_VALID_WAVEFORMS}")
    return samples.astype(np.float32, copy=False), hertz


def _checked_rate(rate: object) -> int:
    try:
        hertz = operator.index(rate)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"the rate is {rate!r}; valid: an integer, in Hz") from None
    if not _RATES[0] <= hertz <= _RATES[1]:
        raise InputError(f"the rate is {hertz} Hz; valid: {_RATES[0]} to {_RATES[1]} Hz")
    return hertz


def _to_numpy(value: object, what: str, valid: str) -> NDArray[Any]:
    import torch

    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, torch.Tensor):
        raise InputError(f"the {what} is a {type(value).__name__}; {valid}")
    try:
        return value.detach().cpu().numpy()
    except (RuntimeError, TypeError):  # sparse, without data, or of a dtype that NumPy lacks
        kind = f"{value.dtype} {value.layout} on {value.device}"
        raise InputError(f"the {what} is a tensor {list(value.shape)} {kind}; {valid}") from None


def _channels_last(rgb: NDArray[Any]) -> NDArray[Any]:
    """[3, H, W] to [H, W, 3]; other shapes are returned unchanged."""
    if rgb.ndim != 3 or rgb.shape[0] != 3:
        return rgb
    if rgb.shape[2] == 3:
        ambiguous = "which could be [H, W, 3] or [3, H, W]"
        raise InputError(f"the frame is a tensor {list(rgb.shape)}, {ambiguous}; valid: a NumPy array [H, W, 3]")
    return np.ascontiguousarray(np.moveaxis(rgb, 0, 2))
