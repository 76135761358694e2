"""`avloc eval`: scores that can be trusted and repeated."""

from avloc.evaluate.plan import EvalOptions, find_store
from avloc.evaluate.records import ClipRow, EvalReport, MapScores
from avloc.evaluate.run import Evaluation, evaluate

__all__ = ["ClipRow", "EvalOptions", "EvalReport", "Evaluation", "MapScores", "evaluate", "find_store"]
