"""The next things are read while this one is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """The same items in the same order; up to `depth` of them are made in a thread before they are asked for.

    An exception of `items` comes where its item would. When this generator is closed, nothing further is begun.
    """
    nothing: list[T] = []

    def following() -> list[T]:
        for item in items:
            return [item]
        return nothing

    pool = ThreadPoolExecutor(1, thread_name_prefix="avloc-read")
    try:
        waiting: deque[Future[list[T]]] = deque(pool.submit(following) for _ in range(depth))
        while item := waiting.popleft().result():
            waiting.append(pool.submit(following))
            yield item[0]
            del item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
