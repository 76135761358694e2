"""`avloc eval`: scores that can be trusted and repeated."""

from avloc.evaluate.multi_model import Session, evaluate_runs, evaluate_table
from avloc.evaluate.plan import EvalOptions, find_store
from avloc.evaluate.records import ClipRow, EvalReport, MapScores
from avloc.evaluate.report_files import report_session
from avloc.evaluate.run import Evaluation, evaluate

__all__ = [
    "ClipRow",
    "EvalOptions",
    "EvalReport",
    "Evaluation",
    "MapScores",
    "Session",
    "evaluate",
    "evaluate_runs",
    "evaluate_table",
    "find_store",
    "report_session",
]
