"""Negative audio: pictures with silence, noise or the sound of another class, where nothing should be localized.

Maps are cut by one *universal* threshold on the raw similarity of all pictures and sounds, since a threshold per map
always marks something. All scores are in [0, 1]; the source prints percent.

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


def share_above(maps: NDArray[np.floating], threshold: float) -> NDArray[np.float64]:
    """pIA: share [...] of each similarity map [..., H, W] that is above the threshold.

    Compared strictly and in double precision; NaN pixels are not above, and nothing is above NaN.
    """
    # A Python float would be rounded to the map's precision.
    return np.asarray((maps > np.float64(threshold)).mean((-2, -1)))


def negative_auc(shares: ArrayLike) -> float:
    """AUC_N: area under the share of pictures whose pIA [n] is at or below a threshold, over thresholds from 0 to 1.

    1 if every pIA is 0, 0.025 (half of the last step) if every pIA is 1; NaN without pictures.
    """
    values = np.asarray(shares, np.float64)
    if not len(values):
        return float("nan")
    return float(np.trapezoid([np.mean(values <= bar) for bar in AUC_THRESHOLDS], AUC_THRESHOLDS))


def universal_thresholds(peaks: ArrayLike) -> dict[str, float]:
    """Universal thresholds from the peaks of negative sounds, by name.

    `max` is the largest peak, `max10` is 1.1 times that, `maxq3` the third quartile of the peaks (linear between
    ranks); NaN without peaks. At `max` no negative is marked by definition; for negative peaks `max10` is below `max`.

    The published thresholds are constants in `eval.py`, without the code behind them. There `maxq3` exceeds `max` for
    every model (EZ-VSL 0.6382 and 0.6041), which no quartile of the same peaks can: their definition differs, and pIA
    at `max` is not comparable with theirs.

    Args:
        peaks: [n] maximum of each negative's map; NaN is ignored.
    """
    values = np.asarray(peaks, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return dict.fromkeys(("max", "max10", "maxq3"), float("nan"))
    largest = float(values.max())
    return {"max": largest, "max10": 1.1 * largest, "maxq3": float(np.quantile(values, 0.75))}


def harmonic(a: float, b: float) -> float:
    """Harmonic mean of two non-negative numbers; 0 if both are 0."""
    return 2 * a * (b / (a + b)) if a + b else 0.0


@dataclass(frozen=True, kw_only=True)
class NegativeScores:
    """Scores of one model at one universal threshold.

    `ciou_50`, `auc` and `mean_ciou` are of the `n` pictures with their own sound; `pia`, `auc_n` and `overlap` have a
    mean (an area for `auc_n`) per kind of negative sound. `f_loc` is the harmonic mean of cIoU@0.5 and the mean of
    1 - pIA over the kinds, `f_auc` that of AUC and the mean AUC_N. `f_loc_mean` takes mean cIoU instead of cIoU@0.5, as
    the published code does (`compute_metrics`).
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
    """Aggregate per-picture values at one threshold.

    Args:
        rule: name of the threshold, such as `maxq3`.
        threshold: its value.
        cious: [n] of the pictures with their own sound.
        pias: for each kind of negative sound [m] pIA.
        overlaps: for each kind [m] IoU with the mask under the picture's own sound; 1 for a model that ignores the
            sound, and if both masks are empty, as published.

    Returns:
        A kind without pictures has NaN and is left out of the means; without kinds or pictures all F are NaN.
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
