"""The paper's tables: published rows (`paper_tables.toml`), and our runs of each row.

A run is matched with a row by the training record in its model file.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from avloc import __version__
from avloc.annotations.testsets import testset_ids
from avloc.config import TrainConfig, dotted, to_dict
from avloc.errors import UsageError, nearest
from avloc.evaluate.records import EvalReport
from avloc.evaluate.seed_groups import group_key, spread

SCHEMA = "avloc.table/1"
PAPER_TABLES = 7
_METHOD = "avc"
_HINTS: Mapping[str, str] = {"panns": "audio", "detr": "visual"}
_SAME_TESTSETS: Mapping[str, tuple[str, ...]] = {"flickr": ("flickr", "flickr-250")}
"""The paper says 250 test clips; its code scores the list of 249."""
_FREE = ("seed", "workers", "compile", "precision", "init")


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One published row. Scores are in [0, 1]: 77.7 in print is 0.777 here."""

    label: str
    train_list: str
    """Training set: a key of `TRAINING_LISTS`; '' if the source does not name it."""
    testset: str
    hints: tuple[str, ...] = ()
    """Teachers of the row's model: `audio`, `visual`."""
    kind: str = "av"
    """Kind of map: `av`, `fused`."""
    ciou_50: float
    ciou_50_std: float | None = None
    auc: float | None = None
    source: str
    note: str = ""
    """Origin of the number, or why it is not comparable."""
    context: bool = False
    """A row of another system: no run of avloc belongs to it."""
    comparable: bool = True
    """Whether the number is cIoU@0.5 of a map cut at its median, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A named group of rows."""

    name: str
    title: str
    rows: tuple[PaperRow, ...]
    number: int = 0
    """Number of the table in the paper; 0 if unknown."""


def _read_row(entry: Mapping[str, Any], sources: Mapping[str, Mapping[str, Any]]) -> PaperRow:
    fields: dict[str, Any] = {**sources[entry["from"]], **entry}
    del fields["from"]
    fields["hints"] = tuple(fields.get("hints", ()))
    fields |= {name: round(fields[name] / 100, 6) for name in ("ciou_50", "ciou_50_std", "auc") if name in fields}
    return PaperRow(**fields)


_DATA = tomllib.loads(files("avloc.evaluate").joinpath("paper_tables.toml").read_text(encoding="utf-8"))

TRAINING_LISTS: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {name: tuple(lists) for name, lists in _DATA["training_lists"].items()}
)
"""Training set -> published lists that count as it."""

TABLES: Mapping[str, PaperTable] = types.MappingProxyType(
    {
        name: PaperTable(
            name=name, **{**table, "rows": tuple(_read_row(row, _DATA["sources"]) for row in table["rows"])}
        )
        for name, table in _DATA["tables"].items()
    }
)
"""Name -> table."""


def find_table(text: str) -> PaperTable:
    """A table by its name or by its number in the paper.

    The number of only one table is known. Other valid numbers give all rows without a number, under a title that says
    so.

    Raises:
        UsageError: no such table; lists the known ones.
    """
    for name, table in TABLES.items():
        if text == name or (table.number and text == str(table.number)):
            return table
    if text in map(str, range(1, PAPER_TABLES + 1)):
        title = f"which of these rows Table {text} of the paper prints is unknown; these are all candidates"
        rows = tuple(row for table in TABLES.values() if not table.number for row in table.rows)
        return PaperTable(name="unplaced", title=title, rows=rows)
    known = ", ".join(f"{table.number} ({name})" if table.number else name for name, table in TABLES.items())
    raise UsageError(f"--paper-table {text} is unknown; known: {known}", hint=nearest(text, TABLES))


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
    """Differences from the paper's training."""


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


def fill(table: PaperTable, reports: Sequence[EvalReport], absent: Sequence[str] = ()) -> list[FilledRow]:
    """Every row of a table, with the runs that belong to it.

    A run belongs to a row if its model file has the row's method, training list and hints, and if it was scored on the
    row's test set with the median as threshold. `absent` are the test sets that are not prepared.
    """
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
    paper = dotted(to_dict(TrainConfig()))
    without = {f"loss.{name}_hint" for name in ("audio", "visual") if name not in row.hints}
    ours = {name: value for name, value in dotted(config).items() if name not in without and name not in _FREE}
    return [(name, ours[name], paper[name]) for name in sorted(ours) if name in paper and ours[name] != paper[name]]
