"""Rates of the loader alone and of an epoch from disk beside steps on a batch in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from avloc.config import TrainConfig
from avloc.loader_processes import process_count
from avloc.progress import Progress, silent
from avloc.train import TrainOptions, train
from avloc.train.batches import EpochBatches
from avloc.train.localizer import LocalizerTask
from tests.gpu.results import Options, Row, Skipped, at_least, attempted
from tests.gpu.stores import training_store
from tests.small_models import SMALL
from tests.training_steps import engine_step

WORKERS = (2, 8, 16)
_SHARE = 0.95
"""Smallest rate of an epoch as a share of that of steps in memory."""


def _config(options: Options, workers: int) -> TrainConfig:
    model = SMALL if options.quick else TrainConfig().model
    batch = options.size(128, 4)
    return TrainConfig(model=model, init="random", precision="bf16", epochs=1, batch=batch, workers=workers)


def _where(options: Options, config: TrainConfig) -> TrainOptions:
    store = training_store(options.work / "store", options.size(24_576, 32), config.model.dim)
    return TrainOptions(store=store, out=options.work / "epoch", device=options.device.type)


def _task(options: Options, config: TrainConfig) -> LocalizerTask:
    task = LocalizerTask(_where(options, config), config, silent)
    task.start(silent)
    task.model.train()
    return task


def _batches(task: LocalizerTask) -> Iterator[Any]:
    return iter(task.load(EpochBatches(task.clips, task.config.batch, seed=0, epochs=1)))


def loader(options: Options) -> Iterator[Row]:
    """Batches for AVC without the network, into pinned memory if the device is a GPU."""
    for workers in (1,) if options.quick else WORKERS:
        yield from attempted(f"loader, {workers} processes", partial(_loader, options, workers))


def _loader(options: Options, workers: int) -> Iterator[Row]:
    rate = _loader_rate(_task(options, _config(options, workers)))
    yield Row(name=f"loader, {workers} processes", value=rate, unit="clips/s")


def _loader_rate(task: LocalizerTask) -> float:
    """Clips a second after the first batches of all processes."""
    batches = _batches(task)
    for _ in islice(batches, 2 * process_count(task.config.workers)):
        pass
    start = time.perf_counter()
    passed = sum(1 for _ in batches)
    return passed * task.config.batch / (time.perf_counter() - start)


def epoch(options: Options) -> Iterator[Row]:
    """`train` on a store, the last two thirds of an epoch, beside steps on one of its batches and the loader alone."""
    if options.left_s() < 60 and not options.quick:
        raise Skipped("less than a minute is left")
    config = _config(options, options.size(-1, 1))
    task = _task(options, config)
    loaded = _loader_rate(task)
    (batch,) = islice(_batches(task), 1)
    step = engine_step(task.engine, batch, config).whole()
    memory = config.batch / options.seconds(step, options.size(20, 2), warm=options.size(5, 1))
    del task, step
    rate = _training_rate(options, config)
    yield Row(name="steps in memory", value=memory, unit="pairs/s")
    yield Row(name="epoch from disk", value=rate, unit="pairs/s")
    yield Row(name="loader alone over steps in memory", value=loaded / memory)
    if options.quick:
        yield Row(name="epoch over steps in memory", value=rate / memory)
    else:
        yield at_least("epoch over steps in memory", rate / memory, _SHARE)


def _training_rate(options: Options, config: TrainConfig) -> float:
    """Pairs a second, by the moments at which steps are reported."""
    moments: list[float] = []

    def note(event: object) -> None:
        if isinstance(event, Progress) and event.task == "training" and not event.milestone:
            moments.append(time.perf_counter())

    train(_where(options, config), config, note)
    counted = moments[len(moments) // 3 :]
    return (len(counted) - 1) * config.batch / (counted[-1] - counted[0])
