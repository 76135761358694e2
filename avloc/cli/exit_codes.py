"""Turns errors and signals into messages and exit codes."""

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

from avloc.cli.streams import configure_streams
from avloc.errors import AvlocError
from avloc.files import TEMPORARY_SUFFIX

EXIT_FAILED_INPUTS = 1
EXIT_USAGE = 2
EXIT_REFUSED = 5
EXIT_BUG = 70
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FAILS = (errno.EIO, errno.EFBIG, errno.ESTALE)
"""The disk cannot read or write, or the file is too large for it."""
_READER_DIED = ("DataLoader worker", "DataLoader timed out")
_MEMORY_FULL = ("out of memory", "not enough memory", "can't allocate memory")
"""PyTorch's errors of these kinds have no class of their own: the start of their text, or a part of it."""
_IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_NAME_UNFIT = (*_IN_THE_WAY, errno.ENAMETOOLONG)
"""Errors caused by a name on the command line, not by the disk."""
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def run(app: Callable[[], object]) -> None:
    """Run the command line; errors a user can cause become messages, all others a traceback."""
    signal.signal(signal.SIGTERM, _terminated)
    _wait_briefly()
    configure_streams()
    try:
        app()
    except Exception as error:  # noqa: BLE001 (an unforeseen error is a bug and keeps its traceback)
        code = _report(error)
        _release_frames(error)
        sys.exit(code)


def _report(error: Exception) -> int:
    """Print an error and return its exit code."""
    known = (str(error), error.hint) if isinstance(error, AvlocError) else _memory_error(error) or _disk_error(error)
    if known is None:
        traceback.print_exception(error)
        print("avloc: this is a bug in avloc; please report it with the lines above.", file=sys.stderr)  # noqa: T201
        return EXIT_BUG
    from avloc.console.terminal import print_error

    print_error(*known)
    if isinstance(error, AvlocError):
        return error.exit_code
    return EXIT_USAGE if isinstance(error, OSError) and error.errno in _NAME_UNFIT else EXIT_REFUSED


def _release_frames(error: BaseException | None) -> None:
    """Release the objects in the frames of an error.

    They may own loader processes, which ignore signals and would otherwise be joined at exit.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _disk_error(error: Exception) -> tuple[str, str] | None:
    """Reason and next step; None for an error of another kind."""
    if not isinstance(error, OSError):
        return None
    if error.errno in _DISK_FULL:
        return f"the disk is full: {error}", "Free some space and run the same command again."
    if error.errno in _DISK_FAILS:
        return f"the disk fails: {error}", "Check the disk, or name another place, and run the same command again."
    if error.errno == errno.ENAMETOOLONG:
        return f"a name is too long: {error}", "Use a shorter one."
    if error.errno in _FORBIDDEN and error.filename is not None:
        return f"no permission: {error}", "Change the permissions, or name another place."
    if error.errno == errno.ENOENT and str(error.filename).endswith(TEMPORARY_SUFFIX):
        return f"a file cannot be created there: {error}", "Name another place."
    if error.errno in _IN_THE_WAY and error.filename is not None:
        return f"a file is where a folder has to be, or the reverse: {error}", "Name another place."
    return None


def _memory_error(error: Exception) -> tuple[str, str] | None:
    """Reason and next step; None for an error of another kind."""
    lines = str(error).strip().split("\n")
    text = lines[0] or type(error).__name__
    if text.startswith(_READER_DIED):
        return f"a process that reads clips has died: {text}", "Memory may be short. Run the same command again."
    full = next((line for line in lines if any(words in line for words in _MEMORY_FULL)), "")
    starved = isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EAGAIN)
    if full or starved or isinstance(error, MemoryError):
        return f"the memory is full: {full or text}", "Use fewer clips per batch, smaller frames, or fewer processes."
    return None


def _wait_briefly() -> None:
    """Shorten the time that torch's threads, which start later, spin before they sleep.

    By default GNU's OpenMP spins for milliseconds, which makes a network forty times slower on a busy machine. A
    thousand turns, its own default for more threads than cores, cost nothing on an idle one.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _terminated(signum: int, _frame: FrameType | None) -> NoReturn:
    """Exit through every `finally`, so that finished work is kept."""
    sys.exit(128 + signum)


class StopRequest:
    """Records the first SIGINT or SIGTERM, so that work can finish its step.

    A second one interrupts at once, and so does the first if the work has not polled for it yet.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.polled = False

    def __call__(self) -> bool:
        """Whether to stop."""
        self.polled = True
        return self.signum != 0

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum or not self.polled:
            sys.exit(128 + signum)
        self.signum = signum

    @contextmanager
    def handling_signals(self) -> Iterator[StopRequest]:
        """Handle the signals within the context."""
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(kind, self._note) for kind in kinds]
        try:
            yield self
        finally:
            for kind, handler in zip(kinds, before, strict=True):
                signal.signal(kind, handler)
