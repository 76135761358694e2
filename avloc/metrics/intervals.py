"""Bootstrap intervals and paired tests of scores over test clips.

cIoU@0.5, AUC and mean cIoU are means of one value per clip, so a resampled score is the mean of those values weighted
by how often each clip was drawn. All scores over n clips use the same draws, as a paired test needs.

Only the sampling of clips is covered, not the variance over training seeds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avloc.metrics.localization import AUC_THRESHOLDS

METRICS = ("ciou_50", "auc", "mean_ciou")
"""Scores of `interval` and `paired_difference`, fields of `Summary`."""
RESAMPLES = 1000
SEED = 0
COVERAGE = 95
"""Percent of the resampled scores inside the interval, which is equal-tailed."""


def interval(scores: ArrayLike, success: str = ">=") -> dict[str, list[float]]:
    """95 % percentile intervals of the summary scores.

    The draws are seeded: the same scores in the same order give the same intervals.

    Args:
        scores: [n] cIoU of the clips, in a fixed order (by id).
        success: comparison with 0.5, as in `summarise`.

    Returns:
        For each of `METRICS` the lower and the upper end; NaN for fewer than two clips.

    Raises:
        ValueError: a score is NaN.
    """
    resampled = _resampled(_clip_values(scores, success))
    return {name: [*map(float, _ends(drawn))] for name, drawn in zip(METRICS, resampled, strict=True)}


def paired_difference(a: ArrayLike, b: ArrayLike, success: str = ">=") -> dict[str, dict[str, float]]:
    """Scores of `a` minus scores of `b` over the same clips, with 95 % percentile intervals and p.

    p is two-sided: twice the share of resampled differences on the rarer side of zero, at most 1. Zeros count on both
    sides, and one is added to the count and to the number of draws, as the sample itself is one draw: the smallest p is
    2 / 1001.

    Args:
        a: [n] cIoU of the clips.
        b: [n] cIoU of the same clips in the same order.
        success: comparison with 0.5, as in `summarise`.

    Returns:
        For each of `METRICS` `difference`, `low`, `high` and `p`. All NaN without clips; with one clip, all but
        `difference`.

    Raises:
        ValueError: different lengths, or a score is NaN.
    """
    left, right = _clip_values(a, success), _clip_values(b, success)
    if left.shape != right.shape:
        raise ValueError(f"{left.shape[1]} scores against {right.shape[1]}: a pair needs the same clips")
    values = left - right
    # Twelve decimals, so that rounding errors of equal sums are no difference.
    resampled = np.round(_resampled(values), 12)
    return {
        name: {
            "difference": float(own.mean()) if len(own) else float("nan"),
            **dict(zip(("low", "high"), map(float, _ends(drawn)), strict=True)),
            "p": _two_sided(drawn),
        }
        for name, own, drawn in zip(METRICS, values, resampled, strict=True)
    }


def _clip_values(scores: ArrayLike, success: str) -> NDArray[np.float64]:
    """[3, n] values whose means over the clips are `METRICS`; for AUC the area under the clip's own curve."""
    values = np.asarray(scores, np.float64)
    if np.isnan(values).any():
        raise ValueError("a NaN is no score: leave the clip out or score it 0")
    reached = (values[:, None] >= np.array(AUC_THRESHOLDS)).astype(np.float64)
    half = values >= 0.5 if success == ">=" else values > 0.5
    return np.stack([half, np.trapezoid(reached, AUC_THRESHOLDS, axis=1), values])


def _resampled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3, RESAMPLES] means over resampled clips; NaN for fewer than two clips."""
    n = values.shape[1]
    if n < 2:
        return np.full((len(values), RESAMPLES), np.nan)
    # einsum has a fixed order of summation; BLAS may differ in the last bit with the number of threads.
    means: NDArray[np.float64] = np.einsum("mn,rn->mr", values, _counts(n)) / n
    return means


@lru_cache(maxsize=8)
def _counts(n: int) -> NDArray[np.uint16]:
    """[RESAMPLES, n] counts of each of n clips in n draws with replacement; uint16, 10 MB for 5158 clips."""
    draws = np.random.default_rng(SEED)
    counts = np.empty((RESAMPLES, n), np.uint16)
    for row in counts:
        row[:] = np.bincount(draws.integers(n, size=n), minlength=n)
    counts.flags.writeable = False
    return counts


def _ends(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    tail = (100 - COVERAGE) / 2
    return np.percentile(drawn, [tail, 100 - tail])


def _two_sided(drawn: NDArray[np.float64]) -> float:
    if np.isnan(drawn).any():
        return float("nan")
    rarer = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(drawn) + 1))
