"""Rows about training: one step, and whole epochs from disk."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from avloc.config import TrainConfig
from avloc.dataset import Batch, load
from avloc.engine import Engine, weighted_total
from avloc.store import Store
from avloc.train import TrainOptions, train
from avloc.train.clips import training_set
from avloc.train.loop import make_optimiser
from avloc.train.order import EpochBatches
from tests.bench import material
from tests.bench.reference import Loaded, ReferenceClips, ReferenceNet, optimiser_of, training_step
from tests.bench.timing import AVLOC, REFERENCE, Given, Row, compared, interleaved, walls

WORKERS = 2
PURE = "avloc without loading"
FP32 = "avloc fp32"


def training_steps(given: Given, work: Path) -> list[Row]:
    """Steps on a batch that is in memory already."""
    batch = given.size(32, 2)
    world = _World(work, clips=batch, batch=batch)
    theirs, network = world.their_batch(), world.their_network()
    optimiser = optimiser_of(network)
    contenders = {REFERENCE: lambda: training_step(network, optimiser, theirs)}
    for name, precision in ((AVLOC, "bf16"), (FP32, "fp32")):
        contenders[name] = world.our_step(precision)
    spent = interleaved(given.repeats, contenders)
    frames = theirs.spectrograms.shape[-1]
    start = f"batch of {batch}, two ResNet18, {world.dim} dimensions, {frames} spectrogram frames, both hints, Adam;"
    fp32 = "fp32 eager NCHW, all pairs of cells, tensors ready for the networks"
    ours = "from uint8 frames and int16 sound"
    told = {"work": batch, "unit": "pairs/s"}
    return [
        compared("training step", f"{start} {fp32}; avloc in bf16 {ours}", spent, **told),
        compared("training step, fp32", f"{start} {fp32}; avloc in fp32 {ours}", spent, avloc=FP32, **told),
    ]


def whole_epoch(given: Given, work: Path) -> list[Row]:
    """From files to the end of an epoch."""
    batch = given.size(32, 2)
    world = _World(work, clips=given.count(6 * batch, 2 * batch), batch=batch)
    clips = len(world.ids) // batch * batch
    step = world.our_step("bf16")
    spent = interleaved(
        given.repeats,
        {REFERENCE: world.their_epoch, AVLOC: _counted(world.our_epoch), PURE: lambda: _often(step, clips // batch)},
        warm=False,
    )
    pure = clips / statistics.median(walls(spent[PURE]))
    rate = clips / statistics.median(walls(spent[AVLOC]))
    what = (
        f"{clips} clips from disk, batches of {batch}, both hints, {WORKERS} loader processes, networks built and "
        f"loaders started anew; fp32 loop over FLAC, PNG and npy that keeps a checkpoint; `avloc train` in bf16, with "
        f"its model file and state"
    )
    return [
        compared(
            "whole epoch",
            what,
            spent,
            work=clips,
            unit="pairs/s",
            avloc_without_loading=float(f"{pure:.4g}"),
            share_of_pure_rate=round(rate / pure, 3),
        )
    ]


def _often(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


def _counted(call: Callable[[int], object]) -> Callable[[], None]:
    """A call that is told how often it was called before."""
    before = iter(range(10**6))
    return lambda: call(next(before)) and None


class _World:
    """The same clips with the same hints for both sides."""

    def __init__(self, work: Path, *, clips: int, batch: int) -> None:
        self.work, self.batch, self.dim = work, batch, TrainConfig().model.dim
        self.ids = material.media(work / "media", clips)
        self.store: Store = material.store(work / "media", work / "store")
        material.hints(self.store, work / "npy")
        self.config = TrainConfig(batch=batch, epochs=1, init="random", workers=WORKERS)
        self.their_clips = ReferenceClips(work / "media", self.ids, hints=work / "npy")

    def their_network(self) -> ReferenceNet:
        return ReferenceNet(self.dim).train()

    def _their_loader(self, workers: int) -> DataLoader:
        how = {"batch_size": self.batch, "shuffle": True, "drop_last": True, "num_workers": workers}
        return DataLoader(self.their_clips, collate_fn=ReferenceClips.collate, **how)

    def their_batch(self) -> Loaded:
        return next(iter(self._their_loader(0)))

    def their_epoch(self) -> None:
        network = self.their_network()
        optimiser = optimiser_of(network)
        for batch in self._their_loader(WORKERS):
            training_step(network, optimiser, batch)
        torch.save({"model": network.state_dict(), "optimizer": optimiser.state_dict()}, self.work / "latest.pth")

    def our_batch(self) -> Batch:
        clips = training_set(self.store, self.store.ids, self.config)
        return next(iter(load(clips, EpochBatches(len(clips), self.batch, seed=0, epochs=1), workers=0)))

    def our_step(self, precision: str) -> Callable[[], float]:
        """One step as `avloc.train` makes it: terms, total, a look at their values, gradients, Adam."""
        engine = Engine(self.config.model, torch.device("cpu"), precision)
        engine.model.train()
        optimiser = make_optimiser(engine.model, self.config.optim)
        batch, draws = self.our_batch(), torch.Generator()

        def step() -> float:
            terms = engine.training_step(batch, self.config, draws)
            total = weighted_total(terms, self.config.loss)
            assert all(math.isfinite(term.item()) for term in (total, *terms.values()))
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            optimiser.step()
            return total.item()

        return step

    def our_epoch(self, number: int) -> object:
        options = TrainOptions(store=self.store.folder, out=self.work / f"run-{number}", device="cpu")
        return train(options, replace(self.config, precision="bf16"))
