"""AP, max F1 and LocAcc on extended test sets, in which some sounds have no visible source.

A pair of picture and sound is *sounding* if the source is visible, *silent* if not. Each pair has a confidence, the
height of its map; at or above a threshold the pair is predicted as sounding. There are two versions of each score:
ours, with every threshold and the usual recall, and that of SLAVC (Mo and Morgado 2022), behind published numbers.

Source: SLAVC `utils.py` (`EvaluatorFull`) and `test.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LOCATED = 0.5
"""Least cIoU of a correctly localized pair."""


def confidence(map_HW: NDArray[np.floating]) -> float:
    """Mean of the hottest quarter of the pixels of a map on a scale shared by all pairs; NaN for a map with a NaN.

    As in the published slice `np.sort(flat)[-n//4:]`, the quarter is rounded up.
    """
    ordered = np.sort(map_HW, axis=None)
    hottest = ordered[-len(ordered) // 4 :]
    return float(hottest.mean(dtype=np.float64)) if len(hottest) else float("nan")


@dataclass(frozen=True, kw_only=True)
class ExtendedScores:
    """Scores over `n_sounding` and `n_silent` pairs; fields with the prefix `slavc_` follow the published code."""

    n_sounding: int
    n_silent: int
    ap: float
    max_f1: float
    loc_acc: float
    slavc_ap: float
    slavc_max_f1: float
    slavc_loc_acc: float


def extended_scores(confidences: ArrayLike, cious: ArrayLike) -> ExtendedScores:
    """AP, max F1 and LocAcc, exact and as SLAVC computes them.

    Exact: every distinct confidence is a threshold. A pair at or above it is a true positive if it is sounding with a
    cIoU of 0.5 or more, else a false positive. Recall is over all sounding pairs, so one localized in the wrong place
    is a false negative too. AP sums the steps of recall times the largest precision at that recall or above. LocAcc is
    the share of sounding pairs with a cIoU of 0.5 or more, whatever their confidence.

    SLAVC: see `_slavc`; LocAcc needs a cIoU above 0.5 there.

    Args:
        confidences: [n]; NaN is below every threshold.
        cious: [n]; NaN marks a silent pair.

    Returns:
        Without sounding pairs `ap`, `max_f1` and both LocAcc are NaN, while SLAVC's AP and max F1 are 0. Without pairs
        all are NaN.

    Raises:
        ValueError: different lengths.
    """
    heights, scores = np.asarray(confidences, np.float64), np.asarray(cious, np.float64)
    if heights.shape != scores.shape:
        raise ValueError(f"{heights.shape} confidences for {scores.shape} cIoU")
    sounding = ~np.isnan(scores)
    located = scores >= LOCATED
    ap, max_f1 = _exact(heights, located, int(sounding.sum()))
    slavc_ap, slavc_max_f1 = _slavc(heights, sounding, located)
    return ExtendedScores(
        n_sounding=int(sounding.sum()),
        n_silent=int((~sounding).sum()),
        ap=ap,
        max_f1=max_f1,
        loc_acc=_share(located[sounding]),
        slavc_ap=slavc_ap,
        slavc_max_f1=slavc_max_f1,
        slavc_loc_acc=_share(scores[sounding] > LOCATED),
    )


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def _exact(confidences: NDArray[np.float64], located: NDArray[np.bool_], n_sounding: int) -> tuple[float, float]:
    """AP and max F1 over all thresholds; NaN without sounding pairs, 0 if all confidences are NaN."""
    if not n_sounding:
        return float("nan"), float("nan")
    able = ~np.isnan(confidences)
    levels, level = np.unique(confidences[able], return_inverse=True)
    claimed = np.bincount(level, minlength=len(levels))[::-1].cumsum()
    right = np.bincount(level[located[able]], minlength=len(levels))[::-1].cumsum()
    best_beyond = np.maximum.accumulate((right / claimed)[::-1])[::-1]
    ap = np.sum(best_beyond * np.diff(right / n_sounding, prepend=0.0))
    # 2PR / (P + R) with P = right / claimed and R = right / n_sounding
    max_f1 = np.max(2 * right / (claimed + n_sounding), initial=0.0)
    return float(ap), float(max_f1)


def _slavc(
    confidences: NDArray[np.float64], sounding: NDArray[np.bool_], located: NDArray[np.bool_]
) -> tuple[float, float]:
    """AP and max F1 as published.

    AP: thresholds are every (n // 200)th confidence from the second highest down; the first step of recall, from 0, is
    left out. Max F1: over every (n // 10)th confidence from the lowest up. Precision without predictions (1 in the
    published code) does not occur: each threshold is the confidence of a pair. Recall without positives is 1.
    """
    n = len(confidences)
    if not n:
        return float("nan"), float("nan")
    ordered = np.sort(confidences[~np.isnan(confidences)])

    def operate(threshold: float) -> tuple[float, float]:
        return _slavc_precision_recall(confidences >= threshold, sounding, located)

    curve = [operate(threshold) for threshold in ordered[:-1][:: -max(1, n // 200)]]
    ap = sum(
        max(precision for precision, _ in curve[step:]) * (curve[step + 1][1] - curve[step][1])
        for step in range(len(curve) - 1)
    )
    points = [operate(threshold) for threshold in ordered[:: max(1, n // 10)]]
    f1 = [2 * recall * precision / (recall + precision) if recall + precision else 0.0 for precision, recall in points]
    return float(ap), max(f1, default=0.0)


def _slavc_precision_recall(
    confident: NDArray[np.bool_], sounding: NDArray[np.bool_], located: NDArray[np.bool_]
) -> tuple[float, float]:
    """Precision and recall in which a confident pair in the wrong place is a false positive but no false negative."""
    right = int((confident & located).sum())
    claimed = int(confident.sum())
    missed = int((~confident & sounding).sum())
    return right / claimed, (right / (right + missed) if right + missed else 1.0)
