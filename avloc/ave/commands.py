"""What `eval --testset ave` and `localize --events` run (`avloc.option_rules`), and what they print."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from avloc.ave.evaluation import EventReport, evaluate_events
from avloc.ave.localization import VideoEvents, localize_events
from avloc.console.terminal import live, print_json, print_lines, print_paths, shorten
from avloc.evaluate import check_missing
from avloc.progress import Listener, Notice
from avloc.report.tables import percent

_CONFUSIONS = 5


def evaluate(
    *,
    testset: str,
    store: Path | None,
    run: Sequence[Path] | None,
    model: Sequence[Path] | None,
    clean_split: bool,
    max_missing: int,
    device: str,
    as_json: bool,
) -> None:
    """Score models on the test part of AVE and print the reports.

    Raises:
        NoInputLeft: no row has features.
        MissingClips: more rows than `max_missing` have none.
    """
    models = (*(run or ()), *(model or ()))
    with live() as listener:
        reports = evaluate_events(models, testset, store, clean_split=clean_split, device=device, listener=listener)
    for report in reports:
        if as_json:
            print_json(report.as_json())
        else:
            print_lines(_report_lines(report))
    missing = [f"{clip}: it has no features" for clip in reports[0].missing]
    check_missing(missing, reports[0].n_scored, max_missing, unit="row")


def localize(
    *,
    inputs: Sequence[str],
    out: Sequence[str] | None,
    model: Path | None,
    weights_dir: Path | None,
    device: str,
    as_json: bool,
) -> tuple[list[str], int, bool]:
    """Predict and print the events of each input.

    Returns:
        The inputs that failed, the number of inputs, and whether a timeline does not cover all of its video.
    """
    outs = tuple(filter(None, out or ()))
    failed: list[str] = []
    count, incomplete = 0, False
    with (
        live() as listener,
        closing(localize_events(inputs, model, outs, weights_dir, device, listener, as_json=as_json)) as results,
    ):
        for result in results:
            _print_video_events(result, listener, as_json=as_json)
            count += 1
            failed += [result.input] if result.timeline is None else []
            incomplete = incomplete or bool(result.error)
    return failed, count, incomplete


def _print_video_events(result: VideoEvents, listener: Listener, *, as_json: bool) -> None:
    """Print one input: JSON, or the written path, and its events as a notice."""
    if result.error:
        listener(Notice(f"{result.input}: {result.error}"))
    if as_json:
        print_json(result.as_json())
        return
    if result.timeline is not None:
        events = [f"{x.event} {x.start}-{x.end} s ({100 * x.confidence:.0f} %)" for x in result.timeline.spans]
        silent = int(result.timeline.silent.sum())
        rest = f"; {silent} of {len(result.timeline.silent)} seconds are silent" if silent else ""
        listener(Notice(f"{result.input}: {', '.join(events) or 'no event'}{rest}"))
    print_paths(result.written)


def _report_lines(report: EventReport) -> Iterator[str]:
    split = ", without videos of the training part" if report.clean_split else ""
    model = f"{shorten(report.model)} (sha256 {report.model_hash[:12]}), epoch chosen by: {shorten(report.selection)}"
    yield f"{report.testset}{split}: {model}"
    yield from _accuracy_lines(report) if report.classes else _matching_lines(report)
    for name, value in report.baselines.items():
        yield f"  {name + ', no model':<28} {_percent(value)}"
    if report.shared:
        yield f"{len(report.shared)} videos of the test part are in the training part too"
    yield f"scored {report.n_scored} of {report.n_expected} expected rows, {len(report.missing)} missing"
    for clip in report.missing[:10]:
        yield f"  missing {shorten(clip)}: it has no features"
    if len(report.missing) > 10:
        yield f"  ... and {len(report.missing) - 10} more (--json names all)"


def _accuracy_lines(report: EventReport) -> Iterator[str]:
    yield f"  {'accuracy per second':<28} {_percent(report.accuracy)}"
    for name, value, counts in zip(report.classes, report.class_accuracy, report.confusion, strict=True):
        if not math.isnan(value):
            yield f"    {shorten(name, 26):<26} {_percent(value)}  of {sum(counts)} seconds"
    pairs = [
        (count, truth, predicted)
        for truth, row in zip(report.classes, report.confusion, strict=True)
        for predicted, count in zip(report.classes, row, strict=True)
        if count and predicted != truth
    ]
    for count, truth, predicted in sorted(pairs, key=lambda pair: -pair[0])[:_CONFUSIONS]:
        yield f"    {shorten(truth)} predicted as {shorten(predicted)}: {count} seconds"


def _matching_lines(report: EventReport) -> Iterator[str]:
    yield f"  {'visual to audio':<28} {_percent(report.visual_to_audio)}"
    yield f"  {'audio to visual':<28} {_percent(report.audio_to_visual)}"
    yield f"  ({report.skipped} rows cannot be matched: the event fills the clip, or there is none)"


def _percent(value: float) -> str:
    return f"{percent(value, 1, '-'):>5}"
