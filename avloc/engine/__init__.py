"""The core: one model on one device, for training and for heat maps."""

from avloc.engine.core import Engine, pick_device, pick_precision, weighted_total
from avloc.engine.scoring import ClipScore, score_clips

__all__ = ["ClipScore", "Engine", "pick_device", "pick_precision", "score_clips", "weighted_total"]
