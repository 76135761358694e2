"""Tables over several models: overview, groups of runs, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from avloc.report.tables import DASH, METRIC_LABELS, PERCENT_NOTE, Cell, Table, percent, with_interval


def multi_model_tables(reports: Sequence[Mapping[str, Any]], further: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Tables over all reports; empty for a single report without further records.

    Args:
        reports: `EvalReport.as_json()` of all models and protocols.
        further: records of groups of runs (`avloc.runs/1`) and of comparisons (`avloc.compare/1`).
    """
    runs = [record for record in further if record["schema"].startswith("avloc.runs/")]
    pairs = [record for record in further if record["schema"].startswith("avloc.compare/")]
    tables = [*([overview(reports)] if len(reports) > 1 else []), *map(_runs, runs), _pairs(pairs)]
    return [table for table in tables if table.rows]


def overview(reports: Sequence[Mapping[str, Any]]) -> Table:
    """One row per report, with cIoU@0.5 and AUC of every map."""
    kinds = list(dict.fromkeys(kind for report in reports for kind in report["maps"]))
    metrics = [*METRIC_LABELS.items()][:2]
    rows: list[list[Cell]] = []
    for report in reports:
        row: list[Cell] = [
            report["model"] or DASH,
            report.get("selection") or DASH,
            report["testset"],
            report["protocol"]["name"],
            str(report["n_scored"]),
        ]
        for kind in kinds:
            scores = report["maps"].get(kind)
            row += [with_interval(scores, metric) if scores else DASH for metric, _ in metrics]
        rows.append(row)
    columns = [
        "model",
        "epoch chosen by",
        "test set",
        "protocol",
        "clips",
        *[f"{kind}: {label}" for kind in kinds for _, label in metrics],
    ]
    return Table(title="All models and protocols", note=PERCENT_NOTE, columns=columns, rows=rows, headings=4)


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


def _pairs(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    """Differences between pairs of models on the clips scored by both."""
    rows: list[list[Cell]] = []
    for pair in comparisons:
        for kind, metrics in pair["maps"].items():
            cells = [(percent(v["difference"]), _spread(v)) for v in (metrics[m] for m in METRIC_LABELS)]
            names = f"{pair['a']} ({pair['a_selection']}) - {pair['b']} ({pair['b_selection']})"
            rows.append([names, pair["protocol"]["name"], kind, str(pair["n"]), *cells])
    return Table(
        title="Models compared, clip by clip",
        note="Differences in percent points, with the 95 % interval and p of the paired bootstrap.",
        columns=["models", "protocol", "map", "clips", *METRIC_LABELS.values()],
        rows=rows,
        headings=3,
    )


def _spread(value: Mapping[str, Any]) -> str:
    p = DASH if value["p"] != value["p"] else f"{value['p']:.3f}"
    return f"{percent(value['low'], 1)} to {percent(value['high'], 1)}, p {p}"
