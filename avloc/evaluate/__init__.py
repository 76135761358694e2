"""`avloc eval`: scores that can be trusted and repeated."""

from avloc.evaluate.multi_model import Session, evaluate_runs, evaluate_table
from avloc.evaluate.options import EvalOptions
from avloc.evaluate.records import ClipRow, EvalReport, MapScores, check_missing
from avloc.evaluate.report_files import report_session
from avloc.evaluate.run import Evaluation, evaluate
from avloc.evaluate.testset import find_store

__all__ = [
    "ClipRow",
    "EvalOptions",
    "EvalReport",
    "Evaluation",
    "MapScores",
    "Session",
    "check_missing",
    "evaluate",
    "evaluate_runs",
    "evaluate_table",
    "find_store",
    "report_session",
]
