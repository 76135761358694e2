"""The core: one model on one device, its maps, their fusion and their scores."""

from avloc.engine.cohort import Cohort
from avloc.engine.core import Engine, device_names, pick_device, pick_precision, weighted_total
from avloc.engine.fusion import Fusion, HeatMaps, card_fusion, load_fusion, map_weights
from avloc.engine.inference import OTHER_CLASS, SILENCE, WHITE_NOISE, ClipCells, WrongSounds, predict_cells
from avloc.engine.scoring import Truths, blocks, score_clips, score_heats, truth_map, truths_of
from avloc.engine.targets import supervise

__all__ = [
    "OTHER_CLASS",
    "SILENCE",
    "WHITE_NOISE",
    "ClipCells",
    "Cohort",
    "Engine",
    "Fusion",
    "HeatMaps",
    "Truths",
    "WrongSounds",
    "blocks",
    "card_fusion",
    "device_names",
    "load_fusion",
    "map_weights",
    "pick_device",
    "pick_precision",
    "predict_cells",
    "score_clips",
    "score_heats",
    "supervise",
    "truth_map",
    "truths_of",
    "weighted_total",
]
