"""Time training steps in a separate process: `python -m tests.bench.steps_run STORE PRECISION BATCH COUNT`.

Runs avloc's steps on one batch in memory after one warm-up step, and prints their seconds by the clock and those of the
processor.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def steps(store: str, precision: str, batch: str, count: str) -> None:
    """Run `count` steps on the same batch."""
    from avloc.config import TrainConfig
    from avloc.malloc import keep_freed_memory
    from avloc.store import Store
    from tests.bench.rows_training import our_batch, our_step

    keep_freed_memory()
    config = TrainConfig(batch=int(batch), epochs=1, init="random", workers=0)
    step = our_step(config, precision, our_batch(Store(Path(store)), config))
    step()
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(int(count)):
        step()
    print(time.perf_counter() - wall, time.process_time() - processor)


if __name__ == "__main__":
    steps(*sys.argv[1:])
