"""Start processes that decode, and end them with the process that uses them.

They are forked from a server process that has never decoded: decoders and HDF5 have threads and state that do not
survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext

_PRELOADED = ["avloc.prepare.workers"]


def process_context() -> BaseContext:
    """How to start processes: forked from the server on Linux; elsewhere, where system libraries forbid it, spawned."""
    return multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def start_server() -> None:
    """Start the server in advance, so that it imports what the processes need beside the imports of this process.

    For the command line only: a program has one such server, and its own processes may come from it, too.
    """
    if sys.platform == "linux":
        from multiprocessing import forkserver, resource_tracker

        forkserver.set_forkserver_preload(_PRELOADED)
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


def exit_with_parent() -> None:
    """Exit this process, at once, when the one that started it ends, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
