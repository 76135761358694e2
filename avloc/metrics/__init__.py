"""What a map is worth against the truth. Pure functions of arrays."""

from avloc.metrics.scores import AUC_THRESHOLDS, Summary, ciou, ground_truth, success_curve, summarise

__all__ = ["AUC_THRESHOLDS", "Summary", "ciou", "ground_truth", "success_curve", "summarise"]
