"""Exception hierarchy and exit codes.

```
AvlocError
├── UsageError        2   an invalid flag, value, path or combination
├── InputError        1   one input cannot be used; the batch continues
├── NoInputLeft       3   every input failed
├── WeightsError      4   weights missing, damaged or of the wrong kind
│   └── WeightsAbsent
└── Refused           5   data exists but cannot be used as requested
    ├── StoreNotFound
    └── MissingClips
```

Each error has a reason and, where possible, a hint: the next step to try. The numbers are exit codes; only `avloc.cli`
prints errors and exits. `avloc.cli.exit_codes` also has those of disk, memory and
signals. Any other exception is a bug in avloc and keeps its traceback (exit 70).
"""

from __future__ import annotations

from collections.abc import Iterable


class AvlocError(Exception):
    """Base class. `str(error)` is the reason, `error.hint` the next step or ''."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(AvlocError):
    """Invalid command line or configuration; the message names the flag and the valid values."""

    exit_code = 2


class InputError(AvlocError):
    """One input cannot be used: unreadable, malformed, without audio or without picture."""

    exit_code = 1


class NoInputLeft(AvlocError):
    """Every input failed."""

    exit_code = 3


class WeightsError(AvlocError):
    """A weight file is missing, damaged or of the wrong kind."""

    exit_code = 4


class WeightsAbsent(WeightsError):
    """Published weights are not on disk and cannot be downloaded."""


class Refused(AvlocError):
    """Data exists but cannot be used as requested: stamp mismatch, unsuitable store, lock held, non-finite loss."""

    exit_code = 5


class StoreNotFound(Refused):
    """No prepared store at the given path."""


class MissingClips(Refused):
    """More clips are missing than `--max-missing` allows; the scores were still printed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint `Did you mean ...?` for an unknown name; '' if no known name is similar."""
    from difflib import get_close_matches

    by_form = {normal_form(one): one for one in reversed(tuple(known))}
    found = get_close_matches(normal_form(name), by_form, n=1)
    return f"Did you mean {by_form[found[0]]}?" if found else ""


def normal_form(name: str) -> str:
    """A name normalized for comparison: lower case, letters and digits only."""
    return "".join(filter(str.isalnum, name.casefold()))
