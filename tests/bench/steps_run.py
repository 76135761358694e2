"""What an epoch computes, in a process of its own: `python -m tests.bench.steps_run STORE PRECISION BATCH COUNT`.

avloc's steps on one batch in memory, after a first one that does not count; prints what they took in seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def steps(store: str, precision: str, batch: str, count: str) -> None:
    """The same batch again and again."""
    from avloc.config import TrainConfig
    from avloc.malloc import keep_freed_memory
    from avloc.store import Store
    from tests.bench.rows_training import our_batch, our_step

    keep_freed_memory()
    config = TrainConfig(batch=int(batch), epochs=1, init="random", workers=0)
    step = our_step(config, precision, our_batch(Store(Path(store)), config))
    step()
    began = time.perf_counter()
    for _ in range(int(count)):
        step()
    print(time.perf_counter() - began)


if __name__ == "__main__":
    steps(*sys.argv[1:])
