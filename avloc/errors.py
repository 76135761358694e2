"""What can go wrong, as one small family.

```
AvlocError
├── UsageError        2   a flag, a value or a path that cannot be meant
├── InputError        1   one input cannot be used; the batch goes on
├── NoInputLeft       3   every input failed
├── WeightsError      4   weights not what they should be
│   └── WeightsAbsent
└── Refused           5   the material is there but must not be used as asked
    ├── StoreNotFound
    └── MissingClips
```

Each carries the reason and, where there is one, the next step to try. The numbers are exit codes; only `avloc.cli`
turns an error into words and a code. Whatever is not in this family is our bug and keeps its traceback (exit 70).
"""

from __future__ import annotations

from collections.abc import Iterable


class AvlocError(Exception):
    """Anything a user can meet. `str(error)` is the reason, `error.hint` the next step or ''."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(AvlocError):
    """The command line or a configuration cannot be meant; names the flag and what would be valid."""

    exit_code = 2


class InputError(AvlocError):
    """One input cannot be used: unreadable, malformed, without sound or without picture."""

    exit_code = 1


class NoInputLeft(AvlocError):
    """Every input failed."""

    exit_code = 3


class WeightsError(AvlocError):
    """A weight file is absent, damaged or of another kind."""

    exit_code = 4


class WeightsAbsent(WeightsError):
    """Published weights are nowhere on disk and cannot be downloaded."""


class Refused(AvlocError):
    """The material is there but must not be used as asked: foreign stamp, unfit store, lock held, non-finite loss."""

    exit_code = 5


class StoreNotFound(Refused):
    """No prepared store where one was expected."""


class MissingClips(Refused):
    """More clips are missing than `--max-missing` allows; the scores were still printed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint `Did you mean ...?` for a name that is none of those known; '' where none is close."""
    from difflib import get_close_matches

    by_form = {normal_form(one): one for one in reversed(tuple(known))}
    found = get_close_matches(normal_form(name), by_form, n=1)
    return f"Did you mean {by_form[found[0]]}?" if found else ""


def normal_form(name: str) -> str:
    """A name without what people write in different ways: capitals, dashes, dots and blanks."""
    return "".join(filter(str.isalnum, name.casefold()))
