"""The terminal: progress and notices on standard error, results on standard output. Nobody else knows Rich."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from avloc.events import Event, Listener, Notice, Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.table import Table

    from avloc.distill import DistillReport
    from avloc.evaluate import EvalReport, MapScores, Session
    from avloc.evaluate.runs import Comparison, RunsSummary
    from avloc.localize import Localization
    from avloc.prepare import PrepareReport
    from avloc.train import TrainReport


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    # soft_wrap keeps one message one line in logs and pipes; markup off, so that a path with brackets stays itself.
    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)


def print_error(text: str, hint: str) -> None:
    """One line of what went wrong and one of what to do."""
    out = _console(stderr=True)
    out.print(f"avloc: {text}", style="bold red")
    if hint:
        out.print(f"  {hint}")


@contextmanager
def live() -> Iterator[Listener]:
    """A listener that draws bars with rate and time left on a terminal, and prints notices everywhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    out = _console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Bars(*columns, console=out, transient=True, disable=not out.is_terminal) as bars:
        yield _Drawer(bars, out).hear


class _Drawer:
    def __init__(self, bars: Bars, out: Console) -> None:
        self.bars, self.out = bars, out
        self.tasks: dict[str, Any] = {}

    def hear(self, event: Event) -> None:
        match event:
            case Notice():
                self.out.print(f"avloc: {event.text}", style="yellow")
            case Progress():
                self._draw(event)

    def _draw(self, event: Progress) -> None:
        if event.task not in self.tasks:
            self.tasks[event.task] = self.bars.add_task(event.task, total=event.total, detail="", rate="")
        task = self.tasks[event.task]
        speed = self.bars.tasks[self.bars.task_ids.index(task)].speed
        rate = f"{speed:.3g}/s" if speed else ""
        self.bars.update(task, completed=event.done, total=event.total, detail=event.detail, rate=rate)


def _print_json(value: object) -> None:
    """One JSON value a line; not-a-number becomes null, since JSON has no such thing."""
    text = json.dumps(_finite(value), ensure_ascii=False)
    # A file name that is no UTF-8 holds lone surrogates; `\udce9` is also how JSON writes one.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def _lines(rows: Sequence[tuple[str, object]]) -> None:
    out = _console(stderr=False)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        out.print(f"{name:<{width}}  {value}")


def print_preparation(report: PrepareReport, *, as_json: bool) -> None:
    """What `prepare` did, or would do."""
    data = {**asdict(report), "exit_code": report.exit_code}
    if as_json:
        _print_json(data)
        return
    _lines([(name.replace("_", " "), _short(value)) for name, value in data.items() if name != "exit_code"])


def _short(value: object) -> object:
    """Long lists by their length and first entries; the whole stands in the files."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, list | tuple):
        more = ", ..." if len(value) > 5 else ""
        shown = ", ".join(str(_short(entry)) for entry in value[:5])
        return f"{len(value)}" + (f": {shown}{more}" if value else "")
    return f"{value:.3g}" if isinstance(value, float) else value


def print_distillation(report: DistillReport, *, as_json: bool) -> None:
    """What `distill-cache` did."""
    if as_json:
        _print_json(asdict(report))
        return
    for teacher in asdict(report)["teachers"]:
        _lines([(name.replace("_", " "), _short(value)) for name, value in teacher.items()])


def print_training(report: TrainReport, *, as_json: bool) -> None:
    """Where a run stands."""
    if as_json:
        _print_json(asdict(report))
        return
    rows: list[tuple[str, object]] = [
        ("run", report.run + (" (dry run)" if report.dry_run else "")),
        ("clips", f"{report.clips}, {report.steps_per_epoch} steps an epoch"),
        ("parameters", f"{report.parameters:,}"),
        ("precision", report.precision),
        ("epochs", f"{report.epochs_done} of {report.epochs}" + (" (interrupted)" if report.interrupted else "")),
        ("selection", report.selection),
    ]
    if report.metrics:
        last = report.metrics[-1]
        rows.append(("last epoch", "  ".join(f"{key} {value:.4g}" for key, value in last.items() if key != "epoch")))
    _lines(rows)


_LEGEND = (
    "percent; mean: mean cIoU; @area: cIoU@0.5 with as many pixels as the truth has; peak: hottest pixel in the truth"
)
_SINGLE = {"av": "audio-visual", "object": "object prior", "detr": "DETR attention"}


def print_session(session: Session, *, as_json: bool) -> None:
    """Scores of each model under each protocol, then of groups of runs and of pairs of models."""
    if as_json:
        records: list[EvalReport | RunsSummary | Comparison] = list(session.evaluation.reports)
        for entry in (*records, *session.summaries, *session.comparisons):
            _print_json(entry.as_json())
        return
    out = _console(stderr=False)
    for report in session.chosen:
        _print_scores(out, report)
    for summary in session.summaries:
        _print_runs(out, summary)
    for comparison in session.comparisons:
        _print_comparison(out, comparison)


def _print_scores(out: Console, report: EvalReport) -> None:
    title = f"{report.model} (sha256 {report.model_hash[:12]})" if report.model else "baselines alone"
    out.print(f"{report.testset}: {title}")
    out.print(_score_table(report))
    out.print(_LEGEND)
    out.print(_protocol_line(report))
    _print_further(out, report)
    for row in report.cost:
        size = f"{row['parameters'] / 1e6:.2f} M parameters, {row['multiply_adds'] / 1e9:.2f} G multiply-adds"
        out.print(f"{row['name']}: {size}, {row['spectrogram_frames']} spectrogram frames {row['note']}".rstrip())
    out.print(f"scored {report.n_scored} of {report.n_expected} expected clips, {len(report.missing)} missing")
    for clip_id, reason in list(report.missing.items())[:10]:
        out.print(f"  missing {clip_id}: {reason}")
    if len(report.missing) > 10:
        out.print(f"  ... and {len(report.missing) - 10} more (--json names all)")


def _print_further(out: Console, report: EvalReport) -> None:
    """Scores that only extended sets, wrong sounds, masks or several sources have."""
    for kind, ext in report.extended.items():
        exact = f"AP {_percent(ext.ap)}  max F1 {_percent(ext.max_f1)}  LocAcc {_percent(ext.loc_acc)}"
        slavc = (
            f"AP {_percent(ext.slavc_ap)}  max F1 {_percent(ext.slavc_max_f1)}  LocAcc {_percent(ext.slavc_loc_acc)}"
        )
        out.print(f"{kind}: {exact}  ({ext.n_sounding} sounding, {ext.n_silent} silent; as SLAVC counts: {slavc})")
    for rule, neg in report.negatives.items():
        pia = ", ".join(f"{kind} {_percent(value)}" for kind, value in neg.pia.items())
        scores = f"cIoU@0.5 {_percent(neg.ciou_50)}  F_LOC {_percent(neg.f_loc)}  F_AUC {_percent(neg.f_auc)}"
        out.print(f"wrong sounds, threshold {rule} = {neg.threshold:.4f}: {scores}  pIA: {pia}")
    for kind, src in report.sources.items():
        out.print(f"{kind}: IIoU@0.5 {_percent(src.iiou_50)}  IAUC {_percent(src.iauc)}  ({src.n_pictures} pictures)")
    for kind, scores_of in report.maps.items():
        if not math.isnan(scores_of.miou):
            out.print(f"{kind}: mIoU {_percent(scores_of.miou)}  F-score {_percent(scores_of.max_f)}")


def _print_runs(out: Console, summary: RunsSummary) -> None:
    for rule, block in summary.blocks.items():
        n = len(block.runs)
        out.print(f"{summary.testset}, protocol {summary.protocol.name}: {n} run{'s' * (n > 1)}, {rule}")
        for kind, metrics in block.maps.items():
            values = (_mean_std(metrics[name]) for name in ("ciou_50", "auc", "mean_ciou"))
            out.print("  {:<12} cIoU@0.5 {}  AUC {}  mean cIoU {}".format(kind, *values))
        for run in block.runs:
            scores = "  ".join(f"{kind} {_percent(values['ciou_50'])}" for kind, values in run.maps.items())
            out.print(f"    {run.run}, seed {run.seed}, epoch {run.epoch}: {scores}")
    if summary.unfinished:
        out.print(f"  not trained to the end: {', '.join(summary.unfinished)}")


def _mean_std(value: dict[str, float]) -> str:
    return f"{_percent(value['mean'])} +- {_percent(value['std'])}"


def _print_comparison(out: Console, comparison: Comparison) -> None:
    out.print(f"{comparison.a} minus {comparison.b}, {comparison.n} clips, protocol {comparison.protocol.name}")
    for kind, metrics in comparison.maps.items():
        for name, value in metrics.items():
            low, high = _percent(value["low"]), _percent(value["high"])
            out.print(
                f"  {kind:<12} {name:<9} {100 * value['difference']:+.2f} (95 % {low} to {high}, p {value['p']:.3f})"
            )


def _protocol_line(report: EvalReport) -> str:
    protocol = report.protocol
    cut = "the median" if protocol.threshold == "median" else "0.5"
    return (
        f"protocol {protocol.name}: {protocol.resize} to {protocol.side} px, min-max, inside where "
        f"{protocol.comparison} {cut}, {protocol.boxes} boxes ({report.box_rule}), {protocol.precision}"
    )


def _score_table(report: EvalReport) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")  # 80 columns hold it
    for name in ("map", "cIoU@0.5", "95 %", "AUC", "mean", "@area", "peak", "n"):
        table.add_column(name, no_wrap=True, justify="left" if name == "map" else "right")
    for kind, scores in report.maps.items():
        table.add_row(_map_name(kind, report), *_cells(scores))
    for kind, reason in report.not_run.items():
        table.add_row(_map_name(kind, report), "not run", reason)
    for kind, scores in {**report.sweep, **report.baselines}.items():
        table.add_row(kind, *_cells(scores), style="dim")
    return table


def _cells(scores: MapScores) -> list[str]:
    low, high = scores.interval.get("ciou_50", (math.nan, math.nan))
    values = (scores.overall.auc, scores.overall.mean_ciou, scores.area.ciou_50, scores.pointing)
    interval = "-" if math.isnan(low) else f"{100 * low:.1f}-{100 * high:.1f}"
    return [_percent(scores.overall.ciou_50), interval, *map(_percent, values), str(scores.overall.n)]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _map_name(kind: str, report: EvalReport) -> str:
    weights = {"fused": report.protocol.fused, "fused-detr": report.protocol.fused_detr}.get(kind)
    if weights is None:
        return _SINGLE[kind]
    short = {"av": "AV", "object": "object", "detr": "DETR"}
    if len(set(weights.values())) == 1:
        return " + ".join(short[name] for name in weights)
    return " + ".join(f"{weight:g} {short[name]}" for name, weight in weights.items())


def print_localization(result: Localization, listener: Listener, *, as_json: bool) -> None:
    """One line a result: JSON, or the path that was written."""
    if result.error:
        listener(Notice(f"{result.input}: {result.error}"))
    if as_json:
        _print_json(result.as_json())
    elif result.written is not None:
        sys.stdout.write(f"{result.written}\n")
        sys.stdout.flush()
