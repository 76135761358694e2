"""PyTorch and processes that are forked."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from avloc.errors import Refused

if TYPE_CHECKING:
    import torch


def check_forked(device: torch.device) -> None:
    """PyTorch's threads and CUDA do not come along into a forked process, where it would wait for them forever.

    Raises:
        Refused: a model was loaded before this process was forked, and `device` or the threads of this process need
            what is lost. One thread, as in PyTorch's own loader processes, needs nothing.
    """
    import torch

    if _first_process() != os.getpid() and (device.type != "cpu" or torch.get_num_threads() > 1):
        reason = "a model was loaded before this process was forked, and PyTorch's threads do not survive a fork"
        raise Refused(f"{reason}; valid: the start method spawn of multiprocessing, or loading only in the new process")


@cache
def _first_process() -> int:
    """The process that asked first; a fork inherits the answer."""
    return os.getpid()
