"""What a training run will do, settled before the first step: clips, validation, initial weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avloc import __version__
from avloc.checkpoint import load_model, put_weights
from avloc.config import Protocol, TrainConfig
from avloc.dataset import ClipSet, training_set
from avloc.engine import Engine
from avloc.errors import Refused, UsageError, WeightsError
from avloc.events import Listener
from avloc.networks.trunks import load_imagenet
from avloc.store import Store
from avloc.weights import imagenet_weights, locate


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the command line says beyond the configuration."""

    store: Path
    out: Path
    val: str = ""
    """A held-out store, a share of the clips ("0.1"), a split's name, or "" for none."""
    weights_dir: Path | None = None
    device: str = "auto"
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Held-out clips that choose the epoch."""

    clips: ClipSet
    box_rule: str
    by_boxes: bool
    """Chosen by cIoU@0.5 where the clips have boxes, else by the contrastive loss."""
    selection: str
    """How the chosen epoch is labelled in the model file."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a run needs to know before it starts."""

    store: Store
    clips: ClipSet
    validation: Validation | None

    @property
    def selection(self) -> str:
        """How the epoch that becomes `model.safetensors` is chosen."""
        return self.validation.selection if self.validation else "last epoch"


def make_plan(options: TrainOptions, config: TrainConfig) -> Plan:
    """Open the store, hold out what `--val` says, find the hints.

    Raises:
        StoreNotFound: no store there.
        Refused: it does not fit, has too few clips, or its hints are incomplete.
        UsageError: `--val` means nothing.
    """
    store = Store(options.store)
    train_ids, validation = _split(store, options.val, config)
    if len(train_ids) < 2:
        raise Refused(f"{options.store} leaves {len(train_ids)} clips to train on; 2 are the least")
    return Plan(store=store, clips=training_set(store, train_ids, config), validation=validation)


def _split(store: Store, val: str, config: TrainConfig) -> tuple[list[str], Validation | None]:
    ids = store.ids
    if not val:
        return ids, None
    if (Path(val) / "store.json").is_file():
        other = Store(Path(val))
        shared = set(ids) & set(other.ids)
        train_ids = [clip_id for clip_id in ids if clip_id not in shared]
        return train_ids, _validation(other, other.ids, config, f"store {Path(val).name}")
    held_out = _share(ids, val) if _is_number(val) else _named_split(store, val)
    train_ids = [clip_id for clip_id in ids if clip_id not in held_out]
    return train_ids, _validation(store, sorted(held_out), config, f"held-out {val}")


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def _share(ids: Sequence[str], text: str) -> set[str]:
    """The same clips for the same ids, whatever else is in the store."""
    share = float(text)
    if not 0 < share < 1:
        raise UsageError(f"--val {text} is impossible; valid: a share between 0 and 1, a store, or a split's name")
    limit = int(share * 2**32)
    return {i for i in ids if int.from_bytes(hashlib.sha256(i.encode()).digest()[:4], "big") < limit}


def _named_split(store: Store, name: str) -> set[str]:
    splits = store.column("split")
    if name not in splits:
        known = ", ".join(sorted({split for split in splits if split})) or "none in this store"
        raise UsageError(f"--val {name}: no such store or split; splits: {known}")
    return {clip_id for clip_id, split in zip(store.ids, splits, strict=True) if split == name}


def _validation(store: Store, ids: Sequence[str], config: TrainConfig, label: str) -> Validation:
    if not ids:
        raise UsageError(f"--val holds out no clip ({label})")
    by_boxes = any(len(store.read(clip_id).boxes) for clip_id in ids)
    criterion = f"cIoU@0.5, protocol {Protocol().name}" if by_boxes else "contrastive loss"
    known_test = "test-selected: " if store.header.testset else ""
    return Validation(
        clips=ClipSet(store, ids, config.model),
        box_rule=store.header.box_rule,
        by_boxes=by_boxes,
        selection=f"{known_test}best {criterion} on {label}, {len(ids)} clips",
    )


def start_engine(
    options: TrainOptions, config: TrainConfig, precision: str, device: torch.device, listener: Listener
) -> Engine:
    """A seeded engine with its initial weights.

    Raises:
        WeightsError: `--init` asks for weights that are not there; never random ones unasked.
    """
    torch.manual_seed(config.seed)
    engine = Engine(config.model, device, precision)
    if config.init == "imagenet":
        try:
            located = locate(
                imagenet_weights(config.model.vision_trunk.partition(":")[0]),
                weights_dir=options.weights_dir,
                listener=listener,
            )
        except WeightsError as error:
            raise WeightsError(str(error), hint=f"{error.hint} Or start untaught: --init random.".strip()) from error
        load_imagenet(engine.model.imgnet, located.path)
    elif config.init != "random":
        put_weights(engine.model, load_model(Path(config.init)))
    return engine


def provenance(plan: Plan, config_table: dict[str, Any], precision: str) -> dict[str, Any]:
    """What the model file will say about its training. Nothing in it depends on the clock or the machine's paths."""
    hints = {
        name: part.stamp
        for name, part in (("panns", plan.clips.audio_hints), ("detr", plan.clips.visual_hints))
        if part is not None
    }
    header = plan.store.header
    return {
        "version": __version__,
        "torch": torch.__version__,
        "config": config_table,
        "precision": precision,
        "data_hash": plan.store.data_hash(),
        "clips": len(plan.clips),
        "store_kind": header.kind,
        "ids": header.provenance.get("ids", ""),
        "hints": hints,
        "selection": plan.selection,
    }
