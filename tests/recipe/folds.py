"""Five-fold results on real clips: each is scored by a model that was fitted without its repository.

A picture with its own sound is a right pair, a picture with a sound of another clip of another kind a wrong one. Only
clips with their original sound take part, each with a weight of 1, which its moments share. Nothing is calibrated by
itself: calibration and thresholds of a fold are fitted on the peaks of the other folds, which are out of fold too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from avloc.checkpoint import MODEL_NAME, ModelFile, load_model, save_model
from avloc.engine import Cohort
from avloc.engine.fusion import RESIZE_KEY
from avloc.files import read_json_object
from avloc.localize.verdict import VerdictRule
from avloc.networks.concepts import DIM
from tests.recipe.calibration import (
    LEVELS,
    RIGHT_NO_MATCH,
    WRONG_MATCH,
    Numbers,
    Scores,
    calibration_error,
    fit_rule,
    match_of,
    reliability,
    roc_auc,
    verdict_levels,
    verdict_shares,
)
from tests.recipe.cohort import make_cohort
from tests.recipe.fit import FITTED, about_fit, fit, write_model
from tests.recipe.material import Material, load_material
from tests.recipe.measure import RESIZE, calibrated
from tests.recipe.projections import Projections
from tests.recipe.real import FOLDS, RealClip, RealClips, trained_on

MODELS, RESULTS = "folds", "folds.json"
AGGREGATES: dict[str, Callable[[Numbers], float]] = {
    "mean": lambda logits: float(_logistic(logits).mean()),
    "max": lambda logits: float(_logistic(logits).max()),
    "mean of logits": lambda logits: float(_logistic(logits.mean())),
}
"""From the logits of a clip's moments to its match; `avloc.clip_match` is the first."""
RULES = (
    f"matches: the least threshold that at most {WRONG_MATCH:.0%} of the wrong sounds of the other folds reach; "
    f"no_match: the largest below which are at most {RIGHT_NO_MATCH:.0%} of their right sounds"
)


@dataclass(frozen=True)
class Fold:
    """Scored moments of one fold."""

    clips: Sequence[RealClip]
    peaks: Numbers
    """[n, n] peak cosine of each picture with each sound."""
    cohort: Numbers
    """[n, n] cosine that the model's cohort reaches with each picture and each sound; 0 without a cohort."""

    @cached_property
    def above_cohort(self) -> Numbers:
        """[n, n] peaks above the cohort, from which the match follows."""
        return self.peaks - self.cohort

    @cached_property
    def weights(self) -> Numbers:
        """[n] share of each moment in its clip."""
        names = [clip.clip for clip in self.clips]
        return np.array([1 / names.count(name) for name in names])

    @cached_property
    def wrong(self) -> np.ndarray:
        """[n, n] whether picture and sound are a wrong pair."""
        clips, kinds = (np.array([getattr(clip, name) for clip in self.clips]) for name in ("clip", "kind"))
        return (clips[:, None] != clips) & (kinds[:, None] != kinds)

    def scores(self, kind: str | None = None) -> Scores:
        """`above_cohort` of all pairs, or of those whose picture is of a kind."""
        return self._pairs(self.above_cohort, kind)

    def peak_scores(self) -> Scores:
        """`peaks` of all pairs."""
        return self._pairs(self.peaks)

    def _pairs(self, values: Numbers, kind: str | None = None) -> Scores:
        chosen = np.array([kind in (None, clip.kind) for clip in self.clips])
        wrong = self.wrong & chosen[:, None]
        weights = self.weights
        return Scores(values.diagonal()[chosen], values[wrong], weights[chosen], np.outer(weights, weights)[wrong])

    def clip_scores(self, rule: VerdictRule, aggregate: Callable[[Numbers], float]) -> Scores:
        """Matches of whole clips: each moment of one with a moment of the other's sound, in turn."""
        logits = rule.slope * self.above_cohort + rule.offset
        moments: dict[str, list[int]] = {}
        for index, clip in enumerate(self.clips):
            moments.setdefault(clip.clip, []).append(index)
        right, wrong = [], []
        for pictures in moments.values():
            for sounds in moments.values():
                if pictures is sounds or self.wrong[pictures[0], sounds[0]]:
                    turns = [sounds[place % len(sounds)] for place in range(len(pictures))]
                    (right if pictures is sounds else wrong).append(aggregate(logits[pictures, turns]))
        return Scores.equal(right, wrong)


def fit_fold(material: Material, fold: int, seed: int) -> tuple[Projections, Cohort]:
    """A model that is fitted without the clips of a fold, and its cohort, which has none of them either."""
    clips = trained_on(material.real.clips, but_fold=fold)
    model = fit(material, clips, seed)
    return model, make_cohort(model, material, clips, seed)


def score_fold(real: RealClips, model: Projections, fold: int, cohort: Cohort | None = None) -> Fold:
    """The clips of a fold, scored by a model."""
    chosen = _scored(real, fold)
    pictures, sounds = real.cells[chosen], real.sounds[chosen]
    peaks = model.peaks(pictures, sounds).double().numpy()
    reached = np.zeros_like(peaks)
    if cohort is not None:
        of_pictures = cohort.of_pictures(model.cell_vectors(pictures)).double().numpy()
        of_sounds = cohort.of_sounds(model.sound_vectors(sounds)).double().numpy()
        reached = (of_pictures[:, None] + of_sounds) / 2
    return Fold([real.clips[index] for index in chosen], peaks, reached)


def _scored(real: RealClips, fold: int) -> list[int]:
    return [index for index, clip in enumerate(real.clips) if clip.fold == fold and clip.calibrates]


def score_fitted(data: Path, weights: Path, out: Path) -> dict[str, Any]:
    """Score the fitted model of `avloc-open`, which real clips have no part in, on every fold; as `five_folds`.

    The card's calibration is not from here: each fold is rated by a rule that is fitted on the others.
    """
    model = load_model(out / FITTED)
    real = load_material(data, weights, out, load_model(out / "run"), open_only=True).real
    projections = Projections(model.config.dim - DIM, real.sounds)
    projections.take(model.state)
    results = fold_results([score_fold(real, projections, fold) for fold in range(FOLDS)])
    return write_results({**results, "fit": model.card["fit"]}, out)


def five_folds(data: Path, weights: Path, out: Path, *, seed: int) -> dict[str, Any]:
    """Fit and score every fold; the results, also in OUT/folds.json. Stopped, it goes on where it was.

    The models stay in OUT/folds, each with a card that is calibrated on the other folds. `fit` in the results is what
    they depend on.

    Args:
        data: folder with `classes/`, `everyday/` and `real/`.
        weights: folder with the face detector's files.
        out: the folder of `tests.recipe.train.train`.
        seed: of the fits.
    """
    run = load_model(out / "run")
    material = load_material(data, weights, out, run, open_only=False)
    folds = [_made_fold(material, run, out, fold, seed) for fold in range(FOLDS)]
    for fold in range(FOLDS):
        made = load_model(fold_model(out, fold))
        card = _calibrated([other for other in folds if other is not folds[fold]])
        save_model(made.path, made.config, made.state, {**made.card, RESIZE_KEY: RESIZE, **card}, made.cohort)
    return write_results({**fold_results(folds), "fit": about_fit(run, seed, open_only=False)}, out)


def fold_model(out: Path, fold: int) -> Path:
    """The model of a fold that `five_folds` leaves."""
    return out / MODELS / str(fold) / MODEL_NAME


def _made_fold(material: Material, run: ModelFile, out: Path, fold: int, seed: int) -> Fold:
    """A fold from OUT/folds; fitted and scored first if it is not there."""
    path, real = fold_model(out, fold), material.real
    chosen = [real.clips[index] for index in _scored(real, fold)]
    about = {**about_fit(run, seed, open_only=False), "fold": [clip.id for clip in chosen]}
    record = path.with_name("peaks.npy")
    if path.is_file() and load_model(path).card["fit"] == about:
        return Fold(chosen, *np.load(record))
    model, cohort = fit_fold(material, fold, seed)
    scored = score_fold(real, model, fold, cohort)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(record, np.stack([scored.peaks, scored.cohort]))
    write_model(run, model, path, {"fit": about}, cohort)
    return scored


def fold_results(folds: Sequence[Fold]) -> dict[str, Any]:
    """All numbers of the folds; `card` has `calibrated` entries for the model that is fitted on all clips."""
    scores = [fold.scores() for fold in folds]
    rules = [fit_rule(Scores.joined(scores[:place] + scores[place + 1 :])) for place in range(len(folds))]
    matches = [one.mapped(partial(match_of, rule)) for one, rule in zip(scores, rules, strict=True)]
    kinds = sorted({clip.kind for fold in folds for clip in fold.clips})
    return {
        "rules": RULES,
        "clips": len({clip.clip for fold in folds for clip in fold.clips}),
        "moments": sum(len(fold.clips) for fold in folds),
        "auc": roc_auc(Scores.joined(scores)),
        "auc_by_fold": [roc_auc(one) for one in scores],
        "peak_auc": roc_auc(Scores.joined(fold.peak_scores() for fold in folds)),
        "auc_by_kind": {kind: _auc_of_kind(folds, kind) for kind in kinds},
        **_match_results(rules, matches),
        "reliability": [
            {name: round(value, 4) for name, value in one.items()} for one in reliability(Scores.joined(matches))
        ],
        "clip_match": {
            name: _match_results(rules, [fold.clip_scores(rule, how) for fold, rule in zip(folds, rules, strict=True)])
            for name, how in AGGREGATES.items()
        },
        "card": _calibrated(folds),
    }


def _calibrated(folds: Sequence[Fold]) -> dict[str, Any]:
    scores, peaks = ([score(fold) for fold in folds] for score in (Fold.scores, Fold.peak_scores))
    return calibrated(Scores.joined(peaks), Scores.joined(scores))


def _auc_of_kind(folds: Sequence[Fold], kind: str) -> float:
    return roc_auc(Scores.joined(fold.scores(kind) for fold in folds))


def _match_results(rules: Sequence[VerdictRule], matches: Sequence[Scores]) -> dict[str, Any]:
    """Of the matches of each fold by its own rule."""
    pooled = Scores.joined(matches)
    levels = Scores.joined(verdict_levels(rule, one) for rule, one in zip(rules, matches, strict=True))
    return {
        "match_auc": roc_auc(pooled),
        "ece": round(calibration_error(reliability(pooled)), 4),
        "ece_wrong_twice": round(calibration_error(reliability(pooled, wrong_weight=2)), 4),
        "verdicts": verdict_shares(levels),
    }


def write_results(results: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write OUT/folds.json; the results."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULTS).write_text(json.dumps(results, indent=1), encoding="utf-8")
    return results


def read_results(out: Path) -> dict[str, Any]:
    """What `five_folds` wrote to OUT/folds.json."""
    return read_json_object(out / RESULTS)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown, in percent but for AUC and calibration."""
    head = f"{results['clips']} clips, {results['moments']} moments; AUC {results['auc']:.3f}"
    head += f", of the peak cosine alone {results['peak_auc']:.3f}"
    by_fold = ", ".join(f"{auc:.3f}" for auc in results["auc_by_fold"])
    kinds = [f"| {kind} | {auc:.2f} |" for kind, auc in results["auc_by_kind"].items()]
    rows = [_match_row(name, row) for name, row in {"one moment": results, **results["clip_match"]}.items()]
    bins = [
        f"| {one['match']:.2f} | {one['right']:.2f} | {100 * one['weight']:.1f} |" for one in results["reliability"]
    ]
    return "\n".join(
        [
            f"{head}; by fold {by_fold}.",
            "",
            "| kind | AUC |",
            "|---|--:|",
            *kinds,
            "",
            "| match | AUC | calibration error | same, wrong sounds twice as likely "
            "| right: matches / unsure / no match | wrong: matches / unsure / no match |",
            "|---|--:|--:|--:|--:|--:|",
            *rows,
            "",
            "| mean match | share right | weight |",
            "|--:|--:|--:|",
            *bins,
            "",
        ]
    )


def _match_row(name: str, row: dict[str, Any]) -> str:
    errors = f"{row['match_auc']:.3f} | {row['ece']:.3f} | {row['ece_wrong_twice']:.3f}"
    shares = [
        " / ".join(f"{100 * row['verdicts'][side][verdict]:.0f}" for verdict in reversed(LEVELS))
        for side in ("right", "wrong")
    ]
    return f"| {name} | {errors} | {' | '.join(shares)} |"


def _logistic(logits: Numbers) -> Numbers:
    return 1 / (1 + np.exp(-logits))
