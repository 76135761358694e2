"""Scores of maps against ground truth. Pure functions of arrays."""

from avloc.metrics.extended import ExtendedScores, confidence, extended_scores
from avloc.metrics.intervals import interval, paired_difference
from avloc.metrics.localization import (
    AUC_THRESHOLDS,
    SIZES,
    ClipScore,
    Summary,
    ground_truth,
    mask_truth,
    size_of,
    summarise,
)
from avloc.metrics.negatives import (
    NegativeScores,
    negative_scores,
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
    "confidence",
    "extended_scores",
    "f_curves",
    "ground_truth",
    "intersection_over_union",
    "interval",
    "mask_truth",
    "max_f",
    "negative_scores",
    "paired_difference",
    "share_above",
    "size_of",
    "source_scores",
    "summarise",
    "universal_thresholds",
]
