"""What `eval` and `localize --events` print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from avloc.console.terminal import console, print_json, print_path, shown
from avloc.progress import Listener, Notice

if TYPE_CHECKING:
    from rich.console import Console

    from avloc.evaluate import EventReport
    from avloc.localize.events import Told

_CONFUSIONS = 5


def print_events(reports: Sequence[EventReport], *, as_json: bool) -> None:
    """Scores of each model beside what needs none."""
    out = console(stderr=False)
    for report in reports:
        if as_json:
            print_json(report.as_json())
        else:
            _print(out, report)


def print_told(told: Told, listener: Listener, *, as_json: bool) -> None:
    """One input: JSON, or the path that was written and its events in a line each on standard error."""
    if told.error:
        listener(Notice(f"{told.input}: {told.error}"))
    if as_json:
        print_json(told.as_json())
        return
    if told.timeline is not None:
        spans = told.timeline.spans
        said = [f"{span.event} {span.start}-{span.end} s ({100 * span.confidence:.0f} %)" for span in spans]
        quiet = int(told.timeline.silent.sum())
        rest = f"; {quiet} of {len(told.timeline.silent)} seconds are silent" if quiet else ""
        listener(Notice(f"{told.input}: {', '.join(said) or 'no event'}{rest}"))
    if told.written is not None:
        print_path(told.written)


def _print(out: Console, report: EventReport) -> None:
    split = ", without videos that are trained on too" if report.clean_split else ""
    title = f"{shown(report.model)} (sha256 {report.model_hash[:12]}), epoch chosen by: {shown(report.selection)}"
    out.print(f"{report.testset}{split}: {title}")
    if report.classes:
        _print_telling(out, report)
    else:
        _print_matching(out, report)
    for name, value in report.baselines.items():
        out.print(f"  {name + ', no model':<28} {_percent(value)}")
    if report.shared:
        out.print(f"{len(report.shared)} videos of the test part are in the training part too")
    out.print(f"scored {report.n_scored} of {report.n_expected} expected rows, {len(report.missing)} missing")
    for clip in report.missing[:10]:
        out.print(f"  missing {shown(clip)}: it has no features")
    if len(report.missing) > 10:
        out.print(f"  ... and {len(report.missing) - 10} more (--json names all)")


def _print_telling(out: Console, report: EventReport) -> None:
    out.print(f"  {'accuracy per second':<28} {_percent(report.accuracy)}")
    for name, value, counts in zip(report.classes, report.class_accuracy, report.confusion, strict=True):
        if not math.isnan(value):
            out.print(f"    {shown(name, 26):<26} {_percent(value)}  of {sum(counts)} seconds")
    pairs = [
        (count, truth, told)
        for truth, row in zip(report.classes, report.confusion, strict=True)
        for told, count in zip(report.classes, row, strict=True)
        if count and told != truth
    ]
    for count, truth, told in sorted(pairs, key=lambda pair: -pair[0])[:_CONFUSIONS]:
        out.print(f"    {shown(truth)} told to be {shown(told)}: {count} seconds")


def _print_matching(out: Console, report: EventReport) -> None:
    out.print(f"  {'seen, found in the sound':<28} {_percent(report.visual_to_audio)}")
    out.print(f"  {'heard, found in the picture':<28} {_percent(report.audio_to_visual)}")
    out.print(f"  ({report.skipped} rows have nothing to search: the event fills them, or never is)")


def _percent(value: float) -> str:
    return "    -" if math.isnan(value) else f"{100 * value:5.1f}"
