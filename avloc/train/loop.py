"""The training loop: steps, epochs, validation, selection of the epoch, interrupts; runs of several seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from avloc.config import OptimConfig, TrainConfig, to_dict
from avloc.distributed import ALONE, Peers
from avloc.engine import weighted_total
from avloc.errors import Refused, UsageError
from avloc.files import folder_lock, remove_leftovers
from avloc.methods.base import Group
from avloc.networks.base import allows_tf32, fastest_convolutions
from avloc.progress import Listener, Notice, Progress, silent
from avloc.registry import SPECS, resolve
from avloc.train.batches import EpochBatches
from avloc.train.plan import TrainOptions
from avloc.train.run_folder import RunFolder
from avloc.train.step_losses import StepLosses
from avloc.train.task import Task, step_seed
from avloc.train.trainer_state import RunState, load_state, peek_state, save_state

SAVE_EVERY_S = 300.0  # between saves within a long epoch


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """State of a run, or with `--dry-run` of the run that would start."""

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
    """Train into the run folder `options.out`, or resume the run in it.

    All processes that share the batches (`avloc.distributed.joined`) call it; the first one writes. `should_stop` is
    called after every step; True in any process saves the state, and all return.

    Raises:
        Refused: unfit store, incomplete hints, another run in the folder, a non-finite loss, or processes that do not
            share the same files.
        UsageError: fewer clips in a batch than processes, or a setting that several cannot have.
        WeightsError: initial weights are absent.
    """
    if peers.size > 1 and options.device.startswith(("cuda:", "mps")):
        raise UsageError(f"--device {options.device} is one GPU for {peers.size} processes; valid: auto, cpu or cuda")
    if peers.size > 1 and config.compile:
        raise UsageError(f"compile = true is impossible in {peers.size} processes; valid: false")
    task = make_task(options, config, listener)
    if min(config.batch, task.clips) < peers.size:
        raise UsageError(f"batches of {min(config.batch, task.clips)} clips are too few for {peers.size} processes")
    if options.dry_run:
        trainer = _Trainer(options, task, task.start(listener), listener, peers)
        trainer.rehearse()
        return trainer.report(dry_run=True)
    init = task.start(listener)
    with folder_lock(options.out) if peers.is_first else nullcontext():
        if peers.is_first:
            remove_leftovers(options.out)
        return _Trainer(options, task, init, listener, peers).run(should_stop)


def make_task(options: TrainOptions, config: TrainConfig, listener: Listener = silent) -> Task:
    """The task of the method on `options.store`, checked, without networks; raises what its class raises."""
    task: Task = resolve(SPECS[config.model.method].task)(options, config, listener)
    return task


def make_optimiser(groups: Sequence[Group], config: OptimConfig) -> torch.optim.Optimizer:
    """Fused Adam or AdamW over the trainable parameters."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    settings = [
        {"params": each.parameters, "lr": config.lr * each.factor, "weight_decay": config.weight_decay * each.decays}
        for each in groups
    ]
    optimiser: torch.optim.Optimizer = kind(settings, betas=(config.beta1, config.beta2), fused=True)
    return optimiser


def seed_runs(
    options: TrainOptions, config: TrainConfig, seeds: Sequence[int]
) -> list[tuple[TrainOptions, TrainConfig]]:
    """Arguments of `train` for one run per seed, each in a folder `seed-N` within `options.out`.

    All folders are checked first, so that a conflict in the last one is not found after hours of training.

    Raises:
        StoreNotFound: no store there.
        Refused: the store does not fit, `options.out` is a run itself, or one of the folders holds another run.
    """
    if (options.out / "config.toml").is_file():
        raise Refused(f"{options.out} is a run; --seeds needs a folder around its runs", hint="Take another --out.")
    runs = [(replace(options, out=options.out / f"seed-{seed}"), replace(config, seed=seed)) for seed in seeds]
    known = make_task(options, config).identity  # clips, selection and hints do not depend on the seed
    for run, settings in runs:
        RunFolder(run.out).check_config(settings, known)
    return runs


class _Trainer:
    def __init__(
        self, options: TrainOptions, task: Task, init: dict[str, Any], listener: Listener, peers: Peers = ALONE
    ) -> None:
        self.config, self.task, self.listener = task.config, task, listener
        self.folder = RunFolder(options.out)
        self.peers = peers
        self.optimiser = make_optimiser(task.groups(), self.config.optim)
        self.losses = StepLosses(task.device, peers)
        self.steps_per_epoch = EpochBatches(task.clips, self.config.batch, self.config.seed, 1).steps_per_epoch
        self.state = RunState()
        self.lines: list[dict[str, Any]] = []
        self.identity = {**task.identity, "init": init}
        self.card = {**task.card(init), "tf32": allows_tf32(task.device)}

    def rehearse(self) -> None:
        """Make the checks of a real run, and read the state of an existing run; write nothing."""
        self.folder.check_config(self.config, self.task.identity)
        self.state = peek_state(self.folder.path)
        self._check_epochs()
        config = self.config
        batches = EpochBatches(self.task.clips, config.batch, config.seed, config.epochs, self.state.step, self.peers)
        self.task.load(batches)  # checks shared memory; the loader starts its processes when it is iterated

    def _check_epochs(self) -> None:
        done = self.state.step // self.steps_per_epoch
        if done > self.config.epochs:
            raise Refused(
                f"{self.folder.path} has {done} epochs already; --epochs {self.config.epochs} would be fewer",
                hint="Take another --out.",
            )

    def _check_peers(self) -> None:
        """Refuse processes that read different files or settings."""
        precision = self.task.precision
        mine = {"settings": to_dict(self.config), "precision": precision, "steps": self.state.step, **self.identity}
        first, *others = self.peers.objects(mine, patient=True)  # some may have downloaded weights
        for rank, theirs in enumerate(others, 1):
            differ = ", ".join(name for name in first if first[name] != theirs[name])
            if differ:
                hint = "All of them need the same store and the same --out, on a file system that they share."
                raise Refused(f"process {rank} of {self.peers.size} differs from process 0 in: {differ}", hint=hint)

    def run(self, should_stop: Callable[[], bool]) -> TrainReport:
        self.folder.check_config(self.config, self.identity)
        self.state = load_state(self.folder.path, self.task.model, self.optimiser)
        self._check_epochs()
        self._check_peers()
        self.task.share(self.peers)
        if self.peers.is_first:
            self.folder.write_config(self.config, {**self.identity, "precision": self.task.precision})
        epochs_done = self.state.step // self.steps_per_epoch
        self.lines = [line for line in self.folder.metrics() if line["epoch"] <= epochs_done]
        if self.task.clips < self.config.batch:
            self.listener(Notice(f"fewer clips than a batch: all {self.task.clips} make one batch"))
        interrupted = self._steps(should_stop)
        return self.report(interrupted=interrupted)

    def report(self, *, interrupted: bool = False, dry_run: bool = False) -> TrainReport:
        return TrainReport(
            run=str(self.folder.path),
            seed=self.config.seed,
            clips=self.task.clips,
            steps_per_epoch=self.steps_per_epoch,
            epochs_done=self.state.step // self.steps_per_epoch,
            epochs=self.config.epochs,
            parameters=sum(p.numel() for p in self.task.model.parameters()),
            precision=self.task.precision,
            selection=self.task.selection,
            metrics=self.lines,
            interrupted=interrupted,
            dry_run=dry_run,
        )

    def _steps(self, should_stop: Callable[[], bool]) -> bool:
        """Train to the end; True if interrupted."""
        config = self.config
        batches = EpochBatches(self.task.clips, config.batch, config.seed, config.epochs, self.state.step, self.peers)
        total = batches.steps
        saved_at = time.monotonic()
        self.task.model.train()
        should_stop()  # from now on a stop waits for the end of a step
        for batch in self.task.load(batches):
            self._step(batch)
            epoch_over = self.state.step % self.steps_per_epoch == 0
            self._log_steps(total, wait=epoch_over)
            if epoch_over:
                means = self._end_epoch(self.state.step // self.steps_per_epoch)
                self._report_step(self.state.step, total, means, milestone=True)
            # By the first clock, so that all processes read the losses of the same steps.
            due = self.peers.is_first and time.monotonic() - saved_at > SAVE_EVERY_S
            stop, due = self.peers.any(should_stop(), due)
            if epoch_over or stop or due:
                self._log_steps(total, wait=True)
                self.peers.from_first(lambda: save_state(self.folder.path, self.state, self.task.model, self.optimiser))
                saved_at = time.monotonic()
            if stop and self.state.step < total:
                return True
        return False

    @fastest_convolutions()
    def _step(self, batch: Any) -> None:
        # A random stream for each step, so that a resumed run draws the same numbers as an uninterrupted one.
        seed = step_seed(self.config.seed, self.state.step)
        torch.manual_seed(seed + self.peers.rank)  # for layers that draw, such as stochastic depth
        terms = self.task.terms(batch, torch.Generator().manual_seed(seed))
        total = weighted_total(terms, self.config.loss)
        not_finite = self.losses.send(self.state.step + 1, {"loss": total, **terms})
        self._set_lr()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.optimiser.found_inf = not_finite  # type: ignore[attr-defined]
        self.optimiser.step()
        self.state.step += 1

    def _log_steps(self, total: int, *, wait: bool) -> None:
        for step, values in self.losses.read(wait=wait):
            for name, value in values.items():
                before, count = self.state.sums.get(name, (0.0, 0.0))
                self.state.sums[name] = [before + value, count + 1]
            self._report_step(step, total, values)

    def _set_lr(self) -> None:
        """Set the learning rate, a function of the step alone: a resumed run needs no state for it."""
        if self.config.optim.schedule == "cosine":
            share = self.state.step / (self.steps_per_epoch * self.config.epochs)
            for group, kind in zip(self.optimiser.param_groups, self.task.groups(), strict=True):
                group["lr"] = kind.factor * self.config.optim.lr * (1 + math.cos(math.pi * share)) / 2

    def _report_step(self, step: int, total: int, terms: Mapping[str, float], *, milestone: bool = False) -> None:
        epoch = (step - 1) // self.steps_per_epoch + 1
        shown = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        detail = f"epoch {epoch}/{self.config.epochs}  {shown}"
        self.listener(Progress(task="training", done=step, total=total, detail=detail, milestone=milestone))

    def _end_epoch(self, epoch: int) -> dict[str, float]:
        """Validate and save; returns the mean loss terms of the epoch and the validation score."""
        means = {name: value / count for name, (value, count) in self.state.sums.items()}
        self.state.sums = {}

        def validate_and_save() -> tuple[dict[str, float], float | None]:
            best, selected = self.state.best, True
            if (found := self.task.validate()) is not None:
                score, means["val"] = found
                selected = best is None or score > best
                best = score if selected else best
            self.folder.save_last(self.config.model, self.task.model, {**self.card, "epoch": epoch}, select=selected)
            self.folder.write_metrics([*self.lines, {"epoch": epoch, **means}])
            return means, best

        means, self.state.best = self.peers.from_first(validate_and_save)
        self.lines.append({"epoch": epoch, **means})
        return means
