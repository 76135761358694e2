"""Start processes that decode.

They are forked from a server process that has imported what they need and has never decoded: decoders and HDF5 have
threads and state that do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext

_PRELOADED = ["avloc.prepare.workers"]


def process_context() -> BaseContext:
    """How to start processes: forked from the server on Linux; elsewhere, where system libraries forbid it, spawned."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def start_server() -> None:
    """Start the server in advance, so that its imports run beside those of this process."""
    if sys.platform == "linux":
        from multiprocessing import forkserver, resource_tracker

        process_context()
        resource_tracker.ensure_running()  # unblocks SIGINT
        with sigint_blocked():
            forkserver.ensure_running()


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Block SIGINT for processes started inside, so that Ctrl-C during their imports prints no traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
