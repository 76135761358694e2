"""Similarity maps to heat maps and masks: resize, min-max, weighted sum, threshold.

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
    """Resize maps of any type to [B, H, W] float32.

    `how` is `bilinear-corners` or `bicubic-corners`: the centres of the outer cells are on the border
    (`align_corners`); or `bilinear-halfpixel`: cells are areas, bit-equal to OpenCV's linear resize on the reference
    maps.
    """
    mode, _, anchor = how.partition("-")
    grown = F.interpolate(maps_Bhw.float().unsqueeze(1), size=size, mode=mode, align_corners=anchor == "corners")
    return grown.squeeze(1)


def heat_maps(maps_Bhw: Tensor, size: tuple[int, int], how: str = "bilinear-corners", flat: str = "zeros") -> Tensor:
    """Resize maps and scale each to [0, 1] by its own minimum and maximum.

    Args:
        maps_Bhw: similarity or activation maps.
        size: height and width of the result in pixels.
        how: see `resize`.
        flat: value of a constant map, `zeros` or `nan`.

    Returns:
        [B, H, W] float32. A map with a NaN is NaN throughout; one with an infinity has a NaN somewhere, so that
        `order_statistics` gives no threshold for it. A map does not depend on the others in the batch.

    Source: EZ-VSL and AVC `test.py`; the other rules are those of `avloc.protocols`.
    """
    # Contrast is that of the cells: min-max would amplify the rounding errors of interpolation to a pattern.
    # By a difference, so that a map of infinities is not constant.
    contrast = maps_Bhw.amax((1, 2), keepdim=True) - maps_Bhw.amin((1, 2), keepdim=True)
    return torch.where(contrast == 0, _FILL[flat], min_max(resize(maps_Bhw, size, how), flat))


def fuse(maps: Sequence[Tensor], weights: Sequence[float], flat: str = "zeros") -> Tensor:
    """Weighted sum of heat maps [B, H, W], scaled to [0, 1] again. Weights are in the order of the maps."""
    terms = [weight * heat for weight, heat in zip(weights, maps, strict=True)]
    return min_max(torch.stack(terms).sum(0), flat)


def min_max(maps_BHW: Tensor, flat: str) -> Tensor:
    """Scale maps [B, H, W] to [0, 1], each by its own minimum and maximum; `flat` as in `heat_maps`."""
    low = maps_BHW.amin((1, 2), keepdim=True)
    span = maps_BHW.amax((1, 2), keepdim=True) - low
    return torch.where(span == 0, _FILL[flat], (maps_BHW - low) / span)


def order_statistics(heat_HW: NDArray[np.floating], ranks: Sequence[int]) -> list[float]:
    """Values at ranks of the sorted map; NaN for each if the map has a NaN."""
    values = heat_HW.ravel()
    if np.isnan(values).any():
        return [math.nan] * len(ranks)
    parted = np.partition(values, sorted(set(ranks)))
    return [float(parted[rank]) for rank in ranks]


def median_rank(pixels: int) -> int:
    """Rank of the median threshold: half of the pixels are at or above it, of an odd number the larger half."""
    return pixels // 2


def area_rank(pixels: int, wanted: int) -> int:
    """Rank of the threshold for a mask of `wanted` pixels; that of the median for 0.

    Source: Senocak et al., TPAMI 2025 (SSLalignment `test.py`): the ground-truth-area threshold.
    """
    return pixels - wanted if wanted else median_rank(pixels)


def threshold_mask(heat_HW: NDArray[np.floating], threshold: float, comparison: str = ">=") -> NDArray[np.bool_]:
    """Boolean [H, W]: the pixels `>=` or `>` the threshold. NaN on either side is outside."""
    value = heat_HW.dtype.type(threshold)
    return heat_HW >= value if comparison == ">=" else heat_HW > value
