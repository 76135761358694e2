"""Benchmark rows for training: one step, and whole epochs from disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from avloc.config import TrainConfig, resolve_config
from avloc.dataset import Batch, clip_loader
from avloc.engine import Engine, pick_precision
from avloc.registry import METHOD_SPECS
from avloc.store import Store
from avloc.train.batches import EpochBatches
from avloc.train.clips import training_set
from tests.bench import material
from tests.bench.reference import Loaded, ReferenceClips, ReferenceNet, optimiser_of, training_step
from tests.bench.timing import AVLOC, REFERENCE, Lap, Options, Row, alone, compared, interleaved, python, spread, walls
from tests.training_steps import engine_step

WORKERS = 2
RATES = (22_050, 44_100)
"""Sample rate of the paper (276 spectrogram frames in 3 s) and of the published training code (554 frames)."""
PURE = "avloc without loading"
FP32 = "avloc fp32"


def training_steps(options: Options, work: Path) -> list[Row]:
    """Training steps on a batch in memory, at the sample rates of the paper and of its published code."""
    return [row for rate in RATES for row in _training_steps(options, work / str(rate), rate)]


def _training_steps(options: Options, work: Path, rate: int) -> list[Row]:
    batch = options.size(32, 2)
    data = _Data(work, clips=batch, batch=batch, rate=rate)
    theirs, network = data.their_batch(), data.their_network()
    optimiser = optimiser_of(network)
    contenders = {REFERENCE: lambda: training_step(network, optimiser, theirs)}
    for name, precision in ((AVLOC, "bf16"), (FP32, "fp32")):
        contenders[name] = data.our_step(precision)
    spent = interleaved(options.repeats, contenders)
    frames = theirs.spectrograms.shape[-1]
    start = f"batch of {batch}, two ResNet18, {data.dim} dimensions, {frames} spectrogram frames, both hints, Adam;"
    fp32 = "fp32 eager NCHW, all pairs of cells, tensors ready for the networks"
    ours = "from uint8 frames and int16 sound"
    rate_of = {"work": batch, "unit": "pairs/s"}
    name = "training step" if rate == RATES[0] else f"training step, {frames} frames"
    return [
        compared(name, f"{start} {fp32}; avloc in bf16 {ours}", spent, **rate_of),
        compared(f"{name}, fp32", f"{start} {fp32}; avloc in fp32 {ours}", spent, avloc=FP32, **rate_of),
    ]


def method_steps(options: Options, work: Path) -> list[Row]:
    """Training steps of the other methods with their authors' settings; the reference side has only AVC."""
    batch = options.size(32, 2)
    material.media(work / "media", batch)
    return [
        _method_row(options, method, material.store(work / "media", work / method, method=method), batch)
        for method in options.methods or [name for name, spec in METHOD_SPECS.items() if not spec.hints]
    ]


def _method_row(options: Options, method: str, store: Store, batch: int) -> Row:
    """In the precision that `auto` selects and in fp32; bf16 without hardware support takes minutes per step."""
    config = resolve_config({"batch": batch, "epochs": 1, "init": "random"}, method)
    loaded, usual = our_batch(store, config), pick_precision("auto", torch.device("cpu"))
    steps = {precision: our_step(config, precision, loaded) for precision in dict.fromkeys((usual, "fp32"))}
    rates = {name: [batch / one for one in walls(laps)] for name, laps in interleaved(options.repeats, steps).items()}
    model = config.model
    networks = f"{model.vision_trunk} and {model.audio_trunk}, {model.frame} px, {model.seconds:g} s"
    what = f"batch of {batch}, {networks}, in {usual}, from uint8 frames and int16 sound"
    return alone(f"training step, {method}", what, rates[usual], "pairs/s", fp32=spread(rates["fp32"]))


def whole_epoch(options: Options, work: Path) -> list[Row]:
    """One epoch in a whole process, avloc in the precision that `auto` selects.

    Steps on a batch in memory also run in a separate process, with the allocator settings of `avloc train`: memory that
    a process still holds slows down itself and the processes that it forks.
    """
    batch = options.size(32, 2)
    data = _Data(work, clips=options.count(48 * batch, 2 * batch), batch=batch)
    steps, precision = len(data.ids) // batch, pick_precision("auto", torch.device("cpu"))
    pure: list[Lap] = []

    def without_loading() -> None:
        arguments = (data.store.folder, precision, batch, steps)
        pure.append(Lap(*map(float, python("-m", "tests.bench.steps_run", *arguments).stdout.split())))

    contenders = {REFERENCE: data.their_epoch, AVLOC: _counted(data.our_epoch), PURE: without_loading}
    spent = interleaved(options.few, contenders, warm=False)
    spent[PURE] = pure  # without the start of the process
    clips = steps * batch
    start = f"{clips} clips from disk, batches of {batch}, both hints, {WORKERS} loader processes, whole processes"
    theirs = "fp32 loop over FLAC, PNG and npy that keeps a checkpoint"
    ours = f"`avloc train` in {precision}, with its model files and state"
    alone = "its steps on one batch in memory; the ratio is the share"
    rate = {"work": clips, "unit": "pairs/s"}
    return [
        compared("whole epoch", f"{start}; {theirs}; {ours}", spent, **rate),
        compared("whole epoch, share of its steps", f"{start}; {ours}, beside {alone}", spent, reference=PURE, **rate),
    ]


def _counted(call: Callable[[int], object]) -> Callable[[], None]:
    """Wrap `call` so that it receives the number of previous calls."""
    before = iter(range(10**6))
    return lambda: call(next(before)) and None


class _Data:
    """The same clips and hints for both sides."""

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

    def our_step(self, precision: str) -> Callable[[], None]:
        return our_step(self.config, precision, our_batch(self.store, self.config))

    def our_epoch(self, number: int) -> object:
        how = ("--epochs", 1, "--batch", self.batch, "--init", "random", "--set", f"workers={WORKERS}")
        where = ("--out", self.work / f"run-{number}", "--device", "cpu")
        return python("-m", "avloc", "train", self.store.folder, *how, *where)


def our_batch(store: Store, config: TrainConfig) -> Batch:
    """The first batch of a training run."""
    clips = training_set(store, store.ids, config)
    return next(iter(clip_loader(clips, EpochBatches(len(clips), config.batch, seed=0, epochs=1), workers=0)))


def our_step(config: TrainConfig, precision: str, batch: Batch) -> Callable[[], None]:
    """Steps as in `avloc.train`."""
    engine = Engine(config.model, torch.device("cpu"), precision)
    engine.model.train()
    return engine_step(engine, batch, config).whole()
