"""Processes that load batches: how many, and the shared memory through which they pass them on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from avloc.errors import Refused
from avloc.fork_server import exit_with_parent
from avloc.sharding import worker_count

MOST = 16
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
    return min(max(worker_count(0) // _local_peers() - 1, 1), MOST)


def check_shared_memory(batch_bytes: int, batches: int, remedy: str) -> None:
    """Check that shared memory holds batches in flight: the system kills processes that write beyond its size.

    Args:
        batch_bytes: size of a batch.
        batches: number of them at a time, in each process of `torchrun`.
        remedy: what needs less, beside a larger shared memory; for the error.

    Raises:
        Refused: it is too small.
    """
    needed = batch_bytes * batches * _local_peers()
    if not _SHARED_MEMORY.is_dir() or needed <= (free := shutil.disk_usage(_SHARED_MEMORY).free):
        return
    raise Refused(
        f"loader processes need {needed / 1e6:.0f} MB in {_SHARED_MEMORY}, which has {free / 1e6:.0f} MB free",
        hint=f"Enlarge it (docker run --shm-size={needed / 5e5:.0f}m), or {remedy}.",
    )


def batches_in_flight(processes: int, batches: int) -> int:
    """Batches of a loader that lie in shared memory at a time, of `batches` in all."""
    return min(IN_ADVANCE * processes + 1, batches) if processes else 0


def _local_peers() -> int:
    """Processes of `torchrun` on this machine."""
    peers = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(int(peers) if peers.isdecimal() else 1, 1)


def follow_parent(_worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which reach the whole process group, to the main process, and exit with it.

    PyTorch's own loop notices the end of a killed parent after seconds, and then waits for ever if the pipe of its
    batches is full.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    exit_with_parent()
