"""The tables of the page: plain data in, text in cells out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avloc.metrics import SIZES

Cell = str | tuple[str, str]
"""Text, or text with a remark set smaller: an interval, an exact number."""

NOTHING = "–"
METRIC_LABELS = (("ciou_50", "cIoU@0.5"), ("auc", "AUC"), ("mean_ciou", "mean cIoU"))
_MASKS = (("miou", "mIoU"), ("max_f", "max F"))
PERCENT_NOTE = "Scores in percent, the 95 % bootstrap interval below."
_SCORES_NOTE = (
    f"{PERCENT_NOTE} Truth's area: the mask is given as many pixels as the truth "
    "has. Pointing: the hottest pixel lies inside the truth."
)
_LABELS = {
    "n": "clips",
    "n_sounding": "sounding pairs",
    "n_silent": "silent pairs",
    "n_pictures": "pictures",
    "ap": "AP",
    "max_f1": "max F1",
    "loc_acc": "LocAcc",
    "slavc_ap": "AP as SLAVC",
    "slavc_max_f1": "max F1 as SLAVC",
    "slavc_loc_acc": "LocAcc as SLAVC",
    "ciou_50": "cIoU@0.5",
    "auc": "AUC",
    "mean_ciou": "mean cIoU",
    "pia": "pIA",
    "auc_n": "AUC_N",
    "overlap": "overlap with the mask of the own sound",
    "f_loc": "F_LOC",
    "f_auc": "F_AUC",
    "f_loc_mean": "F_LOC of the mean cIoU",
    "iiou_50": "IIoU@0.5",
    "iauc": "IAUC",
    "area_iiou_50": "IIoU@0.5, truth's area",
    "area_iauc": "IAUC, truth's area",
    "multiply_adds": "multiply-adds",
}
_AS_THEY_ARE = ("threshold",)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; the first cells of a row are its heading."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[Cell]]
    headings: int = 1
    """How many cells of a row are its heading."""


def tables_of(report: Mapping[str, Any]) -> list[Table]:
    """The tables of one report (`EvalReport.as_json()`), those without a row left out."""
    sizes = (
        f"Truths by size on a square of 224 pixels: {', '.join(f'{n} below {s} x {s}' for n, s in SIZES)}, huge above."
    )
    every = [
        _scores("Maps", report["maps"]),
        _scores("Baselines, without any model", report["baselines"]),
        _scores("Weights of the fused map", report["sweep"]),
        _sizes("By size of the truth", sizes, {**report["maps"], **report["baselines"]}),
        _records("Sounding and silent pairs", "Scores in percent.", "map", report.get("extended", {})),
        _turned(_records("Wrong sounds", "Scores in percent.", "universal threshold", report.get("negatives", {}))),
        _records("Several sources in a picture", "Scores in percent.", "map", report.get("sources", {})),
        _cost(report.get("cost", [])),
    ]
    return [table for table in every if table.rows]


def number(value: int) -> str:
    """An integer with narrow spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def percent(value: float | None, digits: int = 2) -> str:
    """A share in percent, a dash for None and NaN."""
    return NOTHING if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Nested plain data as pairs of a dotted name and text."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from flat(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value))
    else:
        yield name, NOTHING if value is None else str(value)


def with_interval(scores: Mapping[str, Any], metric: str) -> Cell:
    """A score of a map with its bootstrap interval, if it has one."""
    value = percent(scores["overall"][metric])
    low, high = scores["interval"].get(metric, (None, None))
    ends = percent(low, 1), percent(high, 1)
    return value if NOTHING in ends else (value, f"{ends[0]} to {ends[1]}")


def _scores(title: str, scores: Mapping[str, Mapping[str, Any]]) -> Table:
    masks = [(name, label) for name, label in _MASKS if any(percent(s.get(name)) != NOTHING for s in scores.values())]
    area = ("ciou_50", "auc")
    columns = ["map", "clips", *[label for _, label in METRIC_LABELS], "cIoU@0.5, truth's area", "AUC, truth's area"]
    rows: list[list[Cell]] = [
        [
            kind,
            str(entry["overall"]["n"]),
            *[with_interval(entry, metric) for metric, _ in METRIC_LABELS],
            *[percent(entry["area"][metric]) for metric in area],
            percent(entry["pointing"]),
            *[percent(entry.get(name)) for name, _ in masks],
        ]
        for kind, entry in scores.items()
    ]
    return Table(
        title=title, note=_SCORES_NOTE, columns=[*columns, "pointing", *[label for _, label in masks]], rows=rows
    )


def _sizes(title: str, note: str, scores: Mapping[str, Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(size for entry in scores.values() for size in entry["sizes"]))
    columns = ["map", *[f"{size}: {what}" for size in names for what in ("clips", "cIoU@0.5", "AUC")]]
    rows: list[list[Cell]] = []
    for kind, entry in scores.items() if names else ():
        row: list[Cell] = [kind]
        for size in names:
            summary = entry["sizes"].get(size, {"n": 0, "ciou_50": None, "auc": None})
            row += [str(summary["n"]), percent(summary["ciou_50"]), percent(summary["auc"])]
        rows.append(row)
    return Table(title=title, note=f"{note} Scores in percent.", columns=columns, rows=rows)


def _records(title: str, note: str, first: str, records: Mapping[str, Mapping[str, Any]]) -> Table:
    cells = {name: dict(_fields(record)) for name, record in records.items()}
    columns = list(dict.fromkeys(label for row in cells.values() for label in row))
    rows: list[list[Cell]] = [[name, *[row.get(label, NOTHING) for label in columns]] for name, row in cells.items()]
    return Table(title=title, note=note, columns=[first, *columns], rows=rows)


def _fields(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in record.items():
        label = prefix + _LABELS.get(name, name)
        if isinstance(value, Mapping):
            yield from _fields(value, f"{label}, ")
        elif isinstance(value, float) or value is None:
            yield label, percent(value) if name not in _AS_THEY_ARE else NOTHING if value is None else f"{value:.4f}"
        elif isinstance(value, int):
            yield label, str(value)


def _turned(table: Table) -> Table:
    """Columns as rows: few records of many fields read better from top to bottom."""
    if not table.rows:
        return table
    columns, *rows = zip(table.columns, *table.rows, strict=True)
    return Table(
        title=table.title, note=table.note, columns=[str(name) for name in columns], rows=[list(r) for r in rows]
    )


def _cost(cost: Sequence[Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in cost for name in row))
    rows = [[_amount(row.get(name)) for name in names] for row in cost]
    columns = [_LABELS.get(name, name.replace("_", " ")) for name in names]
    return Table(title="Cost of one clip", note="Measured on the networks as they are.", columns=columns, rows=rows)


def _amount(value: Any) -> Cell:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return NOTHING if value in (None, "") else str(value)
    for unit, letter in ((1e9, "G"), (1e6, "M")):
        if value >= unit:
            return f"{value / unit:.2f} {letter}", number(round(value))
    return number(value) if isinstance(value, int) else f"{value:g}"
