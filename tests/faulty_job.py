"""A small training run in which one process has a fault: `python -m tests.faulty_job FAULT STORE OUT`."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

from avloc.distributed import joined
from avloc.errors import AvlocError, Refused
from avloc.train import TrainOptions, train
from tests.small_training import CONFIG, changed

LATE_S = 4
"""Timeout of a step's collectives in this job."""


def _raise(error: Exception) -> None:
    raise error


def _damage() -> None:
    _raise(Refused("clip 7 of the store is damaged"))


FAULTS: dict[str, tuple[int, str, int, Callable[[], None]]] = {
    "load": (1, "avloc.dataset.ClipSet.collate", 2, _damage),
    "forward": (1, "avloc.engine.core.supervise", 2, lambda: _raise(ValueError("a bug"))),
    "backward": (1, "avloc.distributed._AllReduce.backward", 3, lambda: _raise(MemoryError("no memory"))),
    "save": (0, "avloc.train.loop.save_state", 1, lambda: _raise(OSError(errno.ENOSPC, "No space left on device"))),
    "validation": (0, "avloc.train.localizer.validate", 1, _damage),
    "kill": (1, "avloc.dataset.ClipSet.collate", 2, lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "hang": (1, "avloc.dataset.ClipSet.collate", 2, lambda: time.sleep(600)),
    "slow validation": (0, "avloc.train.localizer.validate", 1, lambda: time.sleep(2 * LATE_S)),
    "slow save": (0, "avloc.train.loop.save_state", 1, lambda: time.sleep(2 * LATE_S)),
}
"""Name -> rank, function, call of it, and what happens before that call."""


def _with_fault(name: str, call: int, fault: Callable[[], None]) -> Any:
    where, _, function = name.rpartition(".")
    owner: Any = resolve_name(where)
    real, calls = getattr(owner, function), iter(range(1, sys.maxsize))

    def faulty(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            fault()
        return real(*arguments, **named)

    wrapped: Any = staticmethod(faulty) if function == "backward" else faulty
    return patch.object(owner, function, wrapped)


def main() -> int:
    name, store, out = sys.argv[1:]
    config = changed(CONFIG, epochs=2 if name == "stop" else 1)
    polls = iter(range(1, sys.maxsize))
    try:
        with patch("avloc.distributed._TIMEOUT", timedelta(seconds=LATE_S)), joined() as peers:
            if name in FAULTS and FAULTS[name][0] == peers.rank:
                _with_fault(*FAULTS[name][1:]).start()

            def should_stop() -> bool:
                return name == "stop" and peers.rank == 1 and next(polls) == 2

            options = TrainOptions(store=Path(store), out=Path(out), val="0.3")
            report = train(options, config, should_stop=should_stop, peers=peers)
            print(report.epochs_done, report.interrupted)
    except AvlocError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
