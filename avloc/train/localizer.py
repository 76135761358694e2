"""Training of localizers on the clips of a store; the task that the training loop runs for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avloc.config import TrainConfig, to_dict
from avloc.dataset import Batch, clip_loader
from avloc.distributed import Peers
from avloc.engine import pick_device, pick_precision
from avloc.loader_processes import batches_in_flight, check_shared_memory, process_count
from avloc.methods.base import Group
from avloc.progress import Listener, Notice
from avloc.train.batches import EpochBatches
from avloc.train.compilation import compile_forward
from avloc.train.plan import TrainingPlan, TrainOptions, identity, plan_training, provenance, start_engine
from avloc.train.prefetch import prefetched
from avloc.train.run_folder import RunFolder
from avloc.train.task import step_seed
from avloc.train.validation import VALIDATION_PROCESSES, check_damage, validate


@dataclass(frozen=True)
class _WithCrops:
    """Batches in which each position has the numbers that `Engine.training_step` draws for its crops."""

    batches: EpochBatches
    views: int

    def __iter__(self) -> Iterator[list[tuple[int, list[list[float]]]]]:
        rows = self.batches.batch
        for step, batch in enumerate(self.batches, self.batches.first_step):
            generator = torch.Generator().manual_seed(step_seed(self.batches.seed, step))
            drawn = torch.stack([torch.rand((rows, 3), generator=generator) for _ in range(self.views)], 1)
            yield list(zip(batch, drawn[self.batches.peers.share(rows)].tolist(), strict=True))


class LocalizerTask:
    """One localizer on one store; a `Task`.

    Raises:
        StoreNotFound: no store there.
        Refused: unfit store, or incomplete hints.
        UsageError: settings that do not fit each other.
    """

    def __init__(self, options: TrainOptions, config: TrainConfig, listener: Listener) -> None:
        self.options, self.config = options, config
        self.plan: TrainingPlan = plan_training(options, config)
        self.clips, self.selection = len(self.plan.clips), self.plan.selection
        self.identity = identity(self.plan, config.loss)
        self.device = pick_device(options.device)
        self.precision = pick_precision(RunFolder(options.out).precision(config.precision), self.device)
        if self.plan.without_hints:
            listener(Notice(f"{self.plan.without_hints} clips are left out: they have no hints"))

    def start(self, listener: Listener) -> dict[str, Any]:
        """Build the engine."""
        self.engine, init = start_engine(self.options, self.config, self.precision, self.device, listener)
        if self.config.freeze:
            self.engine.model.freeze_backbones()
        if self.config.thaw:
            self.engine.model.thaw(*self.config.thaw.split(","))
        if self.config.compile:
            compile_forward(self.engine.model.backbones(), self.device)
        return init

    @property
    def model(self) -> nn.Module:
        """The networks."""
        return self.engine.model

    def groups(self) -> list[Group]:
        """The trainable parameters, by learning rate."""
        return self.engine.model.groups()

    def share(self, peers: Peers) -> None:
        """Share batches with other processes."""
        self.engine.share(peers)

    def load(self, batches: Iterable[list[int]]) -> Iterable[Batch]:
        """Frames, audio and hints of each batch, decoded in advance.

        Raises:
            Refused: shared memory is too small for so many processes.
        """
        assert isinstance(batches, EpochBatches)
        views, workers, clips = self.engine.model.views, process_count(self.config.workers), self.plan.clips
        if workers:
            rows = math.ceil(min(self.config.batch, len(clips)) / batches.peers.size)
            in_flight = batches_in_flight(workers, batches.steps)
            in_flight += batches_in_flight(VALIDATION_PROCESSES, len(clips)) if self.plan.validation else 0
            check_shared_memory(
                clips.bytes_per_clip(views) * rows, in_flight, "lower `workers`; --set workers=0 needs none"
            )
        on_gpu = self.engine.device.type == "cuda"
        loader = clip_loader(clips, _WithCrops(batches, views), workers=workers, pin_memory=on_gpu)
        return prefetched(loader, self.engine.device) if on_gpu else loader

    def terms(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss terms of one batch."""
        check_damage(batch.failures)
        return self.engine.training_step(batch, self.config, generator)

    def validate(self) -> tuple[float, float] | None:
        """Score and value on the held-out clips."""
        held_out = self.plan.validation
        with torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext():
            return validate(self.engine, held_out, self.config) if held_out else None

    def card(self, init: dict[str, Any]) -> dict[str, Any]:
        """Provenance of the model."""
        return provenance(self.plan, to_dict(self.config), self.precision, {**self.identity, "init": init})
