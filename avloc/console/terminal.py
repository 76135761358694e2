"""Progress, notices and the results of most commands."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def inert(text: str) -> str:
    """Untrusted text on one line, with unprintable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(text: str, most: int = 100) -> str:
    """Untrusted text on one line, shortened in the middle to `most` characters."""
    plain = inert(text)
    half = (most - 3) // 2
    return plain if len(plain) <= most else f"{plain[:half]}...{plain[-half:]}"


def print_error(text: str, hint: str) -> None:
    """Print an error and its hint, one line each."""
    out = console(stderr=True)
    out.print(f"avloc: {inert(text)}", style="bold red")
    if hint:
        out.print(f"  {inert(hint)}")


@contextmanager
def live(clock: Callable[[], float] = time.monotonic) -> Iterator[Listener]:
    """Listener that prints notices and progress: bars on a terminal, otherwise milestones and a line every 5 minutes.

    Args:
        clock: time in seconds.
    """
    out = console(stderr=True)
    if not out.is_terminal:
        yield _LinePrinter(out, clock).handle
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
        yield _BarPrinter(out, bars).handle


class _Printer:
    def __init__(self, out: Console) -> None:
        self.out = out

    def handle(self, event: Event) -> None:
        match event:
            case Notice():
                self.out.print(f"avloc: {inert(event.text)}", style="yellow")
            case Progress():
                self.show(event)

    def show(self, event: Progress) -> None:
        raise NotImplementedError


class _LinePrinter(_Printer):
    def __init__(self, out: Console, clock: Callable[[], float]) -> None:
        super().__init__(out)
        self.clock, self.last_print = clock, clock()

    def show(self, event: Progress) -> None:
        now = self.clock()
        if event.milestone or now - self.last_print >= _HEARTBEAT_S:
            self.last_print = now
            count = f"{event.done}/{event.total}" if event.total is not None else str(event.done)
            self.out.print(f"avloc: {inert(f'{event.task} {count}  {event.detail}').rstrip()}")


class _BarPrinter(_Printer):
    def __init__(self, out: Console, bars: Bars) -> None:
        super().__init__(out)
        self.bars = bars
        self.tasks: dict[str, Any] = {}

    def show(self, event: Progress) -> None:
        if event.task not in self.tasks:
            self.tasks[event.task] = self.bars.add_task(inert(event.task), total=event.total, detail="", rate="")
        task = self.tasks[event.task]
        speed = self.bars.tasks[self.bars.task_ids.index(task)].speed
        rate = f"{speed:.3g}/s" if speed else ""
        self.bars.update(task, completed=event.done, total=event.total, detail=inert(event.detail), rate=rate)


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


def _lines(rows: Sequence[tuple[str, object]]) -> None:
    width = max(len(name) for name, _ in rows)
    print_lines(f"{name:<{width}}  {inert(str(value))}" for name, value in rows)


def print_preparation(report: PrepareReport, *, as_json: bool) -> None:
    """Print the report of `prepare`."""
    data = {**asdict(report), "exit_code": report.exit_code}
    if as_json:
        print_json(data)
        return
    rows = [(name, value) for name, value in data.items() if name != "exit_code" and value is not None]
    _lines([(name.replace("_", " "), _short(value)) for name, value in rows])


def _short(value: object) -> object:
    """Abbreviate lists to their length and first entries."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, list | tuple):
        more = ", ..." if len(value) > 5 else ""
        shown = ", ".join(str(_short(entry)) for entry in value[:5])
        return f"{len(value)}" + (f": {shown}{more}" if value else "")
    return f"{value:.3g}" if isinstance(value, float) else value


def print_distillation(report: DistillReport, *, as_json: bool) -> None:
    """Print the report of `distill-cache`."""
    if as_json:
        print_json(asdict(report))
        return
    if report.shard:
        _lines([("shard", report.shard)])
    for teacher in asdict(report)["teachers"]:
        _lines([(name.replace("_", " "), _short(value)) for name, value in teacher.items()])


def print_training(report: TrainReport, *, as_json: bool) -> None:
    """Print the report of `train`."""
    if as_json:
        print_json(asdict(report))
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


def print_localization(result: Localization, listener: Listener, *, as_json: bool) -> None:
    """Print the result at one time: JSON, or the path of its file."""
    if result.error:
        listener(Notice(f"{result.input}: {result.error}"))
    if as_json:
        print_json(result.as_json())
    elif result.written is not None:
        print_path(result.written)


def print_input_done(done: InputDone, listener: Listener, *, as_json: bool) -> None:
    """Print the file with all times of an input, and its verdict."""
    if done.written is not None and not as_json:
        print_path(done.written)
    if done.skipped:
        listener(Notice(f"{done.input}: skipped, its output exists"))
    elif done.summary and not as_json:
        listener(Notice(f"{done.input}: {done.summary}"))


def print_path(path: Path) -> None:
    """Print a path: unchanged to a pipe, escaped on a terminal."""
    sys.stdout.write(f"{inert(str(path)) if sys.stdout.isatty() else path}\n")
    sys.stdout.flush()
