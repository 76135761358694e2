"""Rates of the loader alone and of an epoch from disk beside steps on a batch in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

from avloc.config import TrainConfig
from avloc.progress import Progress, silent
from avloc.train import TrainOptions, train
from avloc.train.localizer import LocalizerTask
from avloc.train.loop import EpochBatches
from tests.gpu.results import Options, Row, Skipped, at_least, attempted
from tests.gpu.stores import training_store
from tests.small_models import SMALL
from tests.training_steps import engine_step

WORKERS = (2, 8, 16)
_SHARE = 0.95
"""Smallest rate of an epoch as a share of that of steps in memory."""


def _config(options: Options, **more: object) -> TrainConfig:
    model = SMALL if options.quick else TrainConfig().model
    values = {"model": model, "init": "random", "precision": "bf16", "epochs": 1, "batch": options.size(256, 4)}
    return TrainConfig(**values | more)


def _task(options: Options, config: TrainConfig) -> LocalizerTask:
    store = training_store(options.work / "store", options.size(16_384, 32), config.model.dim)
    where = TrainOptions(store=store, out=options.work / "epoch", device=options.device.type)
    task = LocalizerTask(where, config, silent)
    task.start(silent)
    return task


def loader(options: Options) -> Iterator[Row]:
    """Batches for AVC without the network, into pinned memory if the device is a GPU."""
    for workers in (options.quick and (1,)) or WORKERS:
        yield from attempted(f"loader, {workers} processes", partial(_loader, options, workers))


def _loader(options: Options, workers: int) -> Iterator[Row]:
    config = _config(options, workers=workers)
    task = _task(options, config)
    task.model.train()
    batches = EpochBatches(task.clips, config.batch, seed=0, epochs=1)
    rate = _rate(iter(task.load(batches)), config.batch, options.size(4, 1), options.size(24, 4))
    yield Row(name=f"loader, {workers} processes", value=rate, unit="clips/s")


def _rate(batches: Iterator[object], size: int, skipped: int, counted: int) -> float:
    for _ in islice(batches, skipped):
        pass
    start = time.perf_counter()
    passed = sum(1 for _ in islice(batches, counted))
    return passed * size / (time.perf_counter() - start)


def epoch(options: Options) -> Iterator[Row]:
    """`train` on a store, from a tenth of its epoch to the last step, and steps on one of its batches."""
    if options.left_s() < 60:
        raise Skipped("less than a minute is left")
    config = _config(options, workers=options.size(-1, 1))
    task = _task(options, config)
    task.model.train()
    (batch,) = islice(task.load(EpochBatches(task.clips, config.batch, seed=0, epochs=1)), 1)
    step = engine_step(task.engine, batch, config).whole()
    memory = config.batch / options.seconds(step, options.size(20, 2), warm=options.size(5, 1))
    del task, step
    moments: list[float] = []

    def note(event: object) -> None:
        if isinstance(event, Progress) and event.task == "training" and not event.milestone:
            moments.append(time.perf_counter())

    store = options.work / "store"
    where = TrainOptions(store=store, out=options.work / "epoch", device=options.device.type)
    train(where, replace(config, epochs=1), note)
    counted = moments[len(moments) // 10 :]
    rate = (len(counted) - 1) * config.batch / (counted[-1] - counted[0])
    yield Row(name="steps in memory", value=memory, unit="pairs/s")
    yield Row(name="epoch from disk", value=rate, unit="pairs/s")
    share = rate / memory
    if options.quick:
        yield Row(name="epoch over memory", value=share)
    else:
        yield at_least("epoch over memory", share, _SHARE)
