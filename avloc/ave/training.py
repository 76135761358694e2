"""Training of the event methods on the features of a store, as a task of the training loop."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avloc import __version__
from avloc.ave.event_table import NOISE, EventRow, EventTable
from avloc.ave.features import EventSet
from avloc.ave.metrics import accuracy
from avloc.ave.networks import AVE, EventMethod, Features, build_network
from avloc.checkpoint import load_model, put_weights
from avloc.config import LAST_EPOCH, TEST_SELECTED, TrainConfig, check_used, to_dict
from avloc.distributed import ALONE, Peers, share_gradients
from avloc.engine import pick_device, pick_precision
from avloc.errors import Refused, UsageError
from avloc.methods.base import Group
from avloc.networks.base import full_float32
from avloc.progress import Listener, Notice
from avloc.train.plan import TrainOptions
from avloc.train.run_folder import RunFolder
from avloc.transforms import on_device


class EventTask:
    """One event method on one store; a `Task`.

    Raises:
        StoreNotFound: there is no store.
        Refused: the store has no events, or no features of them.
        UsageError: settings that do not fit each other or the store, or `--val` is not a part of the split.
    """

    def __init__(self, options: TrainOptions, config: TrainConfig, listener: Listener) -> None:
        check_used(config)
        self.options, self.config = options, config
        self.table = EventTable.of(options.store)
        self.is_match = config.model.method == "ave-match"
        classes, there = config.model.own.get("classes"), len(self.table.classes)
        if classes not in (None, there):
            reason = f"ave.classes = {classes} is impossible: {options.store} has {there} classes of events"
            raise UsageError(reason, hint=f"Valid: --set ave.classes={there}")
        self.training_set = self._set(training_rows(self.table, config, options.val))
        self.held_out = self._set(self._held_out()) if options.val else None
        if len(self.training_set) < 2:
            raise Refused(f"{options.store} leaves {len(self.training_set)} rows to train on; at least 2 are needed")
        weak = config.model.own.get("weak")
        if weak and not any(row.split == NOISE for row in self.training_set.rows):
            listener(Notice("there are no rows of noise: no training clip is background throughout"))
        if self.training_set.n_missing:
            listener(Notice(f"{self.training_set.n_missing} rows are left out: there are no features of their clips"))
        self.clips, self.selection = len(self.training_set), self._selection()
        sets = (self.training_set.audio, self.training_set.visual)
        self.identity: dict[str, Any] = {
            "events_hash": self.table.hash(),
            "selection": self.selection,
            "hints": {part.stamp["teacher"]: json.dumps(part.stamp, sort_keys=True) for part in sets},
        }
        self._peers = ALONE
        self.device = pick_device(options.device)
        self.precision = pick_precision(RunFolder(options.out).precision(config.precision), self.device)

    def _set(self, rows: Sequence[EventRow]) -> EventSet:
        return EventSet(self.options.store, self.table, rows, pooled=self.is_match)

    def _held_out(self) -> list[EventRow]:
        name = self.options.val
        if name not in ("val", "test"):
            raise UsageError(f"--val {name} is impossible for {self.config.model.method}; valid: val, test")
        rows = self.table.part(name, match=self.is_match)
        if not rows:
            raise UsageError(f"--val {name}: no row of {self.options.store} is in that part of the split")
        return rows

    def _selection(self) -> str:
        if self.held_out is None:
            return LAST_EPOCH
        kind = "loss" if self.is_match else "accuracy per second"
        known_test = f"{TEST_SELECTED}: " if self.options.val == "test" else ""
        return f"{known_test}best {kind} on held-out {self.options.val}, {len(self.held_out)} rows"

    def start(self, listener: Listener) -> dict[str, Any]:  # noqa: ARG002
        """Build the network, seeded, with its initial weights."""
        torch.manual_seed(self.config.seed)
        self.model: EventMethod = build_network(self.config.model).to(self.device)
        self._terms: nn.Module = self.model
        if self.config.init == "random":
            return {"weights": "random"}
        return _load_initial(self.model, self.config)

    def groups(self) -> list[Group]:
        """The trainable parameters."""
        return self.model.groups()

    def share(self, peers: Peers) -> None:
        """Share batches with other processes."""
        if peers.size > 1:
            self._peers, self._terms = peers, share_gradients(self._terms)

    def load(self, batches: Iterable[list[int]]) -> Iterable[Features]:
        """The features of each batch, read when they are needed, which takes milliseconds."""
        return (self.training_set.batch(batch) for batch in batches)

    def terms(self, batch: Features, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Loss terms of one batch: means over its rows, weighted by this process's share of them."""
        peers = self._peers.with_rows(len(batch.labels))
        share = len(batch.labels) * peers.size / sum(peers.counts)
        found: dict[str, Tensor] = self._terms(self._moved(batch))
        return {name: term * share for name, term in found.items()}

    def _moved(self, batch: Features) -> Features:
        moved = {name: on_device(getattr(batch, name), self.device) for name in ("visual", "audio", "labels", "clips")}
        return Features(**moved, background=batch.background)

    @torch.inference_mode()
    @full_float32()
    def validate(self) -> tuple[float, float] | None:
        """Accuracy per second, or the loss for cross-modal matching."""
        if self.held_out is None:
            return None
        self.model.eval()
        total = 0.0
        for _, features in self.held_out.batches():
            batch = self._moved(features)
            if isinstance(self.model, AVE):
                predicted = self.model.predict(batch.visual, batch.audio).scores.argmax(2)
                # In float32, as runs of version 0.1 recorded it: a resumed run compares with their best epoch.
                score = float(np.float32(accuracy(predicted.cpu().numpy(), features.labels.numpy())))
            else:
                score = self.model.losses(batch)["contrastive"].item()
            total += score * len(batch.labels)
        self.model.train()
        value = total / len(self.held_out)
        return (-value if self.is_match else value), value

    def card(self, init: dict[str, Any]) -> dict[str, Any]:
        """Provenance of the model, and the names of its classes."""
        return {
            "version": __version__,
            "torch": torch.__version__,
            "config": {**to_dict(self.config), "init": init.get("weights", "")},
            "precision": self.precision,
            **self.identity,
            "hints": {name: json.loads(stamp) for name, stamp in self.identity["hints"].items()},
            "init": init,
            "clips": self.clips,
            "clips_without_hints": self.training_set.n_missing,
            "classes": list(self.table.classes),
        }


def training_rows(table: EventTable, config: TrainConfig, val: str) -> list[EventRow]:
    """Rows to train on: the training part, or all rows of a store without a split; with noise if labels are weak.

    Raises:
        UsageError: `--val` in a store without a split.
    """
    match = config.model.method == "ave-match"
    parts = {row.match if match else row.split for row in table.rows} - {"", NOISE}
    if not parts:
        if val:
            raise UsageError(f"--val {val}: the store has no split; prepare it with the published order files beside")
        return [row for row in table.rows if row.split != NOISE]
    weak = bool(config.model.own.get("weak"))
    return table.part("train", match=match) + (table.part(NOISE) if weak else [])


def _load_initial(network: EventMethod, config: TrainConfig) -> dict[str, Any]:
    """Load the weights of a model file; DMRN takes those of the plain network (AV_att) except for the head."""
    if config.init in ("imagenet", "concepts"):
        method = config.model.method
        raise UsageError(f"init = {config.init!r} is impossible for {method}; valid: random, or a model file")
    model = load_model(Path(config.init))
    if model.config.method != config.model.method:
        raise UsageError(f"--init {model.path} is a model of {model.config.method}, not of {config.model.method}")
    origin = {"weights": model.path.name, "sha256": model.sha256}
    if (model.config.own.get("dmrn"), config.model.own.get("dmrn")) == (False, True):
        origin["without"] = "head"
        head = {name: value for name, value in network.state_dict().items() if name.startswith(AVE.head)}
        rest = {name: value for name, value in model.state.items() if not name.startswith(AVE.head)}
        model = replace(model, state={**rest, **head})
    put_weights(network, model)
    return origin
