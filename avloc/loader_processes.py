"""Processes that load batches: how many, and the shared memory through which they pass them on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from avloc.errors import Refused
from avloc.sharding import worker_count

_MOST = 16
"""Enough for 14 000 clips/s."""
IN_ADVANCE = 2
"""Batches that each process makes in advance."""
_SHARED_MEMORY = Path("/dev/shm")
"""The file system of shared memory on Linux."""


def process_count(requested: int) -> int:
    """Number of loader processes; -1 means one per available core but one, shared with other processes of `torchrun`.

    At least 1, and 16 at most. 0 loads in the calling process.
    """
    if requested >= 0:
        return requested
    peers = os.environ.get("LOCAL_WORLD_SIZE", "")
    cores = worker_count(0) // max(int(peers) if peers.isdecimal() else 1, 1)
    return min(max(cores - 1, 1), _MOST)


def check_shared_memory(batch_bytes: int, processes: int) -> None:
    """Check that shared memory holds the batches of all processes: the system kills those that write beyond its size.

    Raises:
        Refused: it is too small.
    """
    needed = batch_bytes * (IN_ADVANCE * processes + 1)
    if not _SHARED_MEMORY.is_dir() or needed <= (free := shutil.disk_usage(_SHARED_MEMORY).free):
        return
    fitting = max((free - batch_bytes) // (IN_ADVANCE * batch_bytes), 0)
    raise Refused(
        f"{processes} loader processes need {needed / 1e6:.0f} MB in {_SHARED_MEMORY}, which has {free / 1e6:.0f} MB "
        f"free: {IN_ADVANCE} batches of {batch_bytes / 1e6:.1f} MB each, and the one in use",
        hint=f"Enlarge it (docker run --shm-size={needed / 5e5:.0f}m), or train with --set workers={fitting}.",
    )


def leave_signals_to_parent(_worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM, which reach the whole process group: the main process handles them."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
