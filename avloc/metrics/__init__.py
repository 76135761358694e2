"""Scores of maps against ground truth. Pure functions of arrays."""

from avloc.metrics.extended import ExtendedScores, confidence, extended_scores
from avloc.metrics.intervals import interval, paired_difference
from avloc.metrics.localization import (
    AUC_THRESHOLDS,
    SIZES,
    ClipScore,
    Summary,
    Truth,
    ciou,
    ground_truth,
    mask_truth,
    size_of,
    success_curve,
    summarise,
)
from avloc.metrics.negatives import (
    NegativeScores,
    harmonic,
    negative_auc,
    negative_scores,
    overlap,
    share_above,
    universal_thresholds,
)
from avloc.metrics.segments import f_curves, intersection_over_union, max_f
from avloc.metrics.sources import SourceScores, source_scores

__all__ = [
    "AUC_THRESHOLDS",
    "SIZES",
    "ClipScore",
    "ExtendedScores",
    "NegativeScores",
    "SourceScores",
    "Summary",
    "Truth",
    "ciou",
    "confidence",
    "extended_scores",
    "f_curves",
    "ground_truth",
    "harmonic",
    "intersection_over_union",
    "interval",
    "mask_truth",
    "max_f",
    "negative_auc",
    "negative_scores",
    "overlap",
    "paired_difference",
    "share_above",
    "size_of",
    "source_scores",
    "success_curve",
    "summarise",
    "universal_thresholds",
]
