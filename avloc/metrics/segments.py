"""IoU and F-score of masks against masks, the metrics of audio-visual segmentation.

*mIoU* of a set is the mean of `intersection_over_union`, *F-score* is `max_f` of its curves.

Source: AVSBench `avs_scripts/avs_s4/utils/utility.py` (`mask_iou`, `Eval_Fmeasure`); differences are named below.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BETA_SQUARED = 0.3
"""Weight of recall against precision in the F-score."""
F_THRESHOLDS: NDArray[np.float64] = np.linspace(0, 1 - 1e-10, 255)
"""Thresholds of the F-score's curve; the last is below 1, so that a pixel at 1 is above all of them."""


def intersection_over_union(masks: NDArray[np.bool_], truths: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection over union of pairs of masks.

    1 for two empty masks. With an empty truth AVSBench takes the share of pixels outside the predicted mask; here it is
    0 unless the predicted mask is empty too.

    Args:
        masks: [..., H, W].
        truths: [..., H, W].

    Returns:
        [...] in [0, 1]; 0-dimensional for one pair.
    """
    both = (masks & truths).sum((-2, -1))
    either = (masks | truths).sum((-2, -1))
    shares: NDArray[np.float64] = np.divide(both, either, out=np.ones(np.shape(either)), where=either > 0)
    return shares


def f_curves(heats: NDArray[np.floating], truths: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F-score of each map at each of `F_THRESHOLDS`; a pixel is inside if its heat is at or above the threshold.

    Compared in double precision; AVSBench's thresholds are single.

    Args:
        heats: [B, H, W] in [0, 1]; NaN pixels are never inside.
        truths: [B, H, W] bool.

    Returns:
        [B, 255] float64: (1 + b) P R / (b P + R) with b = 0.3, and 0 without true positives. NaN for an empty truth,
        which AVSBench leaves out too.
    """
    curves = np.full((len(heats), len(F_THRESHOLDS)), np.nan)
    for curve, heat, truth in zip(curves, heats, truths, strict=True):
        if truth.any():
            hit, marked = _reaching(heat[truth]), _reaching(heat.ravel())
            # The formula with P = hit / marked and R = hit / area: no division by zero.
            curve[:] = (1 + BETA_SQUARED) * hit / (BETA_SQUARED * truth.sum() + marked)
    return curves


def max_f(curves: NDArray[np.float64]) -> float:
    """Maximum of the mean curve of a data set.

    AVSBench takes the maximum per batch, so its result depends on the batch size.

    Args:
        curves: [n, 255] from `f_curves`; rows of NaN (empty truths) are left out.

    Returns:
        NaN without rows.
    """
    scored = curves[~np.isnan(curves).any(1)]
    return float(scored.mean(0).max()) if len(scored) else float("nan")


def _reaching(heats: NDArray[np.floating]) -> NDArray[np.int64]:
    """[255] number of values at or above each of `F_THRESHOLDS`."""
    ordered = np.sort(heats[~np.isnan(heats)])
    return len(ordered) - np.searchsorted(ordered, F_THRESHOLDS)
