"""A model and a store to maps of cells: everything that scoring needs, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from avloc.annotations import SilentPair, published_boxes
from avloc.errors import WeightsAbsent
from avloc.evaluate.plan import DEFAULT_MAPS, EvalOptions
from avloc.progress import Listener, Notice
from avloc.store import FLAGS, Store

if TYPE_CHECKING:
    from avloc.checkpoint import ModelFile
    from avloc.engine import ClipCells, Engine, WrongSounds
    from avloc.priors import DetrPrior, ObjectPrior

_NEEDS = {"object": ("object",), "fused": ("object",), "sweep": ("object",), "detr": ("detr",)}
"""Map as asked for -> priors that it needs. DETR beside the two others also takes the object prior, if it is there."""


@dataclass(frozen=True, kw_only=True)
class Priors:
    """The sound-blind networks that could be had."""

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
    silent: list[ClipCells]
    """Of the pairs of an extended set."""
    failures: dict[str, str]
    """Clip -> why it has no map."""
    every: tuple[list[ClipCells], list[ClipCells]] = ([], [])
    """Clips and pairs with those that failed, in the order of ids and pairs: the same for every model."""
    missing_pairs: dict[str, str]
    """Silent pair -> why it has none."""


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
        options: loader, device, precision, wrong sounds.
        listener: hears the progress.
        known: of another model on the same clips; its priors' maps are taken over and not computed again.
    """
    from avloc.engine import Engine, WrongSounds, pick_device
    from avloc.evaluate.negatives import wrong_sounds

    engine = Engine.from_file(model, pick_device(options.device), options.precision)
    wrong = wrong_sounds(engine, store, labels, options.negatives) if options.negatives else WrongSounds()
    runner = _Runner(engine, store, Priors() if known else priors, options, listener)
    cells = runner.run("scoring", sorted(ids), wrong=wrong)
    there = [pair for pair in pairs if pair.video in store.shards and pair.audio in store.shards]
    seen, heard = [pair.video for pair in there], [pair.audio for pair in there]
    silent = runner.run("silent pairs", seen, sound_ids=heard) if there else []
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
    )


@dataclass(frozen=True)
class _Runner:
    """A model and priors over parts of one store."""

    engine: Engine
    store: Store
    priors: Priors
    options: EvalOptions
    listener: Listener

    def run(
        self, task: str, ids: Sequence[str], *, sound_ids: Sequence[str] | None = None, wrong: WrongSounds | None = None
    ) -> list[ClipCells]:
        from avloc.dataset import ClipSet, load
        from avloc.engine import predict_cells

        prior, detr = self.priors.object, self.priors.detr
        clips = ClipSet(
            self.store,
            ids,
            self.engine.config,
            prior_side=prior.side if prior else 0,
            detr_side=detr.side if detr else 0,
            sound_ids=sound_ids,
        )
        batches = load(clips, batch=self.options.batch, workers=self.options.workers)
        return list(
            predict_cells(
                self.engine,
                batches,
                prior=prior,
                detr=detr,
                wrong=wrong,
                total=len(ids),
                task=task,
                listener=self.listener,
            )
        )


def _with_priors(mine: ClipCells, theirs: ClipCells) -> ClipCells:
    """A model's maps with the priors' maps that were computed beside another model, or with the priors' failure."""
    from avloc.engine import NOT_FINITE

    if theirs.reason and theirs.reason != NOT_FINITE.format("av"):
        return replace(mine, reason=theirs.reason)
    sound_blind = {name: cells for name, cells in theirs.maps.items() if name != "av"}
    return replace(mine, maps={**mine.maps, **sound_blind})


def _pair_name(pair: SilentPair) -> str:
    return f"{pair.video} with the sound of {pair.audio}"


def boxes_alone(store: Store | None, ids: Sequence[str]) -> list[ClipCells]:
    """Clips with their truths and nothing else, from a store or from the boxes in the package."""
    from avloc.engine import ClipCells

    if store is not None:
        clips = (store.read(clip_id) for clip_id in ids)
        return [ClipCells(id=clip.id, boxes=clip.boxes, mask=clip.mask) for clip in clips]
    known = published_boxes().by_id
    return [ClipCells(id=clip_id, boxes=known[clip_id].boxes) for clip_id in ids]


def flags_of(store: Store) -> dict[str, tuple[str, ...]]:
    """Clip id -> what `prepare` noticed about it."""
    rows = store.column("flags")
    return {
        clip_id: tuple(name for name, on in zip(FLAGS, row, strict=True) if on)
        for clip_id, row in zip(store.ids, rows, strict=True)
    }
