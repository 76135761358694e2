"""Progress, notices and the results of most commands."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avloc.json_text import finite
from avloc.progress import Event, Listener, Notice, Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars

    from avloc.distill import DistillReport
    from avloc.localize import InputDone, Localization
    from avloc.prepare import PrepareReport
    from avloc.train import TrainReport

_HEARTBEAT_S = 300.0


def console(*, stderr: bool) -> Console:
    """A Rich console on standard error or output."""
    from rich.console import Console

    # soft_wrap keeps a message on one line in logs and pipes; without markup, brackets in paths are literal.
    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)


def escape(text: str) -> str:
    """Untrusted text on one line, with unprintable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(text: str, most: int = 100) -> str:
    """Untrusted text on one line, shortened in the middle to `most` characters."""
    plain = escape(text)
    half = (most - 3) // 2
    return plain if len(plain) <= most else f"{plain[:half]}...{plain[-half:]}"


def print_error(text: str, hint: str) -> None:
    """Print an error and its hint, one line each."""
    out = console(stderr=True)
    out.print(f"avloc: {escape(text)}", style="bold red")
    if hint:
        out.print(f"  {escape(hint)}")


@contextmanager
def live(clock: Callable[[], float] = time.monotonic) -> Iterator[Listener]:
    """Listener that prints notices and progress: bars on a terminal, else milestones and a line every 5 minutes."""
    out = console(stderr=True)
    if not out.is_terminal:
        yield _listener(out, _LinePrinter(out, clock).show)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Bars(*columns, console=out, transient=True) as bars:
        yield _listener(out, _BarPrinter(bars).show)


def _listener(out: Console, show_progress: Callable[[Progress], None]) -> Listener:
    def handle(event: Event) -> None:
        if isinstance(event, Notice):
            out.print(f"avloc: {escape(event.text)}", style="yellow")
        else:
            show_progress(event)

    return handle


class _LinePrinter:
    def __init__(self, out: Console, clock: Callable[[], float]) -> None:
        self.out, self.clock, self.last_print = out, clock, clock()

    def show(self, event: Progress) -> None:
        now = self.clock()
        if event.milestone or now - self.last_print >= _HEARTBEAT_S:
            self.last_print = now
            count = f"{event.done}/{event.total}" if event.total is not None else str(event.done)
            self.out.print(f"avloc: {escape(f'{event.task} {count}  {event.detail}').rstrip()}")


class _BarPrinter:
    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.tasks: dict[str, Any] = {}

    def show(self, event: Progress) -> None:
        if event.task not in self.tasks:
            self.tasks[event.task] = self.bars.add_task(escape(event.task), total=event.total, detail="", rate="")
        task = self.tasks[event.task]
        speed = self.bars.tasks[self.bars.task_ids.index(task)].speed
        rate = f"{speed:.3g}/s" if speed else ""
        self.bars.update(task, completed=event.done, total=event.total, detail=escape(event.detail), rate=rate)


def print_json(value: object) -> None:
    """Print JSON on one line; NaN becomes null."""
    unicode = (sys.stdout.encoding or "utf").lower().startswith("utf")
    text = json.dumps(finite(value), ensure_ascii=not unicode)
    # Escape what JSON itself leaves: non-ASCII control characters, and lone surrogates of file names.
    sys.stdout.write("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text) + "\n")
    sys.stdout.flush()


def print_lines(lines: Iterable[str]) -> None:
    """Print lines of text on standard output."""
    out = console(stderr=False)
    for line in lines:
        out.print(line)


def _print_fields(fields: Mapping[str, object]) -> None:
    """Print one field per line, with aligned values."""
    width = max(map(len, fields))
    print_lines(f"{name.replace('_', ' '):<{width}}  {escape(_short(value))}" for name, value in fields.items())


def print_preparation(report: PrepareReport, *, as_json: bool) -> None:
    """Print the report of `prepare`."""
    fields = asdict(report)
    if as_json:
        print_json({**fields, "exit_code": report.exit_code})
    else:
        _print_fields({name: value for name, value in fields.items() if value is not None})


def _short(value: object) -> str:
    """A value as text; lists are abbreviated to their length and first entries."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, list | tuple):
        more = ", ..." if len(value) > 5 else ""
        first = ", ".join(_short(entry) for entry in value[:5])
        return f"{len(value)}" + (f": {first}{more}" if value else "")
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def print_distillation(report: DistillReport, *, as_json: bool) -> None:
    """Print the report of `distill-cache`."""
    if as_json:
        print_json(asdict(report))
        return
    if report.shard:
        _print_fields({"shard": report.shard})
    for teacher in asdict(report)["teachers"]:
        _print_fields(teacher)


def print_training(report: TrainReport, *, as_json: bool) -> None:
    """Print the report of `train`."""
    if as_json:
        print_json(asdict(report))
        return
    fields = {
        "run": report.run + (" (dry run)" if report.dry_run else ""),
        "clips": f"{report.clips}, {report.steps_per_epoch} steps an epoch",
        "parameters": f"{report.parameters:,}",
        "precision": report.precision,
        "epochs": f"{report.epochs_done} of {report.epochs}" + (" (interrupted)" if report.interrupted else ""),
        "selection": report.selection,
    }
    if report.metrics:
        last = report.metrics[-1]
        fields["last epoch"] = "  ".join(f"{key} {value:.4g}" for key, value in last.items() if key != "epoch")
    _print_fields(fields)


def print_localization(result: Localization, listener: Listener, *, as_json: bool) -> None:
    """Print the result at one time: JSON, or the paths of its files."""
    if result.error:
        listener(Notice(f"{result.input}: {result.error}"))
    if as_json:
        print_json(result.as_json())
    else:
        print_paths(result.written)


def print_input_done(done: InputDone, listener: Listener, *, as_json: bool) -> None:
    """Print the files with all times of an input, and its verdict."""
    if not as_json:
        print_paths(done.written)
    if done.skipped:
        listener(Notice(f"{done.input}: skipped, its output exists"))
    elif done.summary and not as_json:
        listener(Notice(f"{done.input}: {done.summary}"))


def print_paths(paths: Iterable[Path]) -> None:
    """Print paths, one a line: unchanged to a pipe, escaped on a terminal."""
    for path in paths:
        sys.stdout.write(f"{escape(str(path)) if sys.stdout.isatty() else path}\n")
        sys.stdout.flush()
