"""`avloc eval`: a prepared test store and models become scores, each with its protocol and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from avloc.annotations import published_boxes, testset_list
from avloc.errors import Refused, StoreNotFound
from avloc.evaluate.gather import Gathered, Priors, boxes_alone, flags_of, gather, load_priors
from avloc.evaluate.plan import DEFAULT_MAPS, EvalOptions, expected_ids, find_store, pairs_of
from avloc.evaluate.records import EvalReport
from avloc.events import Listener, silent
from avloc.protocols import Protocol
from avloc.store import Store

if TYPE_CHECKING:
    from avloc.checkpoint import ModelFile
    from avloc.engine import ClipCells
    from avloc.evaluate.score import Clip, Scored


_RULES = {"flickr": "consensus", "vggss": "union"}
"""Beginning of a test list's name -> the rule of its boxes."""
_RULES_IN_WORDS = {"consensus": "two annotators must agree for a full 1", "union": "1 inside any box"}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that one command scored."""

    reports: list[EvalReport]
    """Model by model, each under every protocol."""
    store: Store | None
    cells: list[list[ClipCells]] = field(default_factory=list, repr=False)
    """The maps of each model's clips, for pictures of them."""


@dataclass(frozen=True, kw_only=True)
class _TestSet:
    """What is known of a test set before any model is run."""

    name: str
    store: Store | None
    boxed: list[str]
    """Clips with a truth, sorted."""
    expected: dict[str, list[str]]
    """Protocol -> the clips it wants."""
    labels: dict[str, str]
    flags: dict[str, tuple[str, ...]]
    box_rule: str

    @property
    def wanted(self) -> list[str]:
        """Clips that a protocol wants and that have a truth, sorted."""
        every = {clip_id for ids in self.expected.values() for clip_id in ids}
        return sorted(every.intersection(self.boxed))


def evaluate(options: EvalOptions, listener: Listener = silent) -> Evaluation:
    """Score every model on one test set under every protocol; each network runs once.

    Args:
        options: what to score.
        listener: hears notices and progress.

    Returns:
        One report a model and protocol. Whether too many clips are missing is for the caller to judge.

    Raises:
        StoreNotFound: the test set was not prepared.
        Refused: the store has no boxes, does not fit a model, or none of its clips can be scored.
        WeightsError: a model or the prior's weights cannot be read, or a map was asked for by name whose weights are
            absent.
    """
    testset = _open(options)
    if not testset.wanted:
        place = testset.store.folder if testset.store else testset.name
        n = len(testset.store or ())
        hint = "Prepare it with --annotations, or with --ids naming a published test list."
        raise Refused(f"no clip to score in {place}: none of {n} clips has boxes and is in the test set", hint=hint)
    if options.baselines_only:
        cells = boxes_alone(testset.store, testset.wanted)
        nothing = Gathered(cells=cells, silent=[], failures={})
        return Evaluation(reports=_reports(None, testset, nothing, Priors(), options), store=testset.store)
    from avloc.checkpoint import default_model, load_model
    from avloc.engine import pick_device

    assert testset.store is not None
    models = [load_model(path) for path in options.models or (default_model(),)]
    priors = load_priors(options, pick_device(options.device), listener)
    reports, cells_of = [], []
    maps: Gathered | None = None
    for number, model in enumerate(models):
        maps = gather(
            model,
            testset.store,
            testset.wanted,
            pairs_of(testset.name),
            {clip_id: testset.labels[clip_id] for clip_id in testset.boxed},
            priors,
            options,
            listener,
            known=maps,
        )
        if not maps.cells:
            first, reason = next(iter(maps.failures.items()))
            raise Refused(f"none of {len(testset.wanted)} clips could be scored; the first: {first}: {reason}")
        name = options.names[number] if options.names else model.name
        reports += [replace(report, model=name) for report in _reports(model, testset, maps, priors, options)]
        cells_of.append(maps.cells)
    return Evaluation(reports=reports, store=testset.store, cells=cells_of)


def _open(options: EvalOptions) -> _TestSet:
    try:
        store = Store(find_store(options.testset, options.store))
    except StoreNotFound:
        if not (options.baselines_only and options.testset.startswith("vggss") and options.store is None):
            raise
        return _from_package(options)
    _check_rule(options.testset, store)
    boxed = store.annotated()
    return _TestSet(
        name=options.testset or store.folder.resolve().name,
        store=store,
        boxed=boxed,
        expected={p.name: expected_ids(p, options.testset, store, boxed) for p in options.records()},
        labels=dict(zip(store.ids, store.column("label"), strict=True)),
        flags=flags_of(store),
        box_rule=store.header.box_rule,
    )


def _check_rule(testset: str, store: Store) -> None:
    rule = next((rule for name, rule in _RULES.items() if testset_list(testset).startswith(name)), None)
    if rule is not None and store.header.box_rule != rule:
        has, needs = store.header.box_rule, rule
        hint = "Prepare it with the annotations of the test set: Flickr-SoundNet's are a folder of XML files."
        reason = f"{store.folder} holds boxes of the rule {has!r}; {testset} is scored by {needs!r}"
        raise Refused(f"{reason} ({_RULES_IN_WORDS[needs]})", hint=hint)


def _from_package(options: EvalOptions) -> _TestSet:
    """VGG-SS's boxes are in the package: its baselines need no store."""
    known = published_boxes()
    boxed = sorted(known.by_id)
    return _TestSet(
        name=options.testset,
        store=None,
        boxed=boxed,
        expected={p.name: expected_ids(p, options.testset, None, boxed) for p in options.records()},
        labels={clip_id: annotation.label for clip_id, annotation in known.by_id.items()},
        flags={},
        box_rule=known.rule,
    )


def _reports(
    model: ModelFile | None, testset: _TestSet, maps: Gathered, priors: Priors, options: EvalOptions
) -> list[EvalReport]:
    from avloc.evaluate.score import Clip, score_protocols

    protocols = options.records()
    kinds = [] if model is None else _kinds(options, priors)
    out = []
    for protocols_alike in _alike(protocols, testset):
        wanted = set(testset.expected[protocols_alike[0].name])
        cells = [entry for entry in maps.cells if entry.id in wanted]
        clips = [
            Clip(cells=entry, label=testset.labels[entry.id], flags=testset.flags.get(entry.id, ())) for entry in cells
        ]
        sweep = "sweep" in options.maps and priors.object is not None
        scored = score_protocols(clips, protocols_alike, testset.box_rule, kinds, sweep=sweep)
        out += [
            _report(model, testset, maps, priors, protocol, result, clips)
            for protocol, result in zip(protocols_alike, scored, strict=True)
        ]
    order = [protocol.name for protocol in protocols]
    return sorted(out, key=lambda report: order.index(report.protocol.name))


def _alike(protocols: Sequence[Protocol], testset: _TestSet) -> list[list[Protocol]]:
    """Protocols that want the same clips; they share what is made of each clip."""
    groups: dict[tuple[str, ...], list[Protocol]] = {}
    for protocol in protocols:
        groups.setdefault(tuple(testset.expected[protocol.name]), []).append(protocol)
    return list(groups.values())


def _kinds(options: EvalOptions, priors: Priors) -> list[str]:
    asked = options.maps or DEFAULT_MAPS
    kinds = [name for name in DEFAULT_MAPS if name in asked and name not in priors.not_run]
    return [*kinds, *(("detr", "fused-detr") if "detr" in asked else ())]


def _report(
    model: ModelFile | None,
    testset: _TestSet,
    maps: Gathered,
    priors: Priors,
    protocol: Protocol,
    scored: Scored,
    clips: Sequence[Clip],
) -> EvalReport:
    expected = testset.expected[protocol.name]
    return EvalReport(
        testset=testset.name,
        model=model.name if model else "",
        model_hash=model.sha256 if model else "",
        model_card=model.card if model else {},
        data_hash=testset.store.data_hash() if testset.store else "",
        protocol=protocol,
        box_rule=testset.box_rule,
        n_expected=len(expected),
        missing=_missing(expected, testset, maps),
        maps=scored.maps,
        baselines=scored.baselines,
        sweep=scored.sweep,
        not_run=priors.not_run,
        no_query=sum("detr" not in clip.cells.maps for clip in clips) if priors.detr else 0,
        cost=_cost(model, testset, priors),
        priors=priors.names,
        clips=scored.rows,
        **_further(testset, maps, protocol, scored, clips),
    )


def _further(
    testset: _TestSet, maps: Gathered, protocol: Protocol, scored: Scored, clips: Sequence[Clip]
) -> dict[str, Any]:
    """Scores that only some test sets and options have."""
    from avloc.evaluate.extended import extended
    from avloc.evaluate.negatives import has_negatives, score_negatives
    from avloc.metrics import source_scores

    cells = [clip.cells for clip in clips]
    out: dict[str, Any] = {}
    if maps.silent:
        out["extended"] = extended(scored.rows, cells, maps.silent, protocol, list(scored.maps))
    if has_negatives(cells):
        out["negatives"] = score_negatives(cells, protocol, testset.box_rule)
    groups = testset.store.picture_groups() if testset.store else {}
    pictures = [groups.get(row.id, row.id) for row in scored.rows]
    if len(set(pictures)) < len(pictures):
        out["sources"] = {
            kind: source_scores(
                pictures,
                [row.scores[kind].ciou for row in scored.rows],
                [row.scores[kind].area_ciou for row in scored.rows],
            )
            for kind in scored.maps
        }
    return out


def _missing(expected: Sequence[str], testset: _TestSet, maps: Gathered) -> dict[str, str]:
    boxed = set(testset.boxed)
    reasons = {clip_id: "no boxes" for clip_id in expected if clip_id not in boxed}
    if testset.store is not None:
        reasons |= {clip_id: "not in the store" for clip_id in expected if clip_id not in testset.store.shards}
    wanted = set(expected)
    others = {name: reason for name, reason in maps.failures.items() if name in wanted or name not in boxed}
    return dict(sorted({**reasons, **others}.items()))


def _cost(model: ModelFile | None, testset: _TestSet, priors: Priors) -> list[dict[str, Any]]:
    """At the width of the spectrograms in use: a model without a rate of its own hears the store's."""
    from avloc.cost import cost_rows

    if model is None or testset.store is None:
        return []
    config = replace(model.config, rate=model.config.rate or testset.store.spec.rate)
    prior = {"prior": priors.object.trunk} if priors.object else {}
    return [asdict(row) for row in cost_rows(config, **prior)]
