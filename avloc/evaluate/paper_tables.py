"""The published rows of `paper_tables.toml`: the paper's own, and those of other systems for context."""

from __future__ import annotations

import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from avloc.errors import UsageError, nearest

PAPER_TABLES = 7


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One published row. Scores are in [0, 1]: 77.7 in print is 0.777 here."""

    label: str
    train_list: str
    """Training set: a key of `TRAINING_LISTS`; '' where the source does not say."""
    testset: str
    hints: tuple[str, ...] = ()
    """Teachers of the row's model: `audio`, `visual`."""
    kind: str = "av"
    """Kind of map that was scored: `av`, `fused`."""
    ciou_50: float
    ciou_50_std: float | None = None
    auc: float | None = None
    source: str
    note: str = ""
    """How the number came about, or why it cannot be compared."""
    context: bool = False
    """A row of another system, which no run of avloc can fill."""
    comparable: bool = True
    """Whether the number is cIoU@0.5 of a map cut at its median, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A named group of rows."""

    name: str
    title: str
    rows: tuple[PaperRow, ...]
    number: int = 0
    """Number of the table in the paper; 0 where it is not known."""


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
    """The table that `--paper-table` names, by its own name or by its number in the paper.

    Only the rows of one numbered table are known. For the other numbers the answer is every row without a number,
    under a title that says so.

    Raises:
        UsageError: no such table; lists the known ones.
    """
    for name, table in TABLES.items():
        if text == name or (table.number and text == str(table.number)):
            return table
    if text in map(str, range(1, PAPER_TABLES + 1)):
        title = f"which of these rows Table {text} of the paper prints is not known to avloc; all that it may be"
        rows = tuple(row for table in TABLES.values() if not table.number for row in table.rows)
        return PaperTable(name="unplaced", title=title, rows=rows)
    known = ", ".join(f"{table.number} ({name})" if table.number else name for name, table in TABLES.items())
    raise UsageError(f"--paper-table {text} is unknown; known: {known}", hint=nearest(text, TABLES))
