"""What becomes of memory that is free again, where the C library can be told (the GNU one can)."""

from __future__ import annotations

import os
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt's settings in GNU's malloc.h
_NEVER, _LARGE = 2**31 - 1, 1 << 30
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed() -> None:
    """Keep free memory for the next tensor of the process; nothing, where the user has settings of his own.

    By default every tensor of 32 MB or more is fetched from the system, page by page, and given back: a training step
    on the CPU spent a tenth of its time in that, or more. Threads keep what each has fetched: not for programs of many.
    """
    mallopt = _of_c("mallopt")
    # Before 2.35 the GNU library refuses the first; the second alone would make all of it worse.
    own = any(name in os.environ for name in _SETTINGS)
    if mallopt is not None and not own and mallopt(_MMAP_THRESHOLD, _LARGE):
        mallopt(_TRIM_THRESHOLD, _NEVER)


def give_back() -> None:
    """Give free memory back to the system now, also what lies between memory in use."""
    trim = _of_c("malloc_trim")
    if trim is not None:
        trim(0)


def _of_c(name: str) -> Any:
    """A function of the C library, None where it has none of that name."""
    import ctypes

    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
