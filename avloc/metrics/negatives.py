"""The same picture with a sound that is not in it: silence, noise, a sound of another class. A good map stays cold.

Maps are cut by one *universal* threshold for all pictures and sounds, on the raw similarity: a threshold of each map's
own always marks something. All scores are in 0..1; the source prints percents.

Source: Juanola et al., "A Critical Assessment of Visual Sound Source Localization Models Including Negative Audio",
ICASSP 2025; vssl_eval `utils_dir/eval_utils.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avloc.metrics.localization import AUC_THRESHOLDS, summarise
from avloc.metrics.segments import intersection_over_union


def share_above(maps: NDArray[np.floating], threshold: float) -> NDArray[np.float64]:
    """pIA: share of the picture that is marked.

    Args:
        maps: [..., H, W] similarity. A NaN pixel is never marked.
        threshold: pixels strictly above it are marked, compared in double precision. At NaN nothing is.

    Returns:
        [...] float64 in [0, 1]; 0-dimensional for one map.
    """
    # A plain float would be rounded to the map's precision first.
    return np.asarray((maps > np.float64(threshold)).mean((-2, -1)))


def negative_auc(shares: ArrayLike) -> float:
    """AUC_N: area under the share of pictures whose pIA is at or below a bar that moves from 0 to 1.

    Args:
        shares: [n] pIA.

    Returns:
        1 if nothing is marked anywhere, 0.025 (the half of the last step) if everything is; NaN for no pictures.
    """
    values = np.asarray(shares, np.float64)
    if not len(values):
        return float("nan")
    return float(np.trapezoid([np.mean(values <= bar) for bar in AUC_THRESHOLDS], AUC_THRESHOLDS))


def universal_thresholds(peaks: ArrayLike) -> dict[str, float]:
    """Thresholds above what negative sounds reach, by name.

    `max` is the largest peak, `max10` is 1.1 times that, `maxq3` the third quartile of the peaks (linear between
    ranks). At `max` no negative is marked, by definition; with peaks below zero `max10` lies lower than `max`.

    The published thresholds are numbers typed into `eval.py`, without the code that found them. There `maxq3` exceeds
    `max` for every model (EZ-VSL 0.6382 and 0.6041), which no quartile of the same peaks can; so their numbers are of
    another reading, and pIA at `max` is not comparable with theirs.

    Args:
        peaks: [n] largest value of each negative's map. NaN is left out.

    Returns:
        `max`, `max10`, `maxq3`; NaN where there are no peaks.
    """
    values = np.asarray(peaks, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return dict.fromkeys(("max", "max10", "maxq3"), float("nan"))
    largest = float(values.max())
    return {"max": largest, "max10": 1.1 * largest, "maxq3": float(np.quantile(values, 0.75))}


def harmonic(a: float, b: float) -> float:
    """Harmonic mean of two numbers that are not negative; 0 if both are 0."""
    return 2 * a * (b / (a + b)) if a + b else 0.0


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How little a map moves when the sound changes: IoU of the masks [..., H, W] of one picture under two sounds.

    1 where both are empty, as published. A model that does not listen has 1 everywhere.
    """
    return intersection_over_union(a, b)


@dataclass(frozen=True, kw_only=True)
class NegativeScores:
    """Scores of one model at one universal threshold.

    `ciou_50`, `auc` and `mean_ciou` are of the `n` pictures with their own sound; `pia`, `auc_n` and `overlap` have a
    mean (an area for `auc_n`) for each kind of negative sound. `f_loc` weighs cIoU@0.5 against the mean of 1 - pIA over
    the kinds, `f_auc` AUC against the mean AUC_N. `f_loc_mean` takes the mean cIoU in place of cIoU@0.5: the published
    code (`compute_metrics`) does.
    """

    threshold_rule: str
    threshold: float
    n: int
    ciou_50: float
    auc: float
    mean_ciou: float
    pia: dict[str, float]
    auc_n: dict[str, float]
    overlap: dict[str, float]
    f_loc: float
    f_auc: float
    f_loc_mean: float


def negative_scores(
    rule: str,
    threshold: float,
    cious: ArrayLike,
    pias: Mapping[str, ArrayLike],
    overlaps: Mapping[str, ArrayLike],
) -> NegativeScores:
    """Put per-picture numbers at one threshold together.

    Args:
        rule: name of the threshold, such as `maxq3`.
        threshold: its value.
        cious: [n] of the pictures with their own sound.
        pias: for each kind of negative sound [m] pIA.
        overlaps: for each kind [m] `overlap` with the mask under the picture's own sound.

    Returns:
        A kind without pictures has NaN and is left out of the means; without any kind, or without pictures, both F are
        NaN.
    """
    own = summarise(np.asarray(cious, np.float64))
    pia = {kind: _mean(values) for kind, values in pias.items()}
    auc_n = {kind: negative_auc(values) for kind, values in pias.items()}
    stillness = 1 - _mean_over_kinds(pia)
    return NegativeScores(
        threshold_rule=rule,
        threshold=threshold,
        n=own.n,
        ciou_50=own.ciou_50,
        auc=own.auc,
        mean_ciou=own.mean_ciou,
        pia=pia,
        auc_n=auc_n,
        overlap={kind: _mean(values) for kind, values in overlaps.items()},
        f_loc=harmonic(own.ciou_50, stillness),
        f_auc=harmonic(own.auc, _mean_over_kinds(auc_n)),
        f_loc_mean=harmonic(own.mean_ciou, stillness),
    )


def _mean(values: ArrayLike) -> float:
    array = np.asarray(values, np.float64)
    return float(array.mean()) if len(array) else float("nan")


def _mean_over_kinds(scores: Mapping[str, float]) -> float:
    known = [score for score in scores.values() if not math.isnan(score)]
    return fmean(known) if known else float("nan")
