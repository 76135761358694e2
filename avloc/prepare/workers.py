"""Many inputs at once, results in the order of the inputs whatever the number of processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from avloc.prepare.clips import Job, Made, make_clip
from avloc.prepare.sources import Skip

_AHEAD = 4
"""Inputs in flight for each process: enough to keep it busy, few enough to bound memory."""


def worker_count(asked: int) -> int:
    """Processes to use; 0 means one a core that this process may run on."""
    if asked:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def results(jobs: Sequence[Job], workers: int) -> Generator[Made | Skip, None, None]:
    """Make each job's clip, in order. An input on which a process dies is skipped with that reason, not retried."""
    if workers == 1 or len(jobs) == 1:
        yield from map(make_clip, jobs)
        return
    done = 0
    while done < len(jobs):
        try:
            for result in _pooled(jobs[done:], workers):
                done += 1
                yield result
        except BrokenProcessPool:
            # Any input in flight may be the one: try them one by one, each in a process of its own.
            for job in jobs[done : done + workers * _AHEAD]:
                done += 1
                yield _alone(job)


def _pooled(jobs: Sequence[Job], workers: int) -> Iterator[Made | Skip]:
    pool = _pool(min(workers, len(jobs)))
    waiting: deque[Future[Made | Skip]] = deque()
    try:
        for job in jobs:
            with _uninterrupted():
                waiting.append(pool.submit(make_clip, job))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(job: Job) -> Made | Skip:
    with _pool(1) as pool:
        try:
            with _uninterrupted():
                future = pool.submit(make_clip, job)
            return future.result()
        except BrokenProcessPool:
            reason = "cannot be decoded: the process that decoded it died"
            return Skip(id=job.source.id, input=job.source.input, reason=reason)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: decoders and HDF5 have threads and state that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_settle)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes started inside inherit a blocked Ctrl-C: one that is still importing must not complain of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settle() -> None:
    """Ctrl-C is the parent's to handle; and a worker must not outlive a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
