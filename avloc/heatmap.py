"""Similarity maps to heat maps and masks: the only place where a map is resized, normalised, fused or cut.

Shape letters: B batch, h w cells, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

FUSED_WEIGHTS: Mapping[str, float] = {"av": 0.6, "object": 0.4}
"""OG-AVC: weights of the audio-visual map and the object prior (paper, section 3.5)."""


def resize(maps_Bhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps at another size [B, H, W], bilinear with corners aligned: the outer cells' centres lie on the border."""
    return F.interpolate(maps_Bhw.float().unsqueeze(1), size=size, mode="bilinear", align_corners=True).squeeze(1)


def heat_maps(maps_Bhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (bilinear, corners aligned) and bring each to [0, 1] by its own minimum and maximum.

    Args:
        maps_Bhw: similarity or activation maps; only their order and ratios of differences matter.
        size: height and width of the result in pixels.

    Returns:
        [B, H, W] float32. A flat map becomes all zeros. A map never depends on its neighbours in the batch.

    Source: EZ-VSL and AVC `test.py`.
    """
    # Flatness is judged on the cells: interpolation's rounding errors would otherwise be blown up to a pattern.
    flat = maps_Bhw.amax((1, 2), keepdim=True) == maps_Bhw.amin((1, 2), keepdim=True)
    return torch.where(flat, 0.0, _min_max(resize(maps_Bhw, size)))


def fuse(maps: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted sum of heat maps [B, H, W], brought to [0, 1] again. Weights belong to the maps in order."""
    terms = [weight * heat for weight, heat in zip(weights, maps, strict=True)]
    return _min_max(torch.stack(terms).sum(0))


def median_masks(heat_BHW: Tensor) -> Tensor:
    """Boolean [B, H, W]: pixels at or above the value at rank H*W/2 of the sorted map: half if no values tie."""
    flat = heat_BHW.flatten(1)
    rank = flat.shape[1] // 2
    threshold = flat.sort(1).values[:, rank]
    return heat_BHW >= threshold[:, None, None]


def _min_max(maps_BHW: Tensor) -> Tensor:
    low = maps_BHW.amin((1, 2), keepdim=True)
    span = maps_BHW.amax((1, 2), keepdim=True) - low
    return torch.where(span > 0, (maps_BHW - low) / span, 0.0)
