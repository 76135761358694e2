"""A training run in a process of its own: `python -m tests.gpu.train_job STORE OUT --device DEVICE`."""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from avloc.config import TrainConfig
from avloc.distributed import joined
from avloc.networks.base import full_float32
from avloc.train import TrainOptions, train
from avloc.train.localizer import LocalizerTask
from tests.gpu.stand_ins import write_toml_without_tomli_w
from tests.small_training import CONFIG, changed


def config(epochs: int) -> TrainConfig:
    """The configuration of the job."""
    return changed(CONFIG, epochs=epochs)


def failing_after(steps: int) -> Any:
    """`LocalizerTask.terms` that raises after some steps."""
    terms, made = LocalizerTask.terms, iter(range(steps))

    def failing(task: LocalizerTask, *inputs: Any) -> Any:
        if next(made, None) is None:
            raise RuntimeError("a planted failure")
        return terms(task, *inputs)

    return patch.object(LocalizerTask, "terms", failing)


def main() -> None:
    """Run it, without TF32; every step takes at least `--pause` seconds."""
    out = argparse.ArgumentParser(prog="python -m tests.gpu.train_job", description=__doc__)
    out.add_argument("store", type=Path)
    out.add_argument("out", type=Path)
    out.add_argument("--device", default="auto")
    out.add_argument("--epochs", type=int, default=1)
    out.add_argument("--pause", type=float, default=0.0)
    out.add_argument("--fails", type=int, help="rank of the process that raises in its third step")
    given = out.parse_args()
    write_toml_without_tomli_w()
    options = TrainOptions(store=given.store, out=given.out, device=given.device)

    def pause() -> bool:
        time.sleep(given.pause)
        return False

    with full_float32(), joined() as peers, failing_after(2) if peers.rank == given.fails else nullcontext():
        train(options, config(given.epochs), should_stop=pause, peers=peers)


if __name__ == "__main__":
    main()
