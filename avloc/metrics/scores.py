"""Ground truth, cIoU and what is made of it. Pure functions of arrays.

*cIoU* of one picture is a consensus intersection over union; *cIoU@0.5* the share of pictures that reach 0.5 ("AP50"
or simply "cIoU" in the published tables); *AUC* the area under that share as the bar moves from 0 to 1; *mean cIoU*
the plain mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AUC_THRESHOLDS = tuple(0.05 * step for step in range(21))
"""Bars of the success curve; the float products are the published code's own."""


def ground_truth(boxes: NDArray[np.float64], rule: str, side: int) -> NDArray[np.float32]:
    """Boxes as a map.

    Args:
        boxes: [n, 4] x0, y0, x1, y1 in fractions of the picture; clipped to [0, 1], empty ones count for nothing.
        rule: `union` gives 1 inside any box (VGG-SS); `consensus` adds up the boxes, halves and clips at 1, so that two
            annotators must agree for a full 1 (Flickr-SoundNet).
        side: height and width of the map in pixels; corners are truncated to whole pixels, ranges half-open.

    Returns:
        [side, side] float32 in {0, 0.5, 1}.
    """
    count = np.zeros((side, side), np.float32)
    for x0, y0, x1, y1 in (side * np.clip(boxes, 0, 1)).astype(np.int64):
        count[y0:y1, x0:x1] += 1
    return np.minimum(count / 2 if rule == "consensus" else count, 1)


def ciou(masks: NDArray[np.bool_], truths: NDArray[np.float32]) -> NDArray[np.float64]:
    """Consensus intersection over union of each mask with its ground truth.

    Args:
        masks: [B, H, W] bool.
        truths: [B, H, W] in [0, 1]. Mask pixels count against the score only where the truth is 0.

    Returns:
        [B] float64: sum(mask * truth) / (sum(truth) + sum(mask where truth is 0)); 0 for an empty truth.

    Source: Senocak et al. 2018; EZ-VSL `utils.py`.
    """
    truths = truths.astype(np.float64)
    hit = (masks * truths).sum((1, 2))
    whole = truths.sum((1, 2)) + (masks & (truths == 0)).sum((1, 2))
    scores: NDArray[np.float64] = np.divide(hit, whole, out=np.zeros_like(hit), where=whole > 0)
    return scores


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Scores of one kind of map over `n` pictures."""

    n: int
    ciou_50: float
    auc: float
    mean_ciou: float


def summarise(scores: Sequence[float] | NDArray[np.float64]) -> Summary:
    """cIoU@0.5, AUC and mean cIoU of per-picture scores; NaN for none at all."""
    values = np.asarray(scores, np.float64)
    if not len(values):
        return Summary(n=0, ciou_50=float("nan"), auc=float("nan"), mean_ciou=float("nan"))
    curve = success_curve(values)
    return Summary(
        n=len(values),
        ciou_50=float(np.mean(values >= 0.5)),
        auc=float(np.trapezoid(curve, AUC_THRESHOLDS)),
        mean_ciou=float(values.mean()),
    )


def success_curve(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """[21] share of pictures whose cIoU reaches each of `AUC_THRESHOLDS`."""
    return np.array([np.mean(scores >= bar) for bar in AUC_THRESHOLDS])
