"""One model on one device, for training and inference."""

from avloc.engine.core import Engine, pick_device, pick_precision, weighted_total
from avloc.engine.inference import NOISE, NOT_FINITE, OTHER, SILENCE, ClipCells, WrongSounds, predict_cells
from avloc.engine.scoring import Cut, Heats, kinds_of, score_heat, truth_of
from avloc.engine.targets import box_cells, supervise

__all__ = [
    "NOISE",
    "NOT_FINITE",
    "OTHER",
    "SILENCE",
    "ClipCells",
    "Cut",
    "Engine",
    "Heats",
    "WrongSounds",
    "box_cells",
    "kinds_of",
    "pick_device",
    "pick_precision",
    "predict_cells",
    "score_heat",
    "supervise",
    "truth_of",
    "weighted_total",
]
