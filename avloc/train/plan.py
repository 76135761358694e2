"""Preparation of a training run before the first step: clips, validation, initial weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avloc import __version__
from avloc.annotations.testsets import list_names, published_list, test_ids
from avloc.checkpoint import ModelFile, load_model, put_weights
from avloc.config import LAST_EPOCH, TEST_SELECTED, LossWeights, ModelConfig, TrainConfig, check_used, to_dict
from avloc.dataset import ClipSet
from avloc.engine import Engine
from avloc.errors import Refused, UsageError
from avloc.media.superpixels import check_segments
from avloc.methods import Method
from avloc.networks.backbones import BackboneName
from avloc.networks.builder import load_pretrained
from avloc.networks.concepts import DIM, concept_projections, concepts_hash
from avloc.progress import Listener
from avloc.protocols import Protocol
from avloc.registry import METHOD_SPECS
from avloc.store import Store
from avloc.train.clips import training_set
from avloc.weights import backbone_weights, locate

CONCEPT_SETTINGS = {"vision_trunk": "efficientnet_lite0+classes", "audio_trunk": "yamnet+classes", "dim": DIM}
"""Model settings that `--init concepts` requires; the image backbone may have a frozen head."""
_CONCEPT_BACKBONES = tuple(BackboneName.parse(str(CONCEPT_SETTINGS[f"{kind}_trunk"])) for kind in ("vision", "audio"))


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Command-line options outside the configuration."""

    store: Path
    out: Path
    val: str = ""
    """A held-out store, a share of the clips ("0.1"), a split's name, or "" for none."""
    weights_dir: Path | None = None
    device: str = "auto"
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Held-out clips that select the epoch."""

    clips: ClipSet
    box_rule: str
    annotated: bool
    """Whether the clips have boxes or masks; then cIoU@0.5 selects the epoch, else the method's main loss term."""
    selection: str
    """Description of the selection, as written into the model file."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Clips and validation of one training run."""

    store: Store
    clips: ClipSet
    validation: Validation | None
    without_hints: int
    """Clips left out because they have no hints."""

    @property
    def selection(self) -> str:
        """How the epoch saved as `model.safetensors` is selected."""
        return self.validation.selection if self.validation else LAST_EPOCH


def plan_training(options: TrainOptions, config: TrainConfig) -> TrainingPlan:
    """Open the store, hold out the clips of `--val`, find the hints.

    Raises:
        StoreNotFound: no store there.
        Refused: it does not fit, has too few clips, or its hints are incomplete.
        UsageError: `--val` is invalid, `--init concepts` does not fit the networks, a loss term needs labels or boxes
            that the store lacks, the method does not use a setting, or scikit-image is needed and not installed.
    """
    check_used(config)
    if config.init == "concepts":
        _check_concepts(config.model)
    vision = config.model.vision_trunk
    if BackboneName.parse(vision).frozen_head and (not config.freeze or config.init == "random"):
        needs = "pretrained weights and frozen layers before it"
        hint = "--init imagenet or concepts, --set freeze=true"
        raise UsageError(f"the frozen head of {vision} needs {needs}", hint=hint)
    if METHOD_SPECS[config.model.method].segments and not config.model.own["grid"]:
        check_segments()
    store = Store(options.store)
    train_ids, validation = _split(store, options.val, config)
    if len(train_ids) < 2:
        raise Refused(f"{options.store} leaves {len(train_ids)} clips to train on; at least 2 are needed")
    _check_annotations(store, config.loss)
    clips = training_set(store, train_ids, config)
    if len(clips) < 2:
        raise Refused(f"{len(clips)} clips of {options.store} have hints; at least 2 are needed")
    return TrainingPlan(store=store, clips=clips, validation=validation, without_hints=len(train_ids) - len(clips))


def _check_annotations(store: Store, loss: LossWeights) -> None:
    """Refuse loss terms for which no clip of the store has labels, boxes or masks."""
    hint = "Prepare the store with --kind train and --annotations FILE."
    if loss.same_class == "masked" and not any(store.column("label")):
        raise UsageError(f"loss.same_class = masked, but no clip of {store.folder} has a label", hint=hint)
    for name in ("box", "peak"):
        if getattr(loss, name) and not store.annotated():
            weight = f"loss.{name} = {getattr(loss, name):g}"
            raise UsageError(f"{weight}, but no clip of {store.folder} has a box or a mask", hint=hint)


def identity(plan: TrainingPlan, loss: LossWeights) -> dict[str, Any]:
    """Fingerprint of a run's data and selection, compared on resume. Labels are part of it if the loss uses them."""
    parts = [part for part in (plan.clips.audio_hints, plan.clips.visual_hints) if part is not None]
    return {
        "data_hash": plan.store.data_hash(),
        "clips_hash": _lines_hash(plan.clips.ids),
        "selection": plan.selection,
        "hints": {part.stamp["teacher"]: json.dumps(part.stamp, sort_keys=True) for part in parts},
        **({"labels_hash": _lines_hash(plan.store.column("label"))} if loss.same_class == "masked" else {}),
    }


def _lines_hash(lines: Sequence[object]) -> str:
    return hashlib.sha256("\n".join(map(str, lines)).encode()).hexdigest()


def _split(store: Store, val: str, config: TrainConfig) -> tuple[list[str], Validation | None]:
    ids = store.ids
    if not val:
        return ids, None
    if (Path(val) / "store.json").is_file():
        other = Store(Path(val))
        shared = set(ids) & set(other.ids)
        train_ids = [clip_id for clip_id in ids if clip_id not in shared]
        return train_ids, _validation(other, other.ids, config, f"store {Path(val).name}")
    try:
        held_out = _share(ids, val)
    except ValueError:
        held_out = _named_split(store, val)
    train_ids = [clip_id for clip_id in ids if clip_id not in held_out]
    return train_ids, _validation(store, sorted(held_out), config, f"held-out {val}")


def _share(ids: Sequence[str], text: str) -> set[str]:
    """A share of the ids, selected by their hash, so independent of each other; ValueError if `text` is no number."""
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
    annotated = sorted(set(store.annotated()).intersection(ids))
    ids = annotated or ids
    least = 1 if annotated else 2
    if len(ids) < least:
        raise UsageError(f"--val holds out {len(ids)} of the clips ({label}); valid: {least} or more")
    criterion = (
        f"cIoU@0.5, protocol {Protocol().name}" if annotated else f"{METHOD_SPECS[config.model.method].term} loss"
    )
    known_test = f"{TEST_SELECTED}: " if store.header.testset or test_ids() & set(ids) else ""
    return Validation(
        clips=ClipSet(store, ids, config.model),
        box_rule=store.header.box_rule,
        annotated=bool(annotated),
        selection=f"{known_test}best {criterion} on {label}, {len(ids)} clips",
    )


def start_engine(
    options: TrainOptions, config: TrainConfig, precision: str, device: torch.device, listener: Listener
) -> tuple[Engine, dict[str, Any]]:
    """A seeded engine with its initial weights, and a record of their origin; a dry run downloads none.

    Raises:
        WeightsError: the weights that `--init` names are missing.
        UsageError: the method has no published weights, or the model file is missing or has another configuration.
    """
    torch.manual_seed(config.seed)
    engine = Engine(config.model, device, precision)
    if config.init in ("imagenet", "concepts"):
        if not engine.model.pretrained():
            method = config.model.method
            raise UsageError(f"init = {config.init!r} is impossible for {method}; valid: random, or a model file")
        if options.dry_run:
            return engine, {}
        first, *others = (_load_file(*target, options, listener) for target in engine.model.pretrained())
        init = {**first, **({"audio": others[0]} if others else {})}
        if config.init == "concepts":
            _load_concepts(engine.model)
            init["concepts"] = concepts_hash()
        return engine, init
    if config.init == "random":
        return engine, {"weights": "random"}
    try:
        model = load_model(Path(config.init))
    except UsageError as error:
        hint = "--init takes imagenet, concepts, random, a run folder, a .safetensors or a published .pth."
        raise UsageError(str(error), hint=hint) from error
    _check_same_model(model, config.model)
    put_weights(engine.model, model)
    return engine, {"weights": model.path.name, "sha256": model.sha256}


def _load_file(module: nn.Module, network: str, options: TrainOptions, listener: Listener) -> dict[str, Any]:
    """Load published weights into a backbone."""
    weight, instead = backbone_weights(network), "Or start from random weights: --init random."
    located = locate(weight, weights_dir=options.weights_dir, listener=listener, instead=instead)
    load_pretrained(module, network, located.path)
    return {"weights": located.name, "sha256": located.sha256, "verified": located.verified}


def _check_concepts(config: ModelConfig) -> None:
    vision = BackboneName.parse(config.vision_trunk)
    names = (replace(vision, frozen_head=False), BackboneName.parse(config.audio_trunk))
    if names != _CONCEPT_BACKBONES or config.dim != DIM:
        settings = " ".join(f"--set model.{name}={value}" for name, value in CONCEPT_SETTINGS.items())
        raise UsageError("--init concepts needs other networks", hint=f"Valid: {settings}")


@torch.no_grad()
def _load_concepts(model: Method) -> None:
    ours = model.state_dict()  # shares the memory of the model
    names = ("img_proj.weight", "img_proj.bias", "aud_proj.weight", "aud_proj.bias")
    for name, values in zip(names, concept_projections(), strict=True):
        ours[name].copy_(values)


def _check_same_model(model: ModelFile, config: ModelConfig) -> None:
    """Refuse a model file with another configuration: its weights may fit in shape and still expect other input."""
    theirs, ours = to_dict(model.config), to_dict(config)
    differ = [name for name in theirs if name != "tau" and theirs[name] != ours[name]]
    if differ:
        different = ", ".join(f"{name} {theirs[name]!r} (here {ours[name]!r})" for name in differ)
        own = {name: value for name, value in theirs["own"].items() if ours["own"].get(name) != value}
        typed = [f"model.{name}={theirs[name]}" for name in differ if name != "own"]
        settings = " ".join(
            f"--set {each}" for each in (*typed, *(f"{model.config.method}.{k}={v}".lower() for k, v in own.items()))
        )
        raise UsageError(f"--init {model.path} is a model with {different}", hint=f"Train one like it: {settings}")


def provenance(
    plan: TrainingPlan, config_table: dict[str, Any], precision: str, identity: dict[str, Any]
) -> dict[str, Any]:
    """The training record of the model file. It does not depend on the clock or on paths."""
    header, listed = plan.store.header, _training_list(plan.store)
    return {
        "version": __version__,
        "torch": torch.__version__,
        "config": {**config_table, "init": identity["init"].get("weights", "")},
        "precision": precision,
        **identity,
        "hints": {name: json.loads(stamp) for name, stamp in identity["hints"].items()},
        "clips": len(plan.clips),
        "clips_without_hints": plan.without_hints,
        "store_kind": header.kind,
        "ids": header.provenance.get("ids", ""),
        "training_list": listed,
        "training_list_clips": len(published_list(listed)) if listed else 0,
        "validation_data_hash": plan.validation.clips.store.data_hash() if plan.validation else "",
    }


def _training_list(store: Store) -> str:
    """Name of the published list that a store was prepared from; '' for none.

    A file of that name may hold other ids, so every clip of the store must be on the list.
    """
    ids = str(store.header.provenance.get("ids", ""))
    name = ids.partition(".")[0].replace("-", "_")
    return name if name in list_names() and frozenset(published_list(name)).issuperset(store.ids) else ""
