"""Progress events: commands emit them to a listener, and only `avloc.console` displays them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`done` of `total` steps of `task`; `total` is None if unknown; `detail` is a short live status text."""

    task: str
    done: int
    total: int | None = None
    detail: str = ""
    milestone: bool = False
    """Whether a stage such as an epoch ends here; a log file gets one line for it."""


@dataclass(frozen=True)
class Notice:
    """A one-line message to the user: a warning, a skipped input, an automatic choice."""

    text: str


Event = Progress | Notice
Listener = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Discard every event."""
