"""Where errors and signals become words and exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from avloc.cli.streams import settle
from avloc.errors import AvlocError
from avloc.files import TEMPORARY_SUFFIX

EXIT_FAILED_INPUTS = 1
EXIT_USAGE = 2
EXIT_REFUSED = 5
EXIT_BUG = 70
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FAILS = (errno.EIO, errno.EFBIG, errno.ESTALE)
"""It cannot read or write, or no file may become that large."""
_READER_DIED = ("DataLoader worker", "DataLoader timed out")
_MEMORY_FULL = ("out of memory", "not enough memory", "can't allocate memory")
"""How PyTorch begins, and what it says, where its errors have no kind of their own."""
_IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_NAME_UNFIT = (*_IN_THE_WAY, errno.ENAMETOOLONG)
"""What the user typed is at fault, not the disk."""
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def run(app: Callable[[], object]) -> None:
    """Run the command line; never returns a traceback for what a user can meet, never hides one that is our bug."""
    signal.signal(signal.SIGTERM, _terminated)
    _wait_briefly()
    settle()
    try:
        app()
    except AvlocError as error:
        _say(str(error), error.hint)
        _let_go(error)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 (what nobody foresaw is our bug and is shown whole)
        said = _memory_trouble(error) or (_disk_trouble(error) if isinstance(error, OSError) else None)
        if said is None:
            traceback.print_exc()
            print("avloc: this is a bug in avloc; please report it with the lines above.", file=sys.stderr)  # noqa: T201
            _let_go(error)
            sys.exit(EXIT_BUG)
        _say(*said)
        _let_go(error)
        unfit = isinstance(error, OSError) and error.errno in _NAME_UNFIT
        sys.exit(EXIT_USAGE if unfit else EXIT_REFUSED)


def _let_go(error: BaseException | None) -> None:
    """Drop what the frames of an error hold.

    Loader processes that it has interrupted would be waited for at the end, and they leave signals to this process.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _disk_trouble(error: OSError) -> tuple[str, str] | None:
    """Reason and next step; None where the disk is not to blame."""
    if error.errno in _DISK_FULL:
        return f"the disk is full: {error}", "Free some space and run the same command again."
    if error.errno in _DISK_FAILS:
        return f"the disk fails: {error}", "Look after the disk, or name another place, and run the same again."
    if error.errno == errno.ENAMETOOLONG:
        return f"a name is too long: {error}", "Take a shorter one."
    if error.errno in _FORBIDDEN and error.filename is not None:
        return f"no permission: {error}", "Change the permissions, or name another place."
    if error.errno == errno.ENOENT and str(error.filename).endswith(TEMPORARY_SUFFIX):
        return f"a file cannot be made there: {error}", "Name another place."
    if error.errno in _IN_THE_WAY and error.filename is not None:
        return f"a file is where a folder has to be, or the reverse: {error}", "Name another place."
    return None


def _memory_trouble(error: Exception) -> tuple[str, str] | None:
    """Reason and next step; None where memory is not to blame."""
    lines = str(error).strip().split("\n")
    text = lines[0] or type(error).__name__
    if text.startswith(_READER_DIED):
        return f"a process that reads clips is lost: {text}", "The memory may be short. Run the same command again."
    full = next((line for line in lines if any(words in line for words in _MEMORY_FULL)), "")
    starved = isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EAGAIN)
    if full or starved or isinstance(error, MemoryError):
        return f"the memory is full: {full or text}", "Take fewer clips at once, smaller frames, or fewer processes."
    return None


def _wait_briefly() -> None:
    """Let torch's threads, which are begun later, give up their cores soon when they wait for each other.

    GNU's OpenMP has them spin for milliseconds. Where anybody else wants the cores too, a network then takes forty
    times as long; a thousand turns, its own choice where it knows of too few cores, cost an idle machine nothing.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _say(text: str, hint: str) -> None:
    from avloc.console import print_error

    print_error(text, hint)


def _terminated(signum: int, _frame: FrameType | None) -> NoReturn:
    """Leave through every `finally`, so that what is finished is kept."""
    sys.exit(128 + signum)


class StopRequest:
    """Remembers the first SIGINT or SIGTERM, for work that wants to finish its step.

    A second one interrupts at once, and so does the first as long as the work has not begun to ask.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.asked = False

    def __call__(self) -> bool:
        """Whether to stop."""
        self.asked = True
        return self.signum != 0

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum or not self.asked:
            sys.exit(128 + signum)
        self.signum = signum

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Catch the signals inside the context."""
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(kind, self._note) for kind in kinds]
        try:
            yield self
        finally:
            for kind, handler in zip(kinds, before, strict=True):
                signal.signal(kind, handler)
