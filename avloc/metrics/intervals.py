"""How far a score would move with another draw of test clips: the bootstrap.

cIoU@0.5, AUC and mean cIoU are each the mean of one value a clip has, so a resampled score is the sum of those values
weighted by how often each clip was drawn. One table of such counts serves every score of every map over n clips; two
maps compared on the same draws make a paired test.

The clips are the only source of chance here. What another training seed would change is not covered.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avloc.metrics.localization import AUC_THRESHOLDS

METRICS = ("ciou_50", "auc", "mean_ciou")
"""What `interval` and `paired_difference` speak about, in this order; the names of `Summary`."""
RESAMPLES = 1000
SEED = 0
COVERAGE = 95
"""Percent of the resampled scores inside the interval, the rest left out evenly at both ends."""


def interval(scores: ArrayLike, success: str = ">=") -> dict[str, list[float]]:
    """95 % percentile intervals of the summary scores.

    The same scores in the same order give the same numbers: the draws are seeded. Clips that all score alike give an
    interval without width; that is all the sample knows, not a certainty.

    Args:
        scores: [n] cIoU of the clips in an order of their own (by id), so that batches and shuffling change nothing.
        success: how a score has to compare with 0.5, as in `summarise`.

    Returns:
        For each of `METRICS` the lower and the upper end. NaN for fewer than two clips, which say nothing of spread.

    Raises:
        ValueError: a score is NaN.
    """
    resampled = _resampled(_clip_values(scores, success))
    return {name: [*map(float, _ends(drawn))] for name, drawn in zip(METRICS, resampled, strict=True)}


def paired_difference(a: ArrayLike, b: ArrayLike, success: str = ">=") -> dict[str, dict[str, float]]:
    """Scores of `a` minus scores of `b` over the same clips, with 95 % percentile intervals and p.

    p is two-sided: twice the share of resampled differences on the rarer side of zero, at most 1. Differences of
    exactly zero count on both sides, and one is added to the count and to the number of draws, as the sample itself is
    one possible draw. So p is never 0; the smallest is 2 / 1001.

    Args:
        a: [n] cIoU of the clips.
        b: [n] cIoU of the same clips in the same order.
        success: how a score has to compare with 0.5, as in `summarise`.

    Returns:
        For each of `METRICS` `difference`, `low`, `high` and `p`. NaN for no clips; with one clip only `difference` is
        a number.

    Raises:
        ValueError: different lengths, or a score is NaN.
    """
    left, right = _clip_values(a, success), _clip_values(b, success)
    if left.shape != right.shape:
        raise ValueError(f"{left.shape[1]} scores against {right.shape[1]}: a pair needs the same clips")
    values = left - right
    # Twelve decimals: what is left of equal sums by rounding alone is no difference.
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
    """[3, n] the values whose means over the clips are `METRICS`; AUC's is the area under the clip's own curve."""
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
    # einsum sums in one fixed order; a BLAS product may change its last bit with the number of threads.
    means: NDArray[np.float64] = np.einsum("mn,rn->mr", values, _counts(n)) / n
    return means


@lru_cache(maxsize=8)
def _counts(n: int) -> NDArray[np.uint16]:
    """[RESAMPLES, n] how often each of n clips is drawn, n times with replacement. Two bytes each: 10 MB for 5158."""
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
