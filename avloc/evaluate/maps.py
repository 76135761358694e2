"""A model and a store to maps of cells: everything that scoring needs, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from avloc.annotations.boxes import published_boxes
from avloc.annotations.lists import SilentPair
from avloc.errors import WeightsAbsent
from avloc.evaluate.plan import DEFAULT_MAPS, EvalOptions
from avloc.progress import Listener, Notice
from avloc.store import Store

if TYPE_CHECKING:
    from avloc.checkpoint import ModelFile
    from avloc.engine import ClipCells, Fusion
    from avloc.priors import DetrPrior, ObjectPrior

_NEEDS = {"object": ("object",), "fused": ("object",), "sweep": ("object",), "detr": ("detr",)}
"""Map as asked for -> priors that it needs. `detr` also uses the object prior if its weights are there."""


@dataclass(frozen=True, kw_only=True)
class Priors:
    """The prior networks whose weights were found."""

    object: ObjectPrior | None = None
    detr: DetrPrior | None = None
    not_run: dict[str, str] = field(default_factory=dict)
    """Kinds of map that are left out, and why."""
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    """Prior -> its network and the SHA-256 of its weights."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """One model's maps of all clips, in the order of their ids."""

    cells: list[ClipCells]
    silent: list[ClipCells] = field(default_factory=list)
    """Of the pairs of an extended set."""
    failures: dict[str, str] = field(default_factory=dict)
    """Clip -> why it has no map."""
    every: tuple[list[ClipCells], list[ClipCells]] = ([], [])
    """Clips and pairs with those that failed, in the order of ids and pairs: the same for every model."""
    missing_pairs: dict[str, str] = field(default_factory=dict)
    """Silent pair -> why it has no map."""
    fusion: Fusion | None = None
    """Of the model's card, if `shipped` maps were made."""


def load_priors(options: EvalOptions, device: Any, listener: Listener) -> Priors:
    """The priors that the maps need.

    Raises:
        WeightsAbsent: weights of a map that was asked for by name are absent. Otherwise the map is not run.
    """
    from avloc.priors import DetrPrior, ObjectPrior

    wanted = {prior for name in options.maps or DEFAULT_MAPS for prior in _NEEDS.get(name, ())}
    prior = detr = None
    not_run: dict[str, str] = {}
    if wanted:
        try:
            prior = ObjectPrior(options.prior, options.weights_dir, device, listener, options.precision)
        except WeightsAbsent as error:
            if options.maps and "object" in wanted:
                raise
            listener(Notice(f"object prior not run: {error}"))
            left_out = ("object", "fused") if "object" in wanted else ("fused-detr",)
            not_run = dict.fromkeys(left_out, "weights absent")
    if "detr" in wanted:
        detr = DetrPrior(options.weights_dir, device, listener)
    names = {"object": {"network": prior.trunk, "sha256": prior.sha256}} if prior else {}
    names |= {"detr": {"network": "detr-resnet-50", "sha256": detr.sha256}} if detr else {}
    return Priors(object=prior, detr=detr, not_run=not_run, names=names)


def gather(
    model: ModelFile,
    store: Store,
    ids: Sequence[str],
    pairs: Sequence[SilentPair],
    labels: Mapping[str, str],
    priors: Priors,
    options: EvalOptions,
    listener: Listener,
    known: Gathered | None = None,
) -> Gathered:
    """Run a model and the priors over clips and pairs.

    Args:
        model: to be scored.
        store: holds the clips.
        ids: clips with a truth.
        pairs: of an extended set; those that the store lacks are failures.
        labels: clip id -> class, for sounds of other classes.
        priors: run beside the model.
        options: loader, device, precision, maps, wrong sounds.
        listener: receives the progress.
        known: of another model on the same clips, whose priors' maps are reused.
    """
    from avloc.dataset import ClipSet, load
    from avloc.engine import Engine, WrongSounds, card_fusion, pick_device, predict_cells
    from avloc.engine.fusion import SHIPPED
    from avloc.engine.fusion_setup import CARD_KEY
    from avloc.evaluate.negatives import wrong_sounds

    engine = Engine.from_file(model, pick_device(options.device), options.precision)
    shipped = SHIPPED in options.maps if options.maps else CARD_KEY in model.card
    fusion = card_fusion(model.card) if shipped else None
    prior, detr = (None, None) if known else (priors.object, priors.detr)
    predict = partial(predict_cells, engine, prior=prior, detr=detr, fusion=fusion, listener=listener)
    sides = (prior.side if prior else 0, detr.side if detr else 0)

    def run(task: str, ids: Sequence[str], sound_ids: Sequence[str] | None, wrong: WrongSounds) -> list[ClipCells]:
        clips = ClipSet(store, ids, engine.config, prior_side=sides[0], detr_side=sides[1], sound_ids=sound_ids)
        batches = load(clips, batch=options.batch, workers=options.workers)
        return list(predict(batches, wrong=wrong, total=len(ids), task=task))

    wrong = wrong_sounds(engine, store, labels, options.negatives) if options.negatives else WrongSounds()
    cells = run("scoring", sorted(ids), None, wrong)
    there = [pair for pair in pairs if pair.video in store.shards and pair.audio in store.shards]
    videos, sounds = [pair.video for pair in there], [pair.audio for pair in there]
    silent = run("silent pairs", videos, sounds, WrongSounds()) if there else []
    if known:
        cells = [_with_priors(*both) for both in zip(cells, known.every[0], strict=True)]
        silent = [_with_priors(*both) for both in zip(silent, known.every[1], strict=True)]
    absent = {_pair_name(pair): "not in the store" for pair in set(pairs).difference(there)}
    broken = {_pair_name(pair): entry.reason for pair, entry in zip(there, silent, strict=True) if entry.reason}
    return Gathered(
        every=(cells, silent),
        cells=[entry for entry in cells if not entry.reason],
        silent=[entry for entry in silent if not entry.reason],
        failures={entry.id: entry.reason for entry in cells if entry.reason},
        missing_pairs=dict(sorted({**absent, **broken}.items())),
        fusion=fusion,
    )


def _with_priors(mine: ClipCells, theirs: ClipCells) -> ClipCells:
    """A model's maps with the priors' maps, or the priors' failure, of another model's clip."""
    from avloc.engine import NOT_FINITE
    from avloc.engine.fusion import OWN, SHIPPED

    of_model = ("av", OWN, SHIPPED)
    if theirs.reason and theirs.reason not in map(NOT_FINITE.format, of_model):
        return replace(mine, reason=theirs.reason)
    priors = {name: cells for name, cells in theirs.maps.items() if name not in of_model}
    return replace(mine, maps={**mine.maps, **priors})


def _pair_name(pair: SilentPair) -> str:
    return f"{pair.video} with the sound of {pair.audio}"


def boxes_alone(store: Store | None, ids: Sequence[str]) -> list[ClipCells]:
    """Clips with their truths and no maps, from a store or from the boxes in the package."""
    from avloc.engine import ClipCells

    if store is not None:
        clips = (store.read(clip_id) for clip_id in ids)
        return [ClipCells(id=clip.id, boxes=clip.boxes, mask=clip.mask) for clip in clips]
    known = published_boxes().by_id
    return [ClipCells(id=clip_id, boxes=known[clip_id].boxes) for clip_id in ids]
