"""Ground truth, cIoU and the scores based on it.

*cIoU* of one picture is its consensus intersection over union; *cIoU@0.5* the share of pictures that reach 0.5 ("AP50"
or "cIoU" in the published tables); *AUC* the area under that share over thresholds from 0 to 1; *mean cIoU* the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AUC_THRESHOLDS = tuple(0.05 * step for step in range(21))
"""Thresholds of the success curve, float products as in the published code."""

SIZES = (("small", 32), ("medium", 96), ("large", 144))
"""Truths of fewer than side*side pixels on a square of 224, smallest first; others are `huge` (SLAVC `utils.py`)."""
_SIZE_SIDE = 224


def ground_truth(boxes: NDArray[np.float64], rule: str, side: int) -> NDArray[np.float32]:
    """Ground-truth map of boxes.

    Args:
        boxes: [n, 4] x0, y0, x1, y1 in fractions of the picture; clipped to [0, 1], empty boxes are ignored.
        rule: `union`: 1 inside any box (VGG-SS); `consensus`: half the number of boxes, at most 1, so that two
            annotators must agree for 1 (Flickr-SoundNet).
        side: height and width of the map in pixels; corners are truncated to whole pixels, ranges half-open.

    Returns:
        [side, side] float32 in {0, 0.5, 1}.
    """
    count = np.zeros((side, side), np.float32)
    for x0, y0, x1, y1 in (side * np.clip(boxes, 0, 1)).astype(np.int64):
        count[y0:y1, x0:x1] += 1
    return np.minimum(count / 2 if rule == "consensus" else count, 1)


def mask_truth(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """A mask [h, w] as a truth map [side, side], by nearest neighbour at pixel centres."""
    rows, columns = (((np.arange(side) + 0.5) * length / side).astype(np.int64) for length in mask.shape)
    return mask[np.ix_(rows, columns)].astype(np.float32)


def size_of(weight: float) -> str:
    """`small`, `medium`, `large` or `huge`, by the mean of a truth map.

    Pixels on which annotators disagree count half, as in SLAVC.
    """
    # Rounded, because 1024 / 50176 * 50176 < 1024 in floating point.
    pixels = round(weight * _SIZE_SIDE**2, 6)
    return next((name for name, side in SIZES if pixels < side**2), "huge")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Scores of one kind of map over `n` pictures."""

    n: int
    ciou_50: float
    auc: float
    mean_ciou: float
    curve: list[float]
    """Share of pictures that reach each of `AUC_THRESHOLDS`; empty without pictures."""


def summarise(scores: Sequence[float] | NDArray[np.float64], success: str = ">=") -> Summary:
    """cIoU@0.5, AUC and mean cIoU of the cIoU of each picture; NaN without pictures.

    `success` is the comparison with 0.5 in cIoU@0.5: `>=` or `>`.
    """
    values = np.asarray(scores, np.float64)
    if not len(values):
        return Summary(n=0, ciou_50=float("nan"), auc=float("nan"), mean_ciou=float("nan"), curve=[])
    curve = success_curve(values)
    return Summary(
        n=len(values),
        ciou_50=float(np.mean(values >= 0.5 if success == ">=" else values > 0.5)),
        auc=float(np.trapezoid(curve, AUC_THRESHOLDS)),
        mean_ciou=float(values.mean()),
        curve=curve.tolist(),
    )


def success_curve(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """[21] share of pictures whose cIoU reaches each of `AUC_THRESHOLDS`."""
    return np.array([np.mean(scores >= bar) for bar in AUC_THRESHOLDS])


@dataclass(frozen=True, kw_only=True, slots=True)  # an evaluation holds hundreds of thousands of them
class ClipScore:
    """One map against one truth."""

    ciou: float
    """cIoU under the protocol's threshold."""
    area_ciou: float
    """cIoU with as many of the hottest pixels as the truth has (ground-truth-area threshold)."""
    hit: bool
    """Whether the hottest pixel, the first of equal ones, lies inside the truth (pointing game); False for a constant
    map or one with a NaN."""
    iou: float = float("nan")
    """Plain IoU of mask and truth, if the truth is a mask."""
