"""Tune glibc malloc: keep freed memory for reuse, or return it to the system. A no-op with other C libraries."""

from __future__ import annotations

import os
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_NEVER, _LARGE = 2**31 - 1, 1 << 30
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Make malloc reuse freed memory for large tensors; a no-op if the user has set malloc's environment variables.

    By default glibc maps every tensor of 32 MB or more anew and unmaps it again, which takes a tenth or more of a CPU
    training step. Each thread keeps its own memory, so this does not suit programs with many threads.
    """
    mallopt = _c_function("mallopt")
    # glibc before 2.35 rejects the first setting; the second alone would slow everything down.
    own = any(name in os.environ for name in _SETTINGS)
    if mallopt is not None and not own and mallopt(_MMAP_THRESHOLD, _LARGE):
        mallopt(_TRIM_THRESHOLD, _NEVER)


def release_freed_memory() -> None:
    """Return freed memory to the system now, including free blocks between blocks in use."""
    trim = _c_function("malloc_trim")
    if trim is not None:
        trim(0)


def _c_function(name: str) -> Any:
    """A function of the C library, or None."""
    import ctypes

    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
