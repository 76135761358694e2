"""Run a model and the priors over a store: maps of cells, computed once for all protocols."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from avloc.annotations.boxes import published_boxes
from avloc.annotations.testsets import SilentPair
from avloc.errors import InputError, WeightsAbsent
from avloc.evaluate.external_maps import with_external_maps
from avloc.evaluate.options import DEFAULT_MAPS, EvalOptions
from avloc.evaluate.testset import TestSet, pairs_of
from avloc.media.pictures import decode_mask
from avloc.progress import Listener, Notice

if TYPE_CHECKING:
    from avloc.checkpoint import ModelFile
    from avloc.engine import ClipCells, Fusion
    from avloc.priors import DetrPrior, ObjectPrior

_NEEDS = {"object": ("object",), "fused": ("object",), "sweep": ("object",), "detr": ("detr",)}
"""Value of `--maps` -> priors that it needs. `detr` also uses the object prior if its weights are available."""


@dataclass(frozen=True, kw_only=True)
class Priors:
    """The prior networks whose weights were found."""

    object: ObjectPrior | None = None
    detr: DetrPrior | None = None
    not_run: dict[str, str] = field(default_factory=dict)
    """Kind of map that is left out -> why."""
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    """Prior -> its network and the SHA-256 of the weights."""


@dataclass(frozen=True, kw_only=True)
class ModelMaps:
    """One model's maps of all clips, in the order of their ids."""

    cells: list[ClipCells]
    silent: list[ClipCells] = field(default_factory=list)
    """Of the pairs of an extended set."""
    failures: dict[str, str] = field(default_factory=dict)
    """Clip -> why it has no map."""
    every: tuple[list[ClipCells], list[ClipCells]] = ([], [])
    """Clips and pairs including failures, in the order of ids and pairs: the same for every model."""
    missing_pairs: dict[str, str] = field(default_factory=dict)
    """Silent pair -> why it has no map."""
    fusion: Fusion | None = None
    """Of the model's card, if there are `shipped` maps."""


def load_priors(options: EvalOptions, listener: Listener) -> Priors:
    """The priors that the maps need.

    Raises:
        WeightsAbsent: the weights of a requested map are absent. A default map is left out instead.
    """
    from avloc.engine import pick_device
    from avloc.priors import DetrPrior, ObjectPrior

    device = pick_device(options.device)
    needed = {prior for name in options.maps or DEFAULT_MAPS for prior in _NEEDS.get(name, ())}
    prior = detr = None
    not_run: dict[str, str] = {}
    if needed:
        try:
            prior = ObjectPrior(options.prior, options.weights_dir, device, listener, options.precision)
        except WeightsAbsent as error:
            if options.maps and "object" in needed:
                raise
            listener(Notice(f"object prior not run: {error}"))
            left_out = ("object", "fused") if "object" in needed else ("fused-detr",)
            not_run = dict.fromkeys(left_out, "weights absent")
    if "detr" in needed:
        detr = DetrPrior(options.weights_dir, device, listener)
    names = {"object": {"network": prior.backbone, "sha256": prior.sha256}} if prior else {}
    names |= {"detr": {"network": "detr-resnet-50", "sha256": detr.sha256}} if detr else {}
    return Priors(object=prior, detr=detr, not_run=not_run, names=names)


def predict_maps(
    model: ModelFile,
    testset: TestSet,
    priors: Priors,
    options: EvalOptions,
    listener: Listener,
    known: ModelMaps | None = None,
) -> ModelMaps:
    """Run a model and the priors over the clips and silent pairs of a test set.

    `known` are the maps of another model on the same clips; those of the priors are reused.
    """
    from avloc.dataset import ClipSet, clip_loader
    from avloc.engine import Engine, WrongSounds, card_fusion, pick_device, predict_cells
    from avloc.engine.fusion import CARD_KEY, SHIPPED
    from avloc.evaluate.negatives import wrong_sounds
    from avloc.loader_processes import batches_in_flight, check_shared_memory

    store, pairs = testset.store, pairs_of(testset.known)
    assert store is not None, "only baselines are scored without a store"
    engine = Engine.from_file(model, pick_device(options.device), options.precision)
    shipped = SHIPPED in options.maps if options.maps else CARD_KEY in model.card
    fusion = card_fusion(model.card) if shipped else None
    prior, detr = (None, None) if known else (priors.object, priors.detr)
    predict = partial(predict_cells, engine, prior=prior, detr=detr, fusion=fusion, listener=listener)
    sides = (prior.side if prior else 0, detr.side if detr else 0)

    def run(task: str, ids: Sequence[str], sound_ids: Sequence[str] | None, wrong: WrongSounds) -> list[ClipCells]:
        clips = ClipSet(store, ids, engine.config, prior_side=sides[0], detr_side=sides[1], sound_ids=sound_ids)
        in_flight = batches_in_flight(options.workers, math.ceil(len(ids) / options.batch))
        if in_flight:
            check_shared_memory(clips.bytes_per_clip() * min(options.batch, len(ids)), in_flight, "lower --batch")
        batches = clip_loader(clips, batch=options.batch, workers=options.workers)
        return list(predict(batches, wrong=wrong, total=len(ids), task=task))

    labels = {clip_id: testset.labels[clip_id] for clip_id in testset.boxed}
    wrong = wrong_sounds(engine, store, labels, options.negatives) if options.negatives else WrongSounds()
    cells = run("scoring", testset.wanted, None, wrong)
    present = [pair for pair in pairs if pair.video in store.shards and pair.audio in store.shards]
    videos, sounds = [pair.video for pair in present], [pair.audio for pair in present]
    silent = run("silent pairs", videos, sounds, WrongSounds()) if present else []
    if known:
        cells = [_with_priors(*both) for both in zip(cells, known.every[0], strict=True)]
        silent = [_with_priors(*both) for both in zip(silent, known.every[1], strict=True)]
    absent = {_pair_name(pair): "not in the store" for pair in set(pairs).difference(present)}
    broken = {_pair_name(pair): entry.reason for pair, entry in zip(present, silent, strict=True) if entry.reason}
    return ModelMaps(
        every=(cells, silent),
        cells=[entry for entry in cells if not entry.reason],
        silent=[entry for entry in silent if not entry.reason],
        failures={entry.id: entry.reason for entry in cells if entry.reason},
        missing_pairs=dict(sorted({**absent, **broken}.items())),
        fusion=fusion,
    )


def _with_priors(mine: ClipCells, theirs: ClipCells) -> ClipCells:
    """A model's maps with the priors' maps, or the priors' failure, of another model's clip."""
    from avloc.engine.fusion import OWN, SHIPPED
    from avloc.engine.inference import NOT_FINITE

    of_model = ("av", OWN, SHIPPED)
    if theirs.reason and theirs.reason not in map(NOT_FINITE.format, of_model):
        return replace(mine, reason=theirs.reason)
    priors = {name: cells for name, cells in theirs.maps.items() if name not in of_model}
    return replace(mine, maps={**mine.maps, **priors})


def _pair_name(pair: SilentPair) -> str:
    return f"{pair.video} with the sound of {pair.audio}"


def maps_without_model(testset: TestSet, options: EvalOptions, listener: Listener) -> tuple[ModelMaps, str]:
    """The annotated clips with the maps of `--maps-dir`, or without maps; no model is needed.

    Returns:
        The clips, and the hash of the maps; '' without maps.
    """
    clips, digest = [_checked_mask(clip) for clip in _truths(testset)], ""
    if options.maps_dir is not None:
        clips, digest = with_external_maps(options.maps_dir, clips, listener)
    valid = [clip for clip in clips if not clip.reason]
    return ModelMaps(cells=valid, failures={clip.id: clip.reason for clip in clips if clip.reason}), digest


def _truths(testset: TestSet) -> Iterator[ClipCells]:
    """The annotated clips from the store, or from the boxes in the package."""
    from avloc.engine import ClipCells

    if testset.store is not None:
        for clip in map(testset.store.read, testset.wanted):
            yield ClipCells(id=clip.id, boxes=clip.boxes, mask=clip.mask)
    else:
        known = published_boxes().by_id
        yield from (ClipCells(id=clip_id, boxes=known[clip_id].boxes) for clip_id in testset.wanted)


def _checked_mask(clip: ClipCells) -> ClipCells:
    try:
        if clip.mask:
            decode_mask(clip.mask)
    except InputError as error:
        return replace(clip, reason=str(error))
    return clip
