"""Similarity maps to heat maps and masks: the only place where a map is resized, normalised, fused or cut.

Shape letters: B batch, h w cells, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_FILL = {"zeros": 0.0, "nan": math.nan}


def resize(maps_Bhw: Tensor, size: tuple[int, int], how: str = "bilinear-corners") -> Tensor:
    """Maps at another size, [B, H, W] float32.

    Args:
        maps_Bhw: maps of any type.
        size: height and width of the result in pixels.
        how: `bilinear-corners` or `bicubic-corners`: the outer cells' centres lie on the border;
            `bilinear-halfpixel`: cells are areas, as in OpenCV's linear resize, with which it agrees to the last bit
            on the reference maps.
    """
    mode, _, anchor = how.partition("-")
    grown = F.interpolate(maps_Bhw.float().unsqueeze(1), size=size, mode=mode, align_corners=anchor == "corners")
    return grown.squeeze(1)


def heat_maps(maps_Bhw: Tensor, size: tuple[int, int], how: str = "bilinear-corners", flat: str = "zeros") -> Tensor:
    """Resize maps and bring each to [0, 1] by its own minimum and maximum.

    Args:
        maps_Bhw: similarity or activation maps; only their order and ratios of differences matter.
        size: height and width of the result in pixels.
        how: see `resize`.
        flat: what a map without contrast becomes, `zeros` or `nan`.

    Returns:
        [B, H, W] float32. A map with a NaN becomes NaN throughout; one with an infinity has a NaN somewhere, so that
        `ranked` knows no threshold for it. A map never depends on its neighbours in the batch.

    Source: EZ-VSL and AVC `test.py`; the other rules are those of `avloc.protocols`.
    """
    # Flatness is judged on the cells: interpolation's rounding errors would otherwise be blown up to a pattern.
    # A difference, because a map of nothing but infinity is broken, not flat.
    contrast = maps_Bhw.amax((1, 2), keepdim=True) - maps_Bhw.amin((1, 2), keepdim=True)
    return torch.where(contrast == 0, _FILL[flat], stretch(resize(maps_Bhw, size, how), flat))


def fuse(maps: Sequence[Tensor], weights: Sequence[float], flat: str = "zeros") -> Tensor:
    """Weighted sum of heat maps [B, H, W], brought to [0, 1] again. Weights belong to the maps in order."""
    terms = [weight * heat for weight, heat in zip(weights, maps, strict=True)]
    return stretch(torch.stack(terms).sum(0), flat)


def stretch(maps_BHW: Tensor, flat: str) -> Tensor:
    """Maps [B, H, W] brought to [0, 1], each by its own minimum and maximum; `flat` as in `heat_maps`."""
    low = maps_BHW.amin((1, 2), keepdim=True)
    span = maps_BHW.amax((1, 2), keepdim=True) - low
    return torch.where(span == 0, _FILL[flat], (maps_BHW - low) / span)


def ranked(heat_HW: NDArray[np.floating], ranks: Sequence[int]) -> list[float]:
    """The values at some places of the sorted map; NaN for each where the map holds a NaN."""
    values = heat_HW.ravel()
    if np.isnan(values).any():
        return [math.nan] * len(ranks)
    parted = np.partition(values, sorted(set(ranks)))
    return [float(parted[rank]) for rank in ranks]


def median_rank(pixels: int) -> int:
    """Where the threshold of the median rule stands in the sorted map: half of the pixels lie at or above it.

    The middle one of an odd number lies at the threshold too.
    """
    return pixels // 2


def area_rank(pixels: int, wanted: int) -> int:
    """The same for a mask of `wanted` pixels; half of the picture where none are wanted.

    Source: Senocak et al., TPAMI 2025 (SSLalignment `test.py`): the ground-truth-area threshold.
    """
    return pixels - wanted if wanted else median_rank(pixels)


def cut(heat_HW: NDArray[np.floating], threshold: float, comparison: str = ">=") -> NDArray[np.bool_]:
    """Boolean [H, W]: the pixels that compare with the threshold. NaN, on either side, is never inside."""
    value = heat_HW.dtype.type(threshold)
    return heat_HW >= value if comparison == ">=" else heat_HW > value
