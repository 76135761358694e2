"""Refuse to run PyTorch in a process that was forked after a model was loaded."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from avloc.errors import Refused

if TYPE_CHECKING:
    import torch


def check_fork_safe(device: torch.device) -> None:
    """Check that PyTorch can run here: its threads and CUDA do not survive a fork, and using them would hang.

    Raises:
        Refused: a model was loaded before this process was forked, and it uses CUDA or more than one thread.
            A single-threaded CPU process, such as a DataLoader worker, is fine.
    """
    import torch

    if _first_process() != os.getpid() and (device.type != "cpu" or torch.get_num_threads() > 1):
        reason = "a model was loaded before this process was forked, and PyTorch's threads do not survive a fork"
        raise Refused(f"{reason}; valid: multiprocessing's start method spawn, or loading in the new process only")


@cache
def _first_process() -> int:
    """Id of the process that called this first; forked processes inherit the cached value."""
    return os.getpid()
