"""Output of `eval`: tables of scores, runs, comparisons and published rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from avloc.console.terminal import console, print_json, shorten
from avloc.evaluate.external_maps import EXTERNAL
from avloc.report.tables import METRIC_LABELS, percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from avloc.evaluate import EvalReport, MapScores, Session
    from avloc.evaluate.multi_model import Comparison
    from avloc.evaluate.seed_groups import RunsSummary

_LEGEND = "percent; mean: mean cIoU; @area: cIoU@0.5 with as many pixels as the ground truth; peak: hottest pixel in it"
_percent = partial(percent, absent="-")
_WIDEST = 10_000  # columns, more than any table has
_MAP_LABELS = {"shipped": "as shipped", "av": "audio-visual", "object": "object prior", "detr": "DETR attention"}


def print_session(session: Session, *, as_json: bool) -> None:
    """Print scores of each model and protocol, then of groups of runs and pairs of models."""
    if as_json:
        records: list[EvalReport | RunsSummary | Comparison] = list(session.evaluation.reports)
        for entry in (*records, *session.summaries, *session.comparisons):
            print_json(entry.as_json())
        if session.table:
            print_json(session.table)
        return
    out = console(stderr=False)
    if session.table:
        _print_table(out, session.table)
        _print_baselines(out, session.evaluation.reports)
    for report in session.chosen:
        _print_scores(out, report)
    for summary in session.summaries:
        _print_runs(out, summary)
    for comparison in session.comparisons:
        _print_comparison(out, comparison)


def _print_scores(out: Console, report: EvalReport) -> None:
    title = f"{shorten(report.model)} (sha256 {report.model_hash[:12]})" if report.model else "baselines alone"
    has_epochs = report.model and EXTERNAL not in report.maps
    epoch = f", epoch chosen by: {report.selection}" if has_epochs else ""
    out.print(f"{shorten(report.testset)}: {title}{epoch}")
    out.print(_score_table(out, report))
    out.print(_LEGEND)
    out.print(_protocol_line(report))
    _print_further(out, report)
    for row in report.cost:
        size = f"{row['parameters'] / 1e6:.2f} M parameters, {row['multiply_adds'] / 1e9:.2f} G multiply-adds"
        out.print(f"{row['name']}: {size}, {row['spectrogram_frames']} spectrogram frames {row['note']}".rstrip())
    pairs = f", {len(report.missing_pairs)} silent pairs missing" if report.missing_pairs else ""
    out.print(f"scored {report.n_scored} of {report.n_expected} expected clips, {len(report.missing)} missing{pairs}")
    missing = [*report.missing.items(), *report.missing_pairs.items()]
    for clip_id, reason in missing[:10]:
        out.print(f"  missing {shorten(clip_id)}: {shorten(reason)}")
    if len(missing) > 10:
        out.print(f"  ... and {len(missing) - 10} more (--json names all)")
    if report.empty_truths:
        count = len(report.empty_truths)
        named = ", ".join(map(shorten, report.empty_truths[:3])) + (", ..." if count > 3 else "")
        out.print(f"{count} of these have an empty ground truth and score 0: {named}")


def _print_further(out: Console, report: EvalReport) -> None:
    """Print scores specific to extended sets, wrong sounds, masks or several sources."""
    for kind, ext in report.extended.items():
        exact = f"AP {_percent(ext.ap)}  max F1 {_percent(ext.max_f1)}  LocAcc {_percent(ext.loc_acc)}"
        slavc = (
            f"AP {_percent(ext.slavc_ap)}  max F1 {_percent(ext.slavc_max_f1)}  LocAcc {_percent(ext.slavc_loc_acc)}"
        )
        out.print(f"{kind}: {exact}  ({ext.n_sounding} sounding, {ext.n_silent} silent; SLAVC's rule: {slavc})")
    for rule, neg in report.negatives.items():
        pia = ", ".join(f"{kind} {_percent(value)}" for kind, value in neg.pia.items() if not math.isnan(value))
        scores = f"cIoU@0.5 {_percent(neg.ciou_50)}  F_LOC {_percent(neg.f_loc)}  F_AUC {_percent(neg.f_auc)}"
        out.print(f"wrong sounds, cosine above {neg.threshold:.4f} ({rule} of the wrong sounds' peaks):")
        out.print(f"  {scores}; marked share of the picture (pIA): {pia}")
    for kind, src in report.sources.items():
        out.print(f"{kind}: IIoU@0.5 {_percent(src.iiou_50)}  IAUC {_percent(src.iauc)}  ({src.n_pictures} pictures)")
    for kind, scores_of in report.maps.items():
        if not math.isnan(scores_of.miou):
            out.print(f"{kind}: mIoU {_percent(scores_of.miou)}  F-score {_percent(scores_of.max_f)}")


def _print_runs(out: Console, summary: RunsSummary) -> None:
    for rule, block in summary.blocks.items():
        n = len(block.runs)
        out.print(f"{shorten(summary.testset)}, protocol {summary.protocol.name}: {n} run{'s' * (n > 1)}, {rule}")
        for kind, metrics in block.maps.items():
            values = (_mean_std(metrics[name]) for name in ("ciou_50", "auc", "mean_ciou"))
            out.print("  {:<12} cIoU@0.5 {}  AUC {}  mean cIoU {}".format(kind, *values))
        for run in block.runs:
            scores = "  ".join(f"{kind} {_percent(values['ciou_50'])}" for kind, values in run.maps.items())
            out.print(f"    {shorten(run.run)}, seed {run.seed}, epoch {run.epoch}: {scores}")
    if summary.unfinished:
        out.print(f"  not trained to the end: {', '.join(map(shorten, summary.unfinished))}")


def _print_table(out: Console, table: dict[str, Any]) -> None:
    """Print published rows, each followed by our results."""
    number = f"Table {table['number']}: " if table["number"] else ""
    out.print(f"{number}{table['title']} (published by the source in brackets; cIoU@0.5, AUC)")
    for line in table["rows"]:
        row = line["row"]
        std = f" +- {_percent(row['ciou_50_std'])}" if row["ciou_50_std"] is not None else ""
        auc = "-" if row["auc"] is None else _percent(row["auc"])
        where = f"{row['train_list'] or 'unspecified'} -> {row['testset']}"
        notes = f"; {row['note']}" if row["note"] else ""
        out.print(f"{row['label']}, {where}: {_percent(row['ciou_50'])}{std}, {auc} [{row['source']}{notes}]")
        if line["status"] == "not run":
            out.print(f"    ours: not run: {line['reason']}")
        for ours in line["ours"]:
            scores = f"{_mean_std(ours['ciou_50'])}, {_mean_std(ours['auc'])}"
            runs = f"{len(ours['runs'])} run{'s' * (len(ours['runs']) != 1)}, {ours['selection']}"
            clips = f"{ours['n_scored']} of {ours['n_expected']} clips, protocol {ours['protocol']}"
            out.print(f"    ours: {scores} ({runs}, {clips})")
            for note in ours["notes"]:
                out.print(f"      {note}")


def _print_baselines(out: Console, reports: Sequence[EvalReport]) -> None:
    """Print the baselines without model, once per test set and protocol."""
    for report in {(report.testset, report.protocol.name): report for report in reports}.values():
        out.print(f"baselines on {shorten(report.testset)}, protocol {report.protocol.name}, {report.n_scored} clips:")
        for name, scores in report.baselines.items():
            out.print(f"    {name}: {_percent(scores.overall.ciou_50)}, {_percent(scores.overall.auc)}")


def _mean_std(value: dict[str, float]) -> str:
    spread = "" if math.isnan(value["std"]) else f" +- {_percent(value['std'])}"
    return f"{_percent(value['mean'])}{spread}"


def _print_comparison(out: Console, comparison: Comparison) -> None:
    a, b = (
        f"{shorten(comparison.a)} ({comparison.a_selection})",
        f"{shorten(comparison.b)} ({comparison.b_selection})",
    )
    out.print(f"{a} minus {b}, {comparison.n} clips, protocol {comparison.protocol.name}")
    out.print("percent points, 95 % interval and p of a paired bootstrap over the clips")
    for kind, metrics in comparison.maps.items():
        for name, value in metrics.items():
            interval = f"95 % {_percent(value['low'])} to {_percent(value['high'])}, p {value['p']:.3f}"
            out.print(f"  {kind:<12} {METRIC_LABELS[name]:<9} {100 * value['difference']:+.2f} ({interval})")


def _protocol_line(report: EvalReport) -> str:
    protocol = report.protocol
    cut = "the median" if protocol.threshold == "median" else "0.5"
    shipped = "; shipped: " + ", ".join(filter(None, report.shipped.values())) if report.shipped else ""
    strict = "" if protocol.success == ">=" else "success above 0.5, "
    return (
        f"protocol {protocol.name}: {protocol.resize} to {protocol.side} px, min-max, inside where "
        f"{protocol.comparison} {cut}, {strict}{protocol.boxes} boxes ({report.box_rule}), "
        f"{protocol.precision}{shipped}"
    )


def _score_table(out: Console, report: EvalReport) -> Table:
    """A table as wide as its cells, so that a narrow terminal wraps lines instead of truncating numbers."""
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("map", "cIoU@0.5", "95 %", "AUC", "mean", "@area", "peak", "n"):
        table.add_column(name, no_wrap=True, justify="left" if name == "map" else "right")
    for kind, scores in report.maps.items():
        table.add_row(_map_name(kind, report), *_cells(scores))
    for kind, reason in report.not_run.items():
        table.add_row(_map_name(kind, report), "not run", reason)
    for kind, scores in {**report.sweep, **report.baselines}.items():
        table.add_row(kind, *_cells(scores), style="dim")
    table.width = Measurement.get(out, out.options.update(max_width=_WIDEST), table).maximum
    return table


def _cells(scores: MapScores) -> list[str]:
    low, high = scores.interval.get("ciou_50", (math.nan, math.nan))
    values = (scores.overall.auc, scores.overall.mean_ciou, scores.area.ciou_50, scores.pointing)
    interval = "-" if math.isnan(low) else f"{100 * low:.1f}-{100 * high:.1f}"
    return [_percent(scores.overall.ciou_50), interval, *map(_percent, values), str(scores.overall.n)]


def _map_name(kind: str, report: EvalReport) -> str:
    weights = {"fused": report.protocol.fused, "fused-detr": report.protocol.fused_detr}.get(kind)
    if weights is None:
        network = report.priors.get(kind, {}).get("network", "")
        return f"object ({network})" if kind == "object" and network else _MAP_LABELS.get(kind, kind)
    short = {"av": "AV", "object": "object", "detr": "DETR"}
    if len(set(weights.values())) == 1:
        return " + ".join(short[name] for name in weights)
    return " + ".join(f"{weight:g} {short[name]}" for name, weight in weights.items())
