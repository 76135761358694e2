"""The score of one heat map against one annotation; validation during training and `avloc eval` share it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avloc.engine.inference import ClipCells
from avloc.heatmap import area_rank, median_rank, order_statistics, threshold_mask
from avloc.media.pictures import decode_mask
from avloc.metrics import ClipScore, Truth, ground_truth, intersection_over_union, mask_truth
from avloc.protocols import Protocol


@dataclass(frozen=True, kw_only=True)
class ScoredMask:
    """A heat map under a protocol's threshold."""

    mask: NDArray[np.bool_]
    """[side, side] pixels inside."""
    score: ClipScore


def truth_of(cells: ClipCells, protocol: Protocol, box_rule: str) -> Truth:
    """The ground truth of a clip under a protocol.

    Args:
        cells: with boxes or a mask.
        protocol: which boxes count, and the side of the square.
        box_rule: how boxes become a map (`avloc.metrics.ground_truth`); unused for masks.
    """
    if cells.mask:
        return Truth(mask_truth(decode_mask(cells.mask), protocol.side))
    boxes = cells.boxes[:1] if protocol.boxes == "first" else cells.boxes
    return Truth(ground_truth(boxes, box_rule, protocol.side))


def score_heat(heat: NDArray[np.float32], truth: Truth, protocol: Protocol, *, is_mask: bool = False) -> ScoredMask:
    """Threshold a heat map [side, side] by the protocol and compare the mask with the truth.

    Args:
        heat: in [0, 1]; rule `half` compares with 0.5.
        truth: of the same size.
        protocol: threshold and comparison.
        is_mask: the truth is a mask, for which the plain IoU is defined too.
    """
    median, at_area = order_statistics(heat, [median_rank(heat.size), area_rank(heat.size, truth.pixels)])
    mask = threshold_mask(heat, median if protocol.threshold == "median" else 0.5, protocol.comparison)
    peak = int(heat.argmax())
    return ScoredMask(
        mask=mask,
        score=ClipScore(
            ciou=truth.ciou(mask),
            area_ciou=truth.ciou(threshold_mask(heat, at_area, protocol.comparison)),
            hit=bool(heat.flat[peak] > 0) and truth.holds(peak),
            iou=float(intersection_over_union(mask[None], (truth.map > 0)[None])[0]) if is_mask else float("nan"),
        ),
    )
