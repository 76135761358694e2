"""`avloc eval`: score models on a prepared test store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from avloc.errors import Refused
from avloc.evaluate.external_maps import EXTERNAL, NEEDS_MODEL
from avloc.evaluate.maps import ModelMaps, Priors, load_priors, maps_without_model, predict_maps
from avloc.evaluate.options import DEFAULT_MAPS, EvalOptions
from avloc.evaluate.records import EvalReport
from avloc.evaluate.testset import TestSet, open_testset, pairs_of
from avloc.progress import Listener, silent
from avloc.protocols import Protocol
from avloc.store import Store

if TYPE_CHECKING:
    from avloc.checkpoint import ModelFile
    from avloc.engine import ClipCells
    from avloc.evaluate.protocol_scores import LabelledCells, Scored


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of one command."""

    reports: list[EvalReport]
    """Every protocol of the first model, then of the second, and so on."""
    store: Store | None
    cells: list[list[ClipCells]] = field(default_factory=list, repr=False)
    """Maps of each model's clips, for the pictures of a report."""


def evaluate(options: EvalOptions, listener: Listener = silent) -> Evaluation:
    """Score every model on one test set under every protocol; each network runs once.

    There is a report of every model and protocol, even if no clip could be scored. The caller decides whether too many
    clips are missing.

    Raises:
        StoreNotFound: the test set is not prepared.
        Refused: the store has no boxes or does not fit a model.
        WeightsError: a model or the prior's weights cannot be read, or the weights of a requested map are absent.
    """
    models: list[ModelFile] = []
    if not options.without_model:
        from avloc.checkpoint import default_model, load_model

        models = [load_model(path) for path in options.models or (default_model(),)]
    options = options.with_protocols_of([model.config.method for model in models])
    testset = open_testset(options, listener)
    if not testset.wanted:
        place = testset.store.folder if testset.store else testset.name
        n = len(testset.store or ())
        hint = "Prepare it with --annotations, or with --ids naming a published test list."
        raise Refused(f"no clip to score in {place}: none of {n} clips has boxes and is in the test set", hint=hint)
    if options.without_model:
        return _without_model(testset, options, listener)
    priors = load_priors(options, listener)
    reports, cells_of = [], []
    maps: ModelMaps | None = None
    for number, model in enumerate(models):
        maps = predict_maps(model, testset, priors, options, listener, known=maps)
        name = options.names[number] if options.names else model.name
        reports += [replace(report, model=name) for report in _reports(model, testset, maps, priors, options)]
        cells_of.append(maps.cells)
    return Evaluation(reports=reports, store=testset.store, cells=cells_of)


def _without_model(testset: TestSet, options: EvalOptions, listener: Listener) -> Evaluation:
    maps, digest = maps_without_model(testset, options, listener)
    if options.maps_dir is None:
        return Evaluation(reports=_reports(None, testset, maps, Priors(), options), store=testset.store)
    sounds = ["sound ignored", *(["silent pairs"] if pairs_of(testset.known) else [])]
    reports = _reports(None, testset, maps, Priors(not_run=dict.fromkeys(sounds, NEEDS_MODEL)), options)
    name = options.maps_dir.resolve().name
    reports = [replace(report, model=name, model_hash=digest) for report in reports]
    return Evaluation(reports=reports, store=testset.store, cells=[maps.cells])


def _reports(
    model: ModelFile | None, testset: TestSet, maps: ModelMaps, priors: Priors, options: EvalOptions
) -> list[EvalReport]:
    from avloc.engine import pick_device
    from avloc.evaluate.protocol_scores import LabelledCells, score_protocols

    protocols = testset.protocols
    kinds = _kinds(options, priors, shipped=maps.fusion is not None)
    sweep = "sweep" in options.maps and priors.object is not None
    same_clips: dict[tuple[str, ...], list[Protocol]] = {}  # each group shares the heat maps of its clips
    for protocol in protocols:
        same_clips.setdefault(tuple(testset.expected[protocol.name]), []).append(protocol)
    out = []
    for ids, group in same_clips.items():
        wanted = set(ids)
        clips = [
            LabelledCells(cells=entry, label=testset.labels[entry.id], flags=testset.flags.get(entry.id, ()))
            for entry in maps.cells
            if entry.id in wanted
        ]
        device = pick_device(options.device)
        scored = score_protocols(clips, group, testset.box_rule, kinds, sweep=sweep, device=device)
        out += [
            _report(model, testset, maps, priors, protocol, result, clips)
            for protocol, result in zip(group, scored, strict=True)
        ]
    order = [protocol.name for protocol in protocols]
    return sorted(out, key=lambda report: order.index(report.protocol.name))


def _kinds(options: EvalOptions, priors: Priors, *, shipped: bool) -> list[str]:
    if options.without_model:
        return [EXTERNAL] if options.maps_dir else []
    requested = options.maps or DEFAULT_MAPS
    first = ["shipped"] if shipped else []
    kinds = [name for name in DEFAULT_MAPS if name in requested and name not in priors.not_run]
    with_detr = [name for name in ("detr", "fused-detr") if name not in priors.not_run]
    return [*first, *kinds, *(with_detr if "detr" in requested else ())]


def _report(
    model: ModelFile | None,
    testset: TestSet,
    maps: ModelMaps,
    priors: Priors,
    protocol: Protocol,
    scored: Scored,
    clips: Sequence[LabelledCells],
) -> EvalReport:
    expected = testset.expected[protocol.name]
    return EvalReport(
        testset=testset.name,
        model=model.name if model else "",
        model_hash=model.sha256 if model else "",
        model_card=model.card if model else {},
        data_hash=testset.data_hash,
        protocol=protocol,
        box_rule=testset.box_rule,
        n_expected=len(expected),
        missing=_missing(expected, testset, maps),
        missing_pairs=maps.missing_pairs,
        empty_truths=[row.id for row in scored.rows if not row.area],
        maps=scored.maps,
        shipped={"resize": maps.fusion.resize, "fusion": maps.fusion.label} if maps.fusion else {},
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
    testset: TestSet, maps: ModelMaps, protocol: Protocol, scored: Scored, clips: Sequence[LabelledCells]
) -> dict[str, Any]:
    """Scores of extended sets, wrong sounds and pictures with several sources."""
    from avloc.evaluate.negatives import has_negatives, score_extended, score_negatives
    from avloc.metrics import source_scores

    cells = [clip.cells for clip in clips]
    out: dict[str, Any] = {}
    if maps.silent and scored.rows:
        out["extended"] = score_extended(scored.rows, cells, maps.silent, protocol, list(scored.maps))
    if has_negatives(cells):
        out["negatives"] = score_negatives(cells, protocol, testset.box_rule)
    pictures = [testset.pictures.get(row.id, row.id) for row in scored.rows]
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


def _missing(expected: Sequence[str], testset: TestSet, maps: ModelMaps) -> dict[str, str]:
    boxed = set(testset.boxed)
    reasons = {clip_id: "no boxes" for clip_id in expected if clip_id not in boxed}
    if testset.store is not None:
        reasons |= {clip_id: "not in the store" for clip_id in expected if clip_id not in testset.store.shards}
    wanted = set(expected)
    others = {name: reason for name, reason in maps.failures.items() if name in wanted}
    return dict(sorted({**reasons, **others}.items()))


def _cost(model: ModelFile | None, testset: TestSet, priors: Priors) -> list[dict[str, Any]]:
    """Cost of the model, at the store's sample rate if it has none of its own."""
    from avloc.cost import cost_rows

    if model is None or testset.store is None:
        return []
    config = replace(model.config, rate=model.config.rate or testset.store.spec.rate)
    prior = {"prior": priors.object.backbone} if priors.object else {}
    return [asdict(row) for row in cost_rows(config, **prior)]
