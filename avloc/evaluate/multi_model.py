"""Several models, runs and groups of runs scored together, summarised and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avloc import __version__
from avloc.errors import StoreNotFound, UsageError
from avloc.evaluate.options import EvalOptions
from avloc.evaluate.paper_tables import fill, find_table, table_json
from avloc.evaluate.records import EvalReport
from avloc.evaluate.run import Evaluation, evaluate
from avloc.evaluate.seed_groups import RunModels, RunsSummary, check_alike, expand, summaries
from avloc.metrics import paired_difference
from avloc.progress import Listener, Notice, silent
from avloc.protocols import Protocol

COMPARE_SCHEMA = "avloc.compare/1"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Model `a` against model `b` on the clips with scores of both."""

    a: str
    b: str
    a_selection: str
    """How the epoch was selected (`EvalReport.selection`)."""
    b_selection: str
    a_hash: str
    b_hash: str
    testset: str
    data_hash: str
    protocol: Protocol
    box_rule: str
    n: int
    only_a: list[str]
    only_b: list[str]
    maps: dict[str, dict[str, dict[str, float]]]
    """Kind of map -> metric -> `difference` (a - b), `low` and `high` of its 95 % interval, `p`
    (`avloc.metrics.paired_difference`)."""
    not_compared: list[str]
    """Kinds of map that only one of the two has."""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        fields = {**vars(self), "protocol": self.protocol.as_json()}
        return {"schema": COMPARE_SCHEMA, "version": __version__, **fields}


def compare(a: EvalReport, b: EvalReport) -> Comparison:
    """Paired differences between two models, over the clips with scores of both.

    Raises:
        Refused: they were scored on different data or by different rules.
    """
    check_alike([a, b])
    rows_a, rows_b = ({row.id: row for row in report.clips} for report in (a, b))
    both = sorted(rows_a.keys() & rows_b.keys())
    pairs = {
        kind: paired_difference(
            [rows_a[clip_id].scores[kind].ciou for clip_id in both],
            [rows_b[clip_id].scores[kind].ciou for clip_id in both],
            a.protocol.success,
        )
        for kind in a.maps
        if kind in b.maps
    }
    return Comparison(
        a=a.model,
        b=b.model,
        a_selection=a.selection,
        b_selection=b.selection,
        a_hash=a.model_hash,
        b_hash=b.model_hash,
        testset=a.testset,
        data_hash=a.data_hash,
        protocol=a.protocol,
        box_rule=a.box_rule,
        n=len(both),
        only_a=sorted(rows_a.keys() - rows_b.keys()),
        only_b=sorted(rows_b.keys() - rows_a.keys()),
        maps=pairs,
        not_compared=sorted(a.maps.keys() ^ b.maps.keys()),
    )


@dataclass(frozen=True, kw_only=True)
class Session:
    """The results of one `avloc eval` command."""

    evaluation: Evaluation
    chosen: list[EvalReport]
    """Reports of the models and of the selected epoch of each run."""
    summaries: list[RunsSummary] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    table: dict[str, Any] = field(default_factory=dict)
    """`avloc.evaluate.paper_tables.table_json`."""


def evaluate_runs(
    options: EvalOptions, paths: Sequence[Path], against: Path | None = None, listener: Listener = silent
) -> Session:
    """Score models, and of each run the selected and the last epoch.

    Args:
        options: test set and protocols; its models are replaced by those of the paths.
        paths: model files, run folders, folders of `seed-N` runs; none means the model in the package.
        against: a model or run to compare with every other, clip by clip.
        listener: receives notices and progress.

    Raises:
        UsageError: no model at a path, or `against` is not one model.
        Refused: see `evaluate` and `avloc.evaluate.seed_groups`.
    """
    if options.without_model:
        if paths or against or options.negatives:
            flag = "--maps baselines" if options.maps_dir is None else "--maps-dir"
            raise UsageError(f"{flag} takes no model, no --compare and no --negatives: it scores no model")
        evaluation = evaluate(options, listener)
        return Session(evaluation=evaluation, chosen=evaluation.reports)
    if against is not None and not paths:
        raise UsageError("--compare needs a model to compare with, as in: avloc eval RUN --compare OTHER")
    runs, other = expand(paths), _only_run(against)
    every = [*runs, *([other] if other and other.selected not in [run.selected for run in runs] else [])]
    named = {path: name for run in every for path, name in run.models.items()}
    evaluation = evaluate(replace(options, models=tuple(named), names=tuple(named.values())), listener)
    if not runs:
        return Session(evaluation=evaluation, chosen=evaluation.reports)
    width = len(evaluation.reports) // len(named)
    of = {path: evaluation.reports[i * width : (i + 1) * width] for i, path in enumerate(named)}
    return Session(
        evaluation=evaluation,
        chosen=[report for run in every for report in of[run.selected]],
        summaries=_summaries(runs, of, width),
        comparisons=[
            compare(mine, theirs)
            for run in runs
            if other and run.selected != other.selected
            for mine, theirs in zip(of[run.selected], of[other.selected], strict=True)
        ],
    )


def evaluate_table(table: str, options: EvalOptions, paths: Sequence[Path], listener: Listener = silent) -> Session:
    """Score runs on the test sets of a paper's table (`avloc.evaluate.paper_tables`), and match them with its rows.

    If `options` has a test set, the others of the table are left out. Without `paths`, every row is "not run".

    Raises:
        UsageError: no such table.
    """
    paper_table = find_table(table)
    testsets = dict.fromkeys(row.testset for row in paper_table.rows if not row.context)
    found = [testset for testset in testsets if options.testset in ("", testset)]
    sessions, absent = [], []
    for testset in found if paths else ():
        try:
            sessions.append(evaluate_runs(replace(options, testset=testset), paths, listener=listener))
        except StoreNotFound as error:
            listener(Notice(f"{testset} is not run: {error}"))
            absent.append(testset)
    reports = [report for session in sessions for report in session.evaluation.reports]
    return Session(
        evaluation=Evaluation(reports=reports, store=None),
        chosen=[],
        table=table_json(paper_table, fill(paper_table, reports, absent)),
    )


def _only_run(path: Path | None) -> RunModels | None:
    if path is None:
        return None
    found = expand([path])
    if len(found) > 1:
        raise UsageError(f"--compare {path} holds {len(found)} runs; valid: one model or run")
    return found[0]


def _same_clips(chosen: EvalReport, last: EvalReport | None) -> EvalReport | None:
    """The last epoch's report if it has scores of the same clips: otherwise the means are not comparable."""
    return last if last and [row.id for row in last.clips] == [row.id for row in chosen.clips] else None


def _summaries(runs: Sequence[RunModels], of: dict[Path, list[EvalReport]], width: int) -> list[RunsSummary]:
    """Summaries of runs that differ only in their seed, and of single runs with two epochs."""
    found = [
        summary
        for column in range(width)
        for summary in summaries(
            [of[run.selected][column] for run in runs],
            [_same_clips(of[run.selected][column], of[run.last][column] if run.last else None) for run in runs],
        )
    ]
    return [summary for summary in found if sum(len(block.runs) for block in summary.blocks.values()) > 1]
