"""The paper's tables with our runs beside the published rows, matched by the training record of each model file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from avloc import __version__
from avloc.annotations.lists import testset_ids
from avloc.config import TrainConfig, to_dict
from avloc.evaluate.paper_tables import TRAINING_LISTS, PaperRow, PaperTable
from avloc.evaluate.records import EvalReport
from avloc.evaluate.seed_groups import group_key, spread

SCHEMA = "avloc.table/1"
_METHOD = "avc"
_HINTS: Mapping[str, str] = {"panns": "audio", "detr": "visual"}
_SAME_TESTSETS: Mapping[str, tuple[str, ...]] = {"flickr": ("flickr", "flickr-250")}
"""The paper says 250 test clips; its code scores the list of 249."""
_FREE = ("seed", "workers", "precision", "init")


@dataclass(frozen=True, kw_only=True)
class OurRow:
    """Our runs of one published row; they differ only in their seed."""

    runs: list[str]
    seeds: list[int | None]
    training_list: str
    testset: str
    protocol: str
    selection: str
    """How the epochs were chosen: `test-selected` (the paper's rule), `held-out` or `last epoch`."""
    n_scored: int
    n_expected: int
    ciou_50: dict[str, float]
    """`mean` and sample standard deviation `std` over the runs; NaN for one run."""
    auc: dict[str, float]
    notes: list[str]
    """Differences from the training that the paper describes."""


@dataclass(frozen=True, kw_only=True)
class FilledRow:
    """A published row with our runs."""

    row: PaperRow
    status: str
    """`run`, `not run`, or `context` for another system."""
    reason: str = ""
    """Why a row was not run."""
    ours: list[OurRow]
    """One entry per group of runs that were trained, chosen and scored alike."""


def fill(table: PaperTable, reports: Iterable[EvalReport], absent: Sequence[str] = ()) -> list[FilledRow]:
    """Every row of a table, with the runs that belong to it.

    A run belongs to a row if its model file has the row's method, training list and hints, and if it was scored on the
    row's test set with maps cut at their median.

    Args:
        table: published rows.
        reports: the chosen epoch of each run, under any protocols.
        absent: test sets that are not prepared.
    """
    reports = list(reports)
    return [_filled(row, reports, absent) for row in table.rows]


def table_json(table: PaperTable, filled: Sequence[FilledRow]) -> dict[str, Any]:
    """A filled table as plain data."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "table": table.name,
        "number": table.number or None,
        "title": table.title,
        "rows": [asdict(row) for row in filled],
    }


def _filled(row: PaperRow, reports: Sequence[EvalReport], absent: Sequence[str]) -> FilledRow:
    if row.context:
        return FilledRow(row=row, status="context", ours=[])
    trained = [report for report in reports if _is_training_of(row, report)]
    groups: dict[str, dict[str, EvalReport]] = {}
    for report in trained:
        if row.kind in report.maps:
            groups.setdefault(group_key(report), {})[report.model_hash] = report
    if groups:
        return FilledRow(row=row, status="run", ours=[_ours(row, list(runs.values())) for runs in groups.values()])
    reason = f"{row.testset} is not prepared" if row.testset in absent else _reason(row, trained)
    return FilledRow(row=row, status="not run", reason=reason, ours=[])


def _is_training_of(row: PaperRow, report: EvalReport) -> bool:
    card = report.model_card
    config = card.get("config", {})
    return (
        config.get("model", {}).get("method") == _METHOD
        and card.get("training_list", "") in TRAINING_LISTS[row.train_list]
        and sorted(_HINTS.get(name, name) for name in card.get("hints", {})) == sorted(row.hints)
        and _is_testset(report, _SAME_TESTSETS.get(row.testset, (row.testset,)))
        and report.protocol.threshold == "median"
    )


def _is_testset(report: EvalReport, names: Sequence[str]) -> bool:
    """Whether all clips are of the test set: a folder of that name may hold others."""
    known = frozenset(testset_ids(report.testset)) if report.testset in names else frozenset()
    return known.issuperset(row.id for row in report.clips)


def _reason(row: PaperRow, trained: Sequence[EvalReport]) -> str:
    if trained:
        return f"map {row.kind}: {trained[0].not_run.get(row.kind, 'not asked for')}"
    hints = " and ".join(row.hints) or "no"
    lists = " or ".join(TRAINING_LISTS[row.train_list])
    return f"no model trained on {lists} with {hints} hint{'s' * (len(row.hints) != 1)}, scored on {row.testset}"


def _ours(row: PaperRow, runs: Sequence[EvalReport]) -> OurRow:
    first = runs[0]
    overall = [report.maps[row.kind].overall for report in runs]
    return OurRow(
        runs=[report.model for report in runs],
        seeds=[report.model_card["config"].get("seed") for report in runs],
        training_list=first.model_card["training_list"],
        testset=first.testset,
        protocol=first.protocol.name,
        selection=first.selection,
        n_scored=first.n_scored,
        n_expected=first.n_expected,
        ciou_50=spread([summary.ciou_50 for summary in overall]),
        auc=spread([summary.auc for summary in overall]),
        notes=_notes(row, first),
    )


def _notes(row: PaperRow, report: EvalReport) -> list[str]:
    card = report.model_card
    notes = [f"{name} {value} (paper: {paper})" for name, value, paper in _deviations(row, card["config"])]
    if "verified" not in card.get("init", {}):
        notes.append(f"init {card['config'].get('init', '')} (paper: ImageNet)")
    clips, whole = card.get("clips", 0), card.get("training_list_clips", 0)
    if clips < whole:
        notes.append(f"trained on {clips} of the {whole} clips of the list")
    if report.n_scored < report.n_expected:
        notes.append(f"{report.n_expected - report.n_scored} test clips missing")
    return notes


def _deviations(row: PaperRow, config: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, value, paper value) of settings that differ from the paper's, avloc's defaults; unused hints aside."""
    paper = _flat(to_dict(TrainConfig()))
    without = {f"loss.{name}_hint" for name in ("audio", "visual") if name not in row.hints}
    ours = {name: value for name, value in _flat(config).items() if name not in without and name not in _FREE}
    return [(name, ours[name], paper[name]) for name in sorted(ours) if name in paper and ours[name] != paper[name]]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in config.items():
        out |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return out
