"""Similarity maps to heat maps and masks: resize, min-max, weighted sum, threshold.

Shape letters: B batch, h w cells, H W pixels, P = H x W, K thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_FLAT_SPAN = {"zeros": 1.0, "nan": math.nan}
"""Divisor of a constant map whose values are all 0."""
_BINS = 1024


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
    return min_max(resize(torch.where(contrast == 0, 0, maps_Bhw), size, how), flat)


def fuse(maps: Sequence[Tensor], weights: Sequence[float], flat: str = "zeros") -> Tensor:
    """Weighted sum of heat maps [B, H, W], scaled to [0, 1] again. Weights are in the order of the maps."""
    return min_max(reduce(torch.add, [weight * heat for weight, heat in zip(weights, maps, strict=True)]), flat)


def min_max(maps_BHW: Tensor, flat: str) -> Tensor:
    """Scale maps [B, H, W] to [0, 1], each by its own minimum and maximum; `flat` as in `heat_maps`."""
    low = maps_BHW.amin((1, 2), keepdim=True)
    span = maps_BHW.amax((1, 2), keepdim=True) - low
    return (maps_BHW - low).div_(torch.where(span == 0, _FLAT_SPAN[flat], span))


def order_statistics(heats_BP: Tensor, ranks_BK: NDArray[np.int64]) -> Tensor:
    """[B, K] values at ranks of each sorted map with values in [0, 1]; NaN for a map with a NaN."""
    if heats_BP.device.type == "cpu":
        return torch.from_numpy(np.stack([*map(_ranked, heats_BP.numpy(), ranks_BK)]))
    return _ranked_by_bits(heats_BP, torch.from_numpy(ranks_BK).to(heats_BP.device))


def _ranked_by_bits(heats_BP: Tensor, ranks_BK: Tensor) -> Tensor:
    """Values at ranks on a GPU, without a sort: their bits, which are ordered as the values are, from the highest."""
    bits = heats_BP.view(torch.int32)[:, None]
    found = torch.zeros_like(ranks_BK, dtype=torch.int32)
    for bit in range(29, -1, -1):  # 1.0 has 30
        higher = found | 1 << bit
        below = (bits < higher[:, :, None]).sum(2)
        found = torch.where(below <= ranks_BK, higher, found)
    return found.view(torch.float32).masked_fill(heats_BP.amax(1, keepdim=True).isnan(), math.nan)


def _ranked(values: NDArray[np.float32], ranks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Values at ranks, by a histogram and a selection inside the bin: in half the time of `np.partition`."""
    if np.isnan(values.max()):
        return np.full(len(ranks), np.nan, np.float32)
    bins = (values * np.float32(_BINS - 1)).astype(np.uint16)
    ends = np.bincount(bins, minlength=_BINS).cumsum()
    found = []
    for rank, bin_ in zip(ranks, ends.searchsorted(ranks, "right"), strict=True):
        inside = values[bins == bin_]
        place = rank - (ends[bin_] - len(inside))
        found.append(np.partition(inside, place)[place])
    return np.array(found)


def peaks(heats_BP: Tensor) -> Tensor:
    """[B] index of the first of the largest values of each map, or of its first NaN."""
    if heats_BP.device.type == "cpu":  # where NumPy takes a tenth of the time
        return torch.from_numpy(heats_BP.numpy().argmax(1))
    return heats_BP.argmax(1)


def median_rank(pixels: int) -> int:
    """Rank of the median threshold: half of the pixels are at or above it, of an odd number the larger half."""
    return pixels // 2


def area_ranks(pixels: int, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ranks of the thresholds for masks of `wanted` pixels; that of the median for 0.

    Source: Senocak et al., TPAMI 2025 (SSLalignment `test.py`): the ground-truth-area threshold.
    """
    return np.where(wanted > 0, pixels - wanted, median_rank(pixels))


def threshold_masks(heats_BP: Tensor, thresholds_BK: Tensor, comparison: str = ">=") -> Tensor:
    """[B, K, P] float32: 1 for pixels `>=` or `>` each threshold of their map, else 0. NaN on either side gives 0."""
    compare = torch.ge if comparison == ">=" else torch.gt
    masks = heats_BP.new_empty((*thresholds_BK.shape, heats_BP.shape[1]))
    return compare(heats_BP[:, None], thresholds_BK[:, :, None], out=masks)  # floats are compared several times faster
