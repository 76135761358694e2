"""`avloc eval`: a prepared test store and models become scores, each with its protocol and what is missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avloc import __version__
from avloc.annotations import canonical_id, published_list, testset_list
from avloc.config import Protocol
from avloc.errors import Refused, StoreNotFound, UsageError, WeightsAbsent
from avloc.events import Listener, Notice, silent
from avloc.metrics import Summary, summarise
from avloc.store import Store

if TYPE_CHECKING:
    from avloc.checkpoint import ModelFile
    from avloc.engine import ClipScore, Engine
    from avloc.priors import ObjectPrior

SCHEMA = "avloc.eval/1"
MAPS = ("av", "object", "fused")
PRIOR_MAPS = ("object", "fused")


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What to score, on what, and how."""

    testset: str = ""
    store: Path | None = None
    models: tuple[Path, ...] = ()
    """Empty: the model shipped with the package."""
    maps: tuple[str, ...] = ()
    """Empty: all three, the prior's only where its weights are there."""
    weights_dir: Path | None = None
    device: str = "auto"
    precision: str = "fp32"
    batch: int = 16
    workers: int = 2
    max_missing: int = 0

    def __post_init__(self) -> None:
        for name in self.maps:
            if name not in MAPS:
                raise UsageError(f"--maps {name} is unknown; valid: {', '.join(MAPS)}")
        for flag, value, least in (("--batch", self.batch, 1), ("--max-missing", self.max_missing, 0)):
            if value < least:
                raise UsageError(f"{flag} {value} is impossible; valid: {least} or more")
        Protocol(precision=self.precision)


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """One model on one test set."""

    testset: str
    model: str
    model_hash: str
    model_card: dict[str, Any]
    data_hash: str
    protocol: Protocol
    box_rule: str
    n_expected: int
    missing: dict[str, str]
    """Expected ids without a score, and why."""
    maps: dict[str, Summary]
    not_run: dict[str, str]
    """Maps that were left out, and why."""
    clips: list[dict[str, Any]] = field(repr=False)
    """Per-clip rows: id and cIoU of each map."""

    @property
    def n_scored(self) -> int:
        """Clips with a score."""
        return len(self.clips)

    def as_json(self) -> dict[str, Any]:
        """The report as plain data. The same command on the same files gives the same bytes."""
        data = asdict(self)
        return {"schema": SCHEMA, "version": __version__, "n_scored": self.n_scored, **data}


def find_store(testset: str, store: Path | None) -> Path:
    """`--store`, else `$AVLOC_DATA/<testset>`, else `./data/<testset>`.

    Raises:
        UsageError: neither a test set nor a store was named.
        StoreNotFound: none of the places holds a store; says what to prepare.
    """
    if store is not None:
        return store
    if not testset:
        raise UsageError("name what to score: --testset vggss, or --store DIR")
    roots = [Path(os.environ["AVLOC_DATA"])] if os.environ.get("AVLOC_DATA") else []
    places = [root / testset for root in [*roots, Path("data")]]
    for place in places:
        if (place / "store.json").is_file():
            return place
    known = testset_list(testset)
    ids = f" --ids {known}" if known else " --annotations BOXES.json"
    if testset == "flickr":  # VGG-SS boxes come with the package, Flickr-SoundNet's do not
        ids += " --annotations XML_FOLDER"
    hint = f"Prepare it from the material you have: avloc prepare MEDIA{ids} --out {places[0]}"
    raise StoreNotFound(f"no prepared test set {testset!r} in {' or '.join(map(str, places))}", hint=hint)


def evaluate(options: EvalOptions, listener: Listener = silent) -> list[EvalReport]:
    """Score every model on one test set.

    Args:
        options: what to score.
        listener: hears notices and progress.

    Returns:
        One report a model. Whether too many clips are missing is for the caller to judge.

    Raises:
        StoreNotFound: the test set was not prepared.
        Refused: the store has no boxes, does not fit a model, or none of its clips can be scored.
        WeightsError: a model or the prior's weights cannot be read, or a map was asked for by name whose weights are
            absent.
    """
    store = Store(find_store(options.testset, options.store))
    from avloc.checkpoint import default_model, load_model
    from avloc.engine import pick_device

    expected = _expected(options.testset, store)
    models = [load_model(path) for path in options.models or (default_model(),)]
    device = pick_device(options.device)
    prior, not_run = _prior(options, device, listener)
    return [_report(options, model, store, expected, prior, not_run, listener) for model in models]


def _expected(testset: str, store: Store) -> list[str]:
    known = testset_list(testset) if testset else ""
    if known:
        return [canonical_id(name) for name in published_list(known)]
    return list(store.header.expected) or store.ids


def _prior(options: EvalOptions, device: Any, listener: Listener) -> tuple[ObjectPrior | None, dict[str, str]]:
    from avloc.priors import ObjectPrior

    wanted = [name for name in options.maps or MAPS if name in PRIOR_MAPS]
    if not wanted:
        return None, {}
    try:
        return ObjectPrior(options.weights_dir, device, listener), {}
    except WeightsAbsent as error:
        if options.maps:
            raise
        listener(Notice(f"object prior not run: {error}"))
        return None, dict.fromkeys(wanted, "weights absent")


def _report(
    options: EvalOptions,
    model: ModelFile,
    store: Store,
    expected: Sequence[str],
    prior: ObjectPrior | None,
    not_run: dict[str, str],
    listener: Listener,
) -> EvalReport:
    from avloc.engine import Engine, pick_device

    engine = Engine.from_file(model, pick_device(options.device), options.precision)
    there = [clip_id for clip_id in expected if clip_id in store.shards]
    boxed = {clip_id for clip_id in there if len(store.read(clip_id).boxes)}
    if not boxed:
        hint = "Prepare it with --annotations, or with --ids naming a published test list."
        raise Refused(f"no clip to score in {store.folder}: none of {len(there)} clips has boxes", hint=hint)
    scores = _score(engine, store, sorted(boxed), prior, options, listener)
    kinds = [name for name in options.maps or MAPS if name not in not_run]
    reasons = dict.fromkeys([clip_id for clip_id in expected if clip_id not in store.shards], "not in the store")
    reasons |= dict.fromkeys([clip_id for clip_id in there if clip_id not in boxed], "no boxes")
    reasons |= {score.id: score.reason for score in scores if not score.ciou}
    clips: list[dict[str, Any]] = [
        {"id": s.id, "ciou": {kind: s.ciou[kind] for kind in kinds}} for s in scores if s.ciou
    ]
    if not clips:
        raise Refused(f"none of {len(scores)} clips could be scored; the first: {scores[0].id}: {scores[0].reason}")
    return EvalReport(
        testset=options.testset or store.folder.resolve().name,
        model=model.name,
        model_hash=model.sha256,
        model_card=model.card,
        data_hash=store.data_hash(),
        protocol=Protocol(precision=options.precision),
        box_rule=store.header.box_rule,
        n_expected=len(expected),
        missing=dict(sorted(reasons.items())),
        maps={kind: summarise([clip["ciou"][kind] for clip in clips]) for kind in kinds},
        not_run=not_run,
        clips=clips,
    )


def _score(
    engine: Engine,
    store: Store,
    ids: Sequence[str],
    prior: ObjectPrior | None,
    options: EvalOptions,
    listener: Listener,
) -> list[ClipScore]:
    from avloc.dataset import ClipSet, load
    from avloc.engine import score_clips
    from avloc.priors import SIDE

    clips = ClipSet(store, ids, engine.config, prior_side=SIDE if prior else 0)
    return score_clips(
        engine,
        load(clips, batch=options.batch, workers=options.workers),
        Protocol(precision=options.precision),
        box_rule=store.header.box_rule,
        prior=prior,
        total=len(ids),
        listener=listener,
    )
