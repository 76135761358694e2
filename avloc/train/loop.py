"""The training loop: steps, epochs, validation, selection, interrupts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from avloc.config import OptimConfig, TrainConfig, to_dict
from avloc.dataset import Batch, load
from avloc.engine import Engine, pick_device, pick_precision, weighted_total
from avloc.errors import Refused, UsageError
from avloc.events import Listener, Notice, silent
from avloc.events import Progress as ProgressEvent
from avloc.files import folder_lock, remove_leftovers
from avloc.methods import Method
from avloc.parallel import ALONE, Peers
from avloc.train.order import EpochBatches
from avloc.train.plan import Plan, TrainOptions, identity, make_plan, provenance, start_engine
from avloc.train.run_folder import Progress, RunFolder
from avloc.train.validation import check_damage, validate

SAVE_EVERY_S = 300.0  # an epoch longer than this is saved on the way


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What a run is, or with `--dry-run` would be."""

    run: str
    seed: int
    clips: int
    steps_per_epoch: int
    epochs_done: int
    epochs: int
    parameters: int
    precision: str
    selection: str
    metrics: list[dict[str, Any]]
    interrupted: bool = False
    dry_run: bool = False


def train(
    options: TrainOptions,
    config: TrainConfig,
    listener: Listener = silent,
    should_stop: Callable[[], bool] = lambda: False,
    peers: Peers = ALONE,
) -> TrainReport:
    """Train, or go on training, into `options.out`.

    Processes that share the batches (`avloc.parallel.joined`) all call it alike; the first one writes.

    Args:
        options: store, run folder, validation, device.
        config: networks, losses, optimiser, augmentation.
        listener: hears notices and progress.
        should_stop: asked after every step; True in any process saves the state, and all return.
        peers: the processes.

    Raises:
        Refused: unfit store, incomplete hints, another run in the folder, a non-finite loss, or processes that do not
            see the same files.
        UsageError: fewer clips in a batch than processes.
        WeightsError: initial weights are absent.
    """
    plan = make_plan(options, config)
    if peers.size > 1 and options.device.startswith("cuda:"):
        raise UsageError(f"--device {options.device} is one GPU for {peers.size} processes; valid: auto, cpu or cuda")
    device = pick_device(options.device)
    precision = pick_precision(config.precision, device)
    if plan.without_hints:
        listener(Notice(f"{plan.without_hints} clips are left out: the teachers have no hint of them"))
    if options.dry_run:
        trainer = _Trainer(options, config, plan, Engine(config.model, device, precision), {}, listener)
        trainer.look_ahead()
        return trainer.report(dry_run=True)
    if min(config.batch, len(plan.clips)) < peers.size:
        raise UsageError(
            f"batches of {min(config.batch, len(plan.clips))} clips are too few for {peers.size} processes"
        )
    engine, init = start_engine(options, config, precision, device, listener)
    with folder_lock(options.out) if peers.is_first else nullcontext():
        if peers.is_first:
            remove_leftovers(options.out)
        return _Trainer(options, config, plan, engine, init, listener, peers).run(should_stop)


def make_optimiser(model: Method, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over what is to learn, in one pass over the weights (`fused`)."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    groups = [
        {
            "params": group.parameters,
            "lr": config.lr * group.factor,
            "weight_decay": config.weight_decay * group.decays,
        }
        for group in model.groups()
    ]
    optimiser: torch.optim.Optimizer = kind(groups, betas=(config.beta1, config.beta2), fused=True)
    return optimiser


class _Trainer:
    def __init__(
        self,
        options: TrainOptions,
        config: TrainConfig,
        plan: Plan,
        engine: Engine,
        init: dict[str, Any],
        listener: Listener,
        peers: Peers = ALONE,
    ) -> None:
        self.config, self.plan, self.engine, self.listener = config, plan, engine, listener
        self.folder = RunFolder(options.out)
        if config.freeze:
            engine.model.freeze_trunks()
        self.peers = peers
        self.optimiser = make_optimiser(engine.model, config.optim)
        self.steps_per_epoch = EpochBatches(len(plan.clips), config.batch, config.seed, 1).steps_per_epoch
        self.progress = Progress()
        self.lines: list[dict[str, Any]] = []
        self.identity = {**identity(plan, config.loss), "init": init}
        self.card = provenance(plan, to_dict(config), engine.precision, self.identity)

    def look_ahead(self) -> None:
        """Refuse what a real run would refuse, and see how far a run that is there has come; write nothing."""
        self.folder.check_config(self.config, {k: v for k, v in self.identity.items() if k != "init"})
        self.progress = self.folder.peek()
        self._check_epochs()

    def _check_epochs(self) -> None:
        done = self.progress.step // self.steps_per_epoch
        if done > self.config.epochs:
            raise Refused(
                f"{self.folder.path} has {done} epochs already; --epochs {self.config.epochs} would be fewer",
                hint="Take another --out.",
            )

    def _check_peers(self) -> None:
        """Processes on machines that do not see the same files would each train something else."""
        precision = self.engine.precision
        mine = {"settings": to_dict(self.config), "precision": precision, "steps": self.progress.step, **self.identity}
        first, *others = self.peers.objects(mine)
        for rank, theirs in enumerate(others, 1):
            differ = ", ".join(name for name in first if first[name] != theirs[name])
            if differ:
                hint = "All of them need the same store and the same --out, on a file system that they share."
                raise Refused(f"process {rank} of {self.peers.size} differs from process 0 in: {differ}", hint=hint)

    def run(self, should_stop: Callable[[], bool]) -> TrainReport:
        self.folder.check_config(self.config, self.identity)
        self.progress = self.folder.load_state(self.engine.model, self.optimiser)
        self._check_epochs()
        self._check_peers()
        self.engine.share(self.peers)
        if self.peers.is_first:
            self.folder.write_config(self.config, self.identity)
        epochs_done = self.progress.step // self.steps_per_epoch
        self.lines = [line for line in self.folder.metrics() if line["epoch"] <= epochs_done]
        if len(self.plan.clips) < self.config.batch:
            self.listener(Notice(f"fewer clips than a batch: all {len(self.plan.clips)} make one batch"))
        interrupted = self._steps(should_stop)
        return self.report(interrupted=interrupted)

    def report(self, *, interrupted: bool = False, dry_run: bool = False) -> TrainReport:
        return TrainReport(
            run=str(self.folder.path),
            seed=self.config.seed,
            clips=len(self.plan.clips),
            steps_per_epoch=self.steps_per_epoch,
            epochs_done=self.progress.step // self.steps_per_epoch,
            epochs=self.config.epochs,
            parameters=sum(p.numel() for p in self.engine.model.parameters()),
            precision=self.engine.precision,
            selection=self.plan.selection,
            metrics=self.lines,
            interrupted=interrupted,
            dry_run=dry_run,
        )

    def _steps(self, should_stop: Callable[[], bool]) -> bool:
        """Train to the end; True if stopped on the way."""
        config = self.config
        batches = EpochBatches(
            len(self.plan.clips), config.batch, config.seed, config.epochs, self.progress.step, self.peers
        )
        total = batches.steps
        saved_at = time.monotonic()
        self.engine.model.train()
        should_stop()  # from here on a stop waits for the end of a step
        for batch in load(self.plan.clips, batches, workers=config.workers):
            terms = self._step(batch)
            self._announce(total, terms)
            epoch_over = self.progress.step % self.steps_per_epoch == 0
            if epoch_over:
                self._end_epoch(self.progress.step // self.steps_per_epoch)
            stop = self.peers.any(should_stop(), self.engine.device)
            if self.peers.is_first and (epoch_over or stop or time.monotonic() - saved_at > SAVE_EVERY_S):
                self.folder.save_state(self.progress, self.engine.model, self.optimiser)
                saved_at = time.monotonic()
            if stop and self.progress.step < total:
                return True
        return False

    def _step(self, batch: Batch) -> dict[str, float]:
        check_damage(batch.failures)
        # A stream for each step, so that a resumed run draws what the uninterrupted one would have drawn.
        seed = np.random.SeedSequence((self.config.seed, self.progress.step)).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        torch.manual_seed(int(seed) + self.peers.rank)  # for layers that draw, such as stochastic depth
        terms = self.engine.training_step(batch, self.config, generator)
        total = weighted_total(terms, self.config.loss)
        shared = self.peers.total(torch.stack([total, *terms.values()]).detach()) / self.peers.size
        values = dict(zip(("loss", *terms), shared.tolist(), strict=True))
        if not all(math.isfinite(value) for value in values.values()):
            shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
            hint = "The weights are untouched by this step. Lower optim.lr, or try --set precision=fp32."
            raise Refused(f"the loss is not finite at step {self.progress.step + 1}: {shown}", hint=hint)
        self._set_lr()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.progress.step += 1
        for name, value in values.items():
            entry = self.progress.sums.setdefault(name, [0.0, 0.0])
            entry[0] += value
            entry[1] += 1
        return values

    def _set_lr(self) -> None:
        """The schedule, as a function of the step alone: a resumed run needs no state of it."""
        if self.config.optim.schedule == "cosine":
            share = self.progress.step / (self.steps_per_epoch * self.config.epochs)
            for group, kind in zip(self.optimiser.param_groups, self.engine.model.groups(), strict=True):
                group["lr"] = kind.factor * self.config.optim.lr * (1 + math.cos(math.pi * share)) / 2

    def _announce(self, total: int, terms: dict[str, float]) -> None:
        epoch = (self.progress.step - 1) // self.steps_per_epoch + 1
        detail = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        event = ProgressEvent(
            task="training",
            done=self.progress.step,
            total=total,
            detail=f"epoch {epoch}/{self.config.epochs}  {detail}",
        )
        self.listener(event)

    def _end_epoch(self, epoch: int) -> None:
        line: dict[str, Any] = {"epoch": epoch}
        line |= {name: value / count for name, (value, count) in self.progress.sums.items()}
        self.progress.sums = {}
        chosen = True
        if self.plan.validation:
            held_out = self.plan.validation
            score, line["val"] = self.peers.first_says(lambda: validate(self.engine, held_out, self.config))
            chosen = self.progress.best is None or score > self.progress.best
            if chosen:
                self.progress.best = score
        self.lines.append(line)
        if self.peers.is_first:
            self.folder.save_last(self.config.model, self.engine.model, {**self.card, "epoch": epoch}, select=chosen)
            self.folder.write_metrics(self.lines)
