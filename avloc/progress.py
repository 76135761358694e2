"""What a command says while it works. Commands emit events to a listener; only `avloc.console` draws them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`done` of `total` steps of `task`; `total` is None where it is not known; `detail` is a short live remark."""

    task: str
    done: int
    total: int | None = None
    detail: str = ""
    milestone: bool = False
    """Whether a part of the work ends here, such as an epoch; a log gets a line of it."""


@dataclass(frozen=True)
class Notice:
    """One line a person should read: a warning, a skipped input, a decision taken."""

    text: str


Event = Progress | Notice
Listener = Callable[[Event], None]


def silent(_event: Event) -> None:
    """The listener that hears nothing."""
