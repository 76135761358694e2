"""Make clips in a pool of worker processes, with results in input order."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from avloc.fork_server import exit_with_parent, process_context, sigint_blocked
from avloc.prepare.clips import Job, PreparedClip, make_clip
from avloc.prepare.sources import Skip

_QUEUE_PER_WORKER = 4
"""Submitted inputs per process: enough to keep it busy, few enough to bound the memory used."""


def make_clips(jobs: Sequence[Job], workers: int) -> Generator[PreparedClip | Skip, None, None]:
    """Make the clip of each job, in order. An input that kills its process is skipped with that reason."""
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
            # Any submitted input may be the cause: run each in its own process.
            for job in jobs[done : done + workers * _QUEUE_PER_WORKER]:
                done += 1
                yield _isolated(job)


def _pooled(jobs: Sequence[Job], workers: int) -> Iterator[PreparedClip | Skip]:
    pool = _pool(min(workers, len(jobs)))
    waiting: deque[Future[PreparedClip | Skip]] = deque()
    try:
        for job in jobs:
            with sigint_blocked():
                waiting.append(pool.submit(make_clip, job))
            if len(waiting) >= workers * _QUEUE_PER_WORKER:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _isolated(job: Job) -> PreparedClip | Skip:
    with _pool(1) as pool:
        try:
            with sigint_blocked():
                future = pool.submit(make_clip, job)
            return future.result()
        except BrokenProcessPool:
            reason = "cannot be decoded: the process that decoded it died"
            return Skip(id=job.source.id, input=job.source.input, reason=reason)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=process_context(), initializer=_init_worker)


def _init_worker() -> None:
    """Ignore SIGINT, which the parent handles, and exit when the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent()
