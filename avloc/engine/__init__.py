"""The core: one model on one device, its maps, their fusion and their scores."""

from avloc.engine.core import Engine, pick_device, pick_precision, weighted_total
from avloc.engine.fusion import SHIPPED, AdaptiveWeights, Fusion, HeatMaps, map_weights
from avloc.engine.fusion_setup import card_fusion, load_fusion
from avloc.engine.inference import NOISE, NOT_FINITE, OTHER, SILENCE, ClipCells, WrongSounds, predict_cells
from avloc.engine.scoring import ScoredMask, score_heat, truth_of
from avloc.engine.targets import box_cells, supervise

__all__ = [
    "NOISE",
    "NOT_FINITE",
    "OTHER",
    "SHIPPED",
    "SILENCE",
    "AdaptiveWeights",
    "ClipCells",
    "Engine",
    "Fusion",
    "HeatMaps",
    "ScoredMask",
    "WrongSounds",
    "box_cells",
    "card_fusion",
    "load_fusion",
    "map_weights",
    "pick_device",
    "pick_precision",
    "predict_cells",
    "score_heat",
    "supervise",
    "truth_of",
    "weighted_total",
]
