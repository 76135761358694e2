"""The changes that a command makes to the files of a folder, as `fault_injection` logs them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

FLUSHED, _RENAMED = "flushed", "os.rename"


@dataclass(frozen=True)
class Change:
    second: float
    """Seconds since the first change of the run."""
    event: str
    path: str
    """The new path for a rename."""

    def __str__(self) -> str:
        return f"{self.event} {self.path}"

    def ends(self, lap: str) -> bool:
        """Whether this renames a file to its final name `lap`."""
        return self.event == _RENAMED and Path(self.path).name == lap


class ChangeLog:
    """A log file with one line for each change and for each flushed folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._began = time.monotonic()

    def write(self, event: str, path: str) -> None:
        with self.path.open("a") as log:
            log.write(f"{time.monotonic() - self._began} {event} {path}\n")

    def read(self) -> list[Change]:
        """All lines; an empty list if nothing was logged."""
        if not self.path.exists():
            return []
        entries = [line.split(" ", 2) for line in self.path.read_text().splitlines()]
        return [Change(float(second) - float(entries[0][0]), event, path) for second, event, path in entries]


def changed(lines: Sequence[Change]) -> list[Change]:
    """Changes at which an interruption can be timed."""
    return [line for line in lines if line.event != FLUSHED]


def unsafe_writes(lines: Sequence[Change]) -> list[str]:
    """Writes that an interruption or a power cut could corrupt."""
    in_place = [f"{line} writes under a final name" for line in lines if _is_in_place(line)]
    return in_place + [f"{line} is not flushed at once" for line in _unflushed(lines)]


def _is_in_place(line: Change) -> bool:
    path = Path(line.path)
    return line.event == "open" and not path.name.startswith(".") and not path.is_dir()


def _unflushed(lines: Sequence[Change]) -> list[Change]:
    """Renames whose folder is not flushed at once, so that a power cut could undo them."""
    following = zip(lines, [*lines[1:], None], strict=True)
    return [
        line
        for line, after in following
        if line.event == _RENAMED
        and (after is None or (after.event, after.path) != (FLUSHED, str(Path(line.path).parent)))
    ]


@dataclass(frozen=True)
class Span:
    """A part of a run."""

    changes: int
    seconds: float


EMPTY_SPAN = Span(0, 0.0)


def startup(changes: Sequence[Change]) -> Span:
    """The start of a run: up to and including the first file with a final name."""
    first = next(number for number, change in enumerate(changes) if change.event == _RENAMED)
    return Span(first + 1, changes[first].second)


def rest(changes: Sequence[Change], done: int = 0, lap: str = "") -> Span:
    """What is left of a run after `done` changes, up to the end of the current lap."""
    left = list(takewhile(lambda change: not change.ends(lap), changes[done:]))
    return Span(max(1, len(left)), left[-1].second - left[0].second if left else 0.0)
