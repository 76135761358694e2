"""Tables of the page: of one report, and over several models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avloc.metrics import SIZES

Cell = str | tuple[str, str]
"""Text, or text with a smaller note such as an interval or exact number."""

DASH = "–"
METRIC_LABELS = {"ciou_50": "cIoU@0.5", "auc": "AUC", "mean_ciou": "mean cIoU"}
_MASKS = (("miou", "mIoU"), ("max_f", "max F"))
_PERCENT_NOTE = "Scores in percent, the 95 % bootstrap interval below."
_SCORES_NOTE = (
    f"{_PERCENT_NOTE} Truth's area: the mask has as many pixels as the truth. "
    "Pointing: the hottest pixel is inside the truth."
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
    **METRIC_LABELS,
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
_NOT_PERCENT = ("threshold",)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[Cell]]
    headings: int = 1
    """Number of leading cells of a row that are its heading."""


def report_tables(report: Mapping[str, Any]) -> list[Table]:
    """The non-empty tables of one report (`EvalReport.as_json()`)."""
    tables = [
        _scores("Maps", report["maps"]),
        _scores("Baselines, without any model", report["baselines"]),
        _scores("Weights of the fused map", report["sweep"]),
        _sizes({**report["maps"], **report["baselines"]}),
        _records("Sounding and silent pairs", "map", report.get("extended", {})),
        _transpose(_records("Wrong sounds", "universal threshold", report.get("negatives", {}))),
        _records("Several sources in a picture", "map", report.get("sources", {})),
        _cost(report.get("cost", [])),
    ]
    return [table for table in tables if table.rows]


def multi_model_tables(reports: Sequence[Mapping[str, Any]], further: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The non-empty tables over all reports, groups of runs (`avloc.runs/1`) and comparisons (`avloc.compare/1`)."""
    runs = [record for record in further if record["schema"].startswith("avloc.runs/")]
    pairs = [record for record in further if record["schema"].startswith("avloc.compare/")]
    tables = [*([overview(reports)] if len(reports) > 1 else []), *map(_runs, runs), _comparisons(pairs)]
    return [table for table in tables if table.rows]


def number(value: int) -> str:
    """An integer with narrow spaces as thousands separators."""
    return f"{value:,}".replace(",", "\u202f")


def percent(value: float | None, digits: int = 2, absent: str = DASH) -> str:
    """A fraction in percent; `absent` for None and NaN."""
    return absent if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def flatten(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Nested plain data to pairs of dotted name and text."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from flatten(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value))
    else:
        yield name, DASH if value is None else str(value)


def _with_interval(scores: Mapping[str, Any], metric: str) -> Cell:
    """A score of a map with its bootstrap interval, if it has one."""
    value = percent(scores["overall"][metric])
    low, high = scores["interval"].get(metric, (None, None))
    ends = percent(low, 1), percent(high, 1)
    return value if DASH in ends else (value, f"{ends[0]} to {ends[1]}")


def _scores(title: str, scores: Mapping[str, Mapping[str, Any]]) -> Table:
    masks = [(name, label) for name, label in _MASKS if any(percent(s.get(name)) != DASH for s in scores.values())]
    columns = ["map", "clips", *METRIC_LABELS.values(), "cIoU@0.5, truth's area", "AUC, truth's area", "pointing"]
    rows: list[list[Cell]] = [
        [
            kind,
            str(entry["overall"]["n"]),
            *[_with_interval(entry, metric) for metric in METRIC_LABELS],
            *[percent(entry["area"][metric]) for metric in ("ciou_50", "auc")],
            percent(entry["pointing"]),
            *[percent(entry.get(name)) for name, _ in masks],
        ]
        for kind, entry in scores.items()
    ]
    return Table(title=title, note=_SCORES_NOTE, columns=[*columns, *[label for _, label in masks]], rows=rows)


def _sizes(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(size for entry in scores.values() for size in entry["sizes"]))
    columns = ["map", *[f"{size}: {what}" for size in names for what in ("clips", "cIoU@0.5", "AUC")]]
    rows: list[list[Cell]] = []
    for kind, entry in scores.items() if names else ():
        row: list[Cell] = [kind]
        for size in names:
            summary = entry["sizes"].get(size, {"n": 0, "ciou_50": None, "auc": None})
            row += [str(summary["n"]), percent(summary["ciou_50"]), percent(summary["auc"])]
        rows.append(row)
    limits = ", ".join(f"{name} below {side} x {side}" for name, side in SIZES)
    note = f"Truths by size on a square of 224 pixels: {limits}, huge above. Scores in percent."
    return Table(title="By size of the truth", note=note, columns=columns, rows=rows)


def _records(title: str, first: str, records: Mapping[str, Mapping[str, Any]]) -> Table:
    cells = {name: dict(_fields(record)) for name, record in records.items()}
    columns = list(dict.fromkeys(label for row in cells.values() for label in row))
    rows: list[list[Cell]] = [[name, *[row.get(label, DASH) for label in columns]] for name, row in cells.items()]
    return Table(title=title, note="Scores in percent.", columns=[first, *columns], rows=rows)


def _fields(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in record.items():
        label = prefix + _LABELS.get(name, name)
        if isinstance(value, Mapping):
            yield from _fields(value, f"{label}, ")
        elif isinstance(value, float) or value is None:
            yield label, percent(value) if name not in _NOT_PERCENT else DASH if value is None else f"{value:.4f}"
        elif isinstance(value, int):
            yield label, str(value)


def _transpose(table: Table) -> Table:
    """Swap rows and columns, for few records of many fields."""
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
    return Table(title="Cost of one clip", note="Measured on the actual networks.", columns=columns, rows=rows)


def _amount(value: Any) -> Cell:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return DASH if value in (None, "") else str(value)
    for unit, letter in ((1e9, "G"), (1e6, "M")):
        if value >= unit:
            return f"{value / unit:.2f} {letter}", number(round(value))
    return number(value) if isinstance(value, int) else f"{value:g}"


def overview(reports: Sequence[Mapping[str, Any]]) -> Table:
    """One row per report, with cIoU@0.5 and AUC of every map."""
    kinds = list(dict.fromkeys(kind for report in reports for kind in report["maps"]))
    scores = [(kind, metric) for kind in kinds for metric in ("ciou_50", "auc")]
    rows: list[list[Cell]] = [
        [
            report["model"] or DASH,
            report.get("selection") or DASH,
            report["testset"],
            report["protocol"]["name"],
            str(report["n_scored"]),
            *[_with_interval(report["maps"][k], metric) if k in report["maps"] else DASH for k, metric in scores],
        ]
        for report in reports
    ]
    columns = ["model", "epoch chosen by", "test set", "protocol", "clips"]
    columns += [f"{kind}: {METRIC_LABELS[metric]}" for kind, metric in scores]
    return Table(title="All models and protocols", note=_PERCENT_NOTE, columns=columns, rows=rows, headings=4)


def _runs(summary: Mapping[str, Any]) -> Table:
    """Mean and standard deviation of a group of runs per epoch selection rule, followed by its runs."""
    rows: list[list[Cell]] = []
    for rule, block in summary["blocks"].items():
        for kind, metrics in block["maps"].items():
            means = [f"{percent(metrics[m]['mean'])} ± {percent(metrics[m]['std'])}" for m in METRIC_LABELS]
            rows.append([rule, f"mean of {len(block['runs'])}", kind, *means])
            rows += [
                [rule, run["run"], kind, *[percent(run["maps"][kind][m]) for m in METRIC_LABELS]]
                for run in block["runs"]
            ]
    return Table(
        title=f"Runs on {summary['testset']}, protocol {summary['protocol']['name']}",
        note="Scores in percent, mean and sample standard deviation over the runs.",
        columns=["epochs chosen by", "run", "map", *METRIC_LABELS.values()],
        rows=rows,
        headings=3,
    )


def _comparisons(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    """Differences between pairs of models on the clips scored by both."""
    rows: list[list[Cell]] = []
    for pair in comparisons:
        for kind, metrics in pair["maps"].items():
            cells = [(percent(v["difference"]), _interval_and_p(v)) for v in (metrics[m] for m in METRIC_LABELS)]
            names = f"{pair['a']} ({pair['a_selection']}) - {pair['b']} ({pair['b_selection']})"
            rows.append([names, pair["protocol"]["name"], kind, str(pair["n"]), *cells])
    return Table(
        title="Models compared, clip by clip",
        note="Differences in percent points, with the 95 % interval and p of the paired bootstrap.",
        columns=["models", "protocol", "map", "clips", *METRIC_LABELS.values()],
        rows=rows,
        headings=3,
    )


def _interval_and_p(value: Mapping[str, Any]) -> str:
    p = DASH if value["p"] != value["p"] else f"{value['p']:.3f}"
    return f"{percent(value['low'], 1)} to {percent(value['high'], 1)}, p {p}"
