"""Rows about training: one step, and whole epochs from disk."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from avloc.config import TrainConfig, settled
from avloc.dataset import Batch, load
from avloc.engine import Engine, pick_precision, weighted_total
from avloc.registry import METHOD_SPECS
from avloc.store import Store
from avloc.train.clips import training_set
from avloc.train.loop import make_optimiser
from avloc.train.sampler import EpochBatches
from tests.bench import material
from tests.bench.reference import Loaded, ReferenceClips, ReferenceNet, optimiser_of, training_step
from tests.bench.timing import AVLOC, REFERENCE, Given, Row, alone, compared, interleaved, python, spread, walls

WORKERS = 2
RATES = (22_050, 44_100)
"""The paper's, whose three seconds are 276 spectrogram frames, and that of the published training code: 554."""
PURE = "avloc without loading"
FP32 = "avloc fp32"


def training_steps(given: Given, work: Path) -> list[Row]:
    """Steps on a batch that is in memory already, at the paper's rate and at that of its published code."""
    return [row for rate in RATES for row in _training_steps(given, work / str(rate), rate)]


def _training_steps(given: Given, work: Path, rate: int) -> list[Row]:
    batch = given.size(32, 2)
    world = _World(work, clips=batch, batch=batch, rate=rate)
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
    name = "training step" if rate == RATES[0] else f"training step, {frames} frames"
    return [
        compared(name, f"{start} {fp32}; avloc in bf16 {ours}", spent, **told),
        compared(f"{name}, fp32", f"{start} {fp32}; avloc in fp32 {ours}", spent, avloc=FP32, **told),
    ]


def method_steps(given: Given, work: Path) -> list[Row]:
    """Steps of the other methods, with the settings of their authors; the published side knows AVC alone."""
    batch = given.size(32, 2)
    material.media(work / "media", batch)
    return [
        _method_row(given, method, material.store(work / "media", work / method, method=method), batch)
        for method in given.methods or [name for name, spec in METHOD_SPECS.items() if not spec.hints]
    ]


def _method_row(given: Given, method: str, store: Store, batch: int) -> Row:
    """In the precision that `auto` takes here, and in fp32: bf16 that the hardware lacks takes minutes a step."""
    config = settled({"batch": batch, "epochs": 1, "init": "random"}, method)
    loaded, usual = our_batch(store, config), pick_precision("auto", torch.device("cpu"))
    steps = {precision: our_step(config, precision, loaded) for precision in dict.fromkeys((usual, "fp32"))}
    rates = {name: [batch / one for one in walls(laps)] for name, laps in interleaved(given.repeats, steps).items()}
    model = config.model
    networks = f"{model.vision_trunk} and {model.audio_trunk}, {model.frame} px, {model.seconds:g} s"
    what = f"batch of {batch}, {networks}, in {usual}, from uint8 frames and int16 sound"
    return alone(f"training step, {method}", what, rates[usual], "pairs/s", fp32=spread(rates["fp32"]))


def whole_epoch(given: Given, work: Path) -> list[Row]:
    """From the start of a process to the end of its epoch, avloc in the precision that `auto` takes here.

    Steps on a batch in memory run in a process of their own too, with memory kept as `avloc train` keeps it: what a
    process did before and holds still would slow down those that it forks, and itself.
    """
    batch = given.size(32, 2)
    world = _World(work, clips=given.count(48 * batch, 2 * batch), batch=batch)
    steps, precision = len(world.ids) // batch, pick_precision("auto", torch.device("cpu"))
    pure: list[float] = []

    def without_loading() -> None:
        asked = (world.store.folder, precision, batch, steps)
        pure.append(float(python("-m", "tests.bench.steps_run", *asked).stdout))

    contenders = {REFERENCE: world.their_epoch, AVLOC: _counted(world.our_epoch), PURE: without_loading}
    spent = interleaved(given.repeats, contenders, warm=False)
    clips = steps * batch
    pure_rate = clips / statistics.median(pure)
    rate = clips / statistics.median(walls(spent[AVLOC]))
    what = (
        f"{clips} clips from disk, batches of {batch}, both hints, {WORKERS} loader processes, whole processes from "
        f"start to end; fp32 loop over FLAC, PNG and npy that keeps a checkpoint; `avloc train` in {precision}, with "
        f"its model files and state"
    )
    return [
        compared(
            "whole epoch",
            what,
            spent,
            work=clips,
            unit="pairs/s",
            avloc_without_loading=float(f"{pure_rate:.4g}"),
            share_of_pure_rate=round(rate / pure_rate, 3),
        )
    ]


def _counted(call: Callable[[int], object]) -> Callable[[], None]:
    """A call that is told how often it was called before."""
    before = iter(range(10**6))
    return lambda: call(next(before)) and None


class _World:
    """The same clips with the same hints for both sides."""

    def __init__(self, work: Path, *, clips: int, batch: int, rate: int = RATES[0]) -> None:
        self.work, self.batch, self.dim = work, batch, TrainConfig().model.dim
        self.ids = material.media(work / "media", clips, rate=rate)
        self.store: Store = material.store(work / "media", work / "store", rate=rate)
        material.hints(self.store, work / "npy")
        model = replace(TrainConfig().model, rate=rate)
        self.config = TrainConfig(model=model, batch=batch, epochs=1, init="random", workers=WORKERS)
        self.their_clips = ReferenceClips(work / "media", self.ids, hints=work / "npy")

    def their_network(self) -> ReferenceNet:
        return ReferenceNet(self.dim).train()

    def their_batch(self) -> Loaded:
        loader = DataLoader(self.their_clips, batch_size=self.batch, shuffle=True, collate_fn=ReferenceClips.collate)
        return next(iter(loader))

    def their_epoch(self) -> None:
        python("-m", "tests.bench.reference_run", "epoch", self.work / "media", self.work / "npy", self.batch, WORKERS)

    def our_step(self, precision: str) -> Callable[[], float]:
        return our_step(self.config, precision, our_batch(self.store, self.config))

    def our_epoch(self, number: int) -> object:
        how = ("--epochs", 1, "--batch", self.batch, "--init", "random", "--set", f"workers={WORKERS}")
        where = ("--out", self.work / f"run-{number}", "--device", "cpu")
        return python("-m", "avloc", "train", self.store.folder, *how, *where)


def our_batch(store: Store, config: TrainConfig) -> Batch:
    """The first batch of a training."""
    clips = training_set(store, store.ids, config)
    return next(iter(load(clips, EpochBatches(len(clips), config.batch, seed=0, epochs=1), workers=0)))


def our_step(config: TrainConfig, precision: str, batch: Batch) -> Callable[[], float]:
    """One step as `avloc.train` makes it: terms, total, a look at their values, gradients, Adam."""
    engine = Engine(config.model, torch.device("cpu"), precision)
    engine.model.train()
    optimiser, draws = make_optimiser(engine.model.groups(), config.optim), torch.Generator()

    def step() -> float:
        terms = engine.training_step(batch, config, draws)
        total = weighted_total(terms, config.loss)
        assert all(math.isfinite(term.item()) for term in (total, *terms.values()))
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        return total.item()

    return step
