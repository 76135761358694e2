"""Five-fold results: which pairs count, how much, and that no score is calibrated by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avloc.checkpoint import load_model
from avloc.engine import Cohort, card_fusion
from avloc.localize.verdict import VerdictRule, clip_match
from tests.recipe import folds as module
from tests.recipe.calibration import WRONG_MATCH, Scores
from tests.recipe.features import AUDIO_WIDTH
from tests.recipe.fit import fit, write_model
from tests.recipe.fit_makers import SMALL, make_material, write_run
from tests.recipe.folds import (
    AGGREGATES,
    Fold,
    fit_fold,
    five_folds,
    fold_model,
    fold_results,
    score_fitted,
    score_fold,
    table,
    write_results,
)
from tests.recipe.measure import RESIZE, calibrated
from tests.recipe.projections import Projections
from tests.recipe.real import RealClip

KINDS = ("speech", "animal", "vehicle")


def clips(fold: int, count: int = 12, moments: int = 2) -> list[RealClip]:
    return [
        RealClip(f"{fold}-{c}-{m}", f"{fold}-{c}", "", KINDS[c % 3], f"owner/{fold}", "original", fold)
        for c in range(count)
        for m in range(1 + c % moments)
    ]


def made(fold: int, rng: np.random.Generator, gap: float = 0.25) -> Fold:
    found = clips(fold)
    right = np.array([[one.clip == other.clip for other in found] for one in found])
    cohort = rng.normal(0.1, 0.2, right.shape)
    return Fold(found, cohort + rng.normal(0.2, 0.15, right.shape) + gap * right, cohort)


@pytest.fixture
def five() -> list[Fold]:
    rng = np.random.default_rng(0)
    return [made(fold, rng) for fold in range(5)]


def test_pairs_and_their_weights():
    fold = made(0, np.random.default_rng(1))
    found = fold.scores()
    rows = range(len(fold.clips))
    wrong = [
        (fold.peaks[i, j] - fold.cohort[i, j], fold.weights[i] * fold.weights[j])
        for i in rows
        for j in rows
        if fold.clips[i].clip != fold.clips[j].clip and fold.clips[i].kind != fold.clips[j].kind
    ]
    assert found.right.tolist() == [fold.peaks[i, i] - fold.cohort[i, i] for i in rows]
    assert fold.peak_scores().right.tolist() == [fold.peaks[i, i] for i in rows]
    assert found.right_weights.sum() == pytest.approx(12)
    assert np.stack([found.wrong, found.wrong_weights], 1) == pytest.approx(np.array(wrong))
    speech = fold.scores("speech")
    assert speech.right_weights.sum() == pytest.approx(4)
    assert speech.wrong_weights.sum() == pytest.approx(4 * 8)
    parts = [fold.scores(kind) for kind in KINDS]
    assert sum(len(part.wrong) for part in parts) == len(found.wrong)


def test_moments_of_a_clip_meet_those_of_another_in_turn():
    rule = VerdictRule(slope=4.0, offset=-1.0)
    fold = made(0, np.random.default_rng(2))
    found = fold.clip_scores(rule, AGGREGATES["mean"])
    assert (len(found.right), len(found.wrong)) == (12, 12 * 8)
    assert found.right[1] == pytest.approx(
        clip_match([rule.match(fold.peaks[k, k], fold.cohort[k, k]) for k in (1, 2)])
    )
    assert fold.clips[2].clip == "0-1"  # of a clip of two moments with one of a single moment
    sound_of_first = [rule.match(fold.peaks[k, 0], fold.cohort[k, 0]) for k in (1, 2)]
    assert clip_match(sound_of_first) in [pytest.approx(value) for value in found.wrong]
    highest = fold.clip_scores(rule, AGGREGATES["max"])
    middle = fold.clip_scores(rule, AGGREGATES["mean of logits"])
    assert (highest.wrong >= found.wrong - 1e-12).all()
    assert (highest.wrong >= middle.wrong - 1e-12).all()


def test_no_score_is_calibrated_by_its_own_fold(five, monkeypatch):
    seen = []
    fit_rule = module.fit_rule
    monkeypatch.setattr(module, "fit_rule", lambda peaks: seen.append(peaks) or fit_rule(peaks))
    monkeypatch.setattr(module, "calibrated", lambda *pair: seen.append(pair[1]) or calibrated(*pair))
    results = fold_results(five)
    own = [set(fold.above_cohort.diagonal()) for fold in five]
    *nested, final = (set(peaks.right) for peaks in seen)
    assert nested == [set.union(*own[:k], *own[k + 1 :]) for k in range(5)]
    assert final == set.union(*own)
    rule = VerdictRule(**results["card"]["verdict"])
    assert rule.match(0.9) > rule.matches


def test_results_follow_the_separation(five):
    results = fold_results(five)
    rng = np.random.default_rng(3)
    poor = fold_results([made(fold, rng, gap=0.05) for fold in range(5)])
    assert results["auc"] > 0.8 > results["peak_auc"]
    assert poor["auc"] < 0.7
    assert results["verdicts"]["wrong"]["matches"] < WRONG_MATCH + 0.02
    assert results["verdicts"]["right"]["matches"] > poor["verdicts"]["right"]["matches"]
    assert results["ece"] < 0.1
    assert (results["clips"], results["moments"]) == (60, 90)
    assert set(results["auc_by_kind"]) == set(KINDS)
    assert results["clip_match"]["mean"]["match_auc"] >= results["auc"] - 0.02


def test_a_fold_with_another_scale_is_rated_by_the_rule_of_the_others(five):
    shifted = [replace(five[0], peaks=five[0].peaks + 5), *five[1:]]
    assert fold_results(shifted)["verdicts"]["wrong"]["matches"] > 0.15  # all of the first fold
    assert fold_results(five)["verdicts"]["wrong"]["matches"] < WRONG_MATCH + 0.02


def test_results_are_written_and_shown(five, tmp_path):
    results = fold_results(five)
    assert write_results(results, tmp_path / "out") is results
    assert json.loads((tmp_path / "out" / "folds.json").read_text()) == results
    shown = table(results)
    assert f"{results['auc']:.3f}" in shown
    assert "| mean of logits |" in shown
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(rows) == 3 * 2 + 3 + 4 + len(results["reliability"])


class Model:
    """Cosines are inner products."""

    def __init__(self, indices):
        self.indices = set(indices)

    def peaks(self, pictures, given):
        return torch.einsum("ncd,md->nmc", pictures, given).amax(2)

    def cell_vectors(self, pictures):
        return pictures

    def sound_vectors(self, given):
        return given


@pytest.fixture
def material():
    rng = np.random.default_rng(4)
    found = [clip for fold in range(5) for clip in clips(fold, count=6)]
    found[1], found[2] = replace(found[1], sound="unknown"), replace(found[2], sound="generated")
    shapes = (len(found), 4, 6), (len(found), 6)
    cells, sounds = (torch.from_numpy(rng.standard_normal(shape)).float() for shape in shapes)
    cells[:, 0] += sounds
    return SimpleNamespace(real=SimpleNamespace(clips=found, cells=cells, sounds=sounds))


def first_three(model, material, clips, seed):
    """A cohort of the first clips that it may have."""
    real, chosen = material.real, list(clips[:3])
    return Cohort(F.normalize(real.sounds[chosen], dim=-1), F.normalize(real.cells[chosen], dim=-1))


def test_models_are_fitted_without_the_clips_that_they_score(material, monkeypatch):
    monkeypatch.setattr(module, "fit", lambda material, indices, seed: Model(indices))
    given = []
    monkeypatch.setattr(module, "make_cohort", lambda *how: given.append(list(how[2])) or first_three(*how))
    real = material.real
    for number in range(5):
        model, cohort = fit_fold(material, number, 0)
        trained = {i for i, clip in enumerate(real.clips) if clip.fold != number and clip.sound != "generated"}
        assert model.indices == trained
        fold = score_fold(real, model, number, cohort)
        assert given[number] == sorted(trained)
        assert {(clip.fold, clip.sound) for clip in fold.clips} == {(number, "original")}
        place = real.clips.index(fold.clips[1])
        cells, sound = real.cells[place], real.sounds[place]
        assert fold.peaks[1, 1] == pytest.approx(float((cells @ sound).max()), rel=1e-5)
        assert fold.cohort[1, 1] == pytest.approx(cohort.similarity(cells.T[:, None], sound), rel=1e-5)


class Fitted(Projections):
    """A model that can be written, with what `Model` gives as cosines."""

    def __init__(self):
        super().__init__(0, torch.randn(3, AUDIO_WIDTH, generator=torch.Generator().manual_seed(0)))
        self.requires_grad_(requires_grad=False)

    cell_vectors, sound_vectors = Model.cell_vectors, Model.sound_vectors

    def peaks(self, pictures, given):
        return Model([]).peaks(pictures, given).div(10).tanh()


def test_a_model_that_real_clips_have_no_part_in_is_scored_on_every_fold(tmp_path, monkeypatch):
    material = make_material(clips=30)
    moments = [replace(moment, kind=KINDS[int(moment.clip) // 5 % 3]) for moment in material.real.clips]
    material = replace(material, real=replace(material.real, clips=moments))
    run = load_model(write_run(tmp_path / "run"))
    settings = replace(SMALL, steps=60, batch=24, learning_rate=0.003, dropout=0.3)
    projections = fit(material, range(len(moments)), 0, settings)
    write_model(run, projections, tmp_path / "fit" / "model.safetensors", {"fit": 1})
    monkeypatch.setattr(module, "load_material", lambda *where, open_only: material if open_only else None)
    found = score_fitted(tmp_path, tmp_path, tmp_path)
    expected = fold_results([score_fold(material.real, projections, fold) for fold in range(5)])
    assert found["auc_by_fold"] == pytest.approx(expected["auc_by_fold"], abs=0.01)
    assert found["card"]["verdict"]["slope"] == pytest.approx(expected["card"]["verdict"]["slope"], rel=0.01)
    assert json.loads((tmp_path / "folds.json").read_text()) == found


def test_a_stopped_run_goes_on(material, tmp_path, monkeypatch):
    write_run(tmp_path / "run")
    fitted = []
    monkeypatch.setattr(module, "fit", lambda material, indices, seed: fitted.append(seed) or Fitted())
    monkeypatch.setattr(module, "make_cohort", first_three)
    monkeypatch.setattr(module, "load_material", lambda *where, **how: material)
    first = five_folds(tmp_path, tmp_path, tmp_path, seed=7)
    fold_model(tmp_path, 3).unlink()
    assert five_folds(tmp_path, tmp_path, tmp_path, seed=7) == first
    assert fitted == [7] * 6
    assert json.loads((tmp_path / "folds.json").read_text()) == first
    cards = [load_model(fold_model(tmp_path, fold)).card for fold in range(5)]
    cohorts = [Cohort(**load_model(fold_model(tmp_path, fold)).cohort) for fold in range(5)]
    folds = [score_fold(material.real, Fitted(), fold, cohort) for fold, cohort in enumerate(cohorts)]
    for fold, card in enumerate(cards):  # calibrated on the others
        others = [other for other in folds if other is not folds[fold]]
        peaks, above_cohort = ([score(other) for other in others] for score in (Fold.peak_scores, Fold.scores))
        expected = calibrated(Scores.joined(peaks), Scores.joined(above_cohort))
        assert VerdictRule.from_card(card) == VerdictRule(**expected["verdict"])
        assert {**first["fit"], "fold": card["fit"]["fold"]} == card["fit"]
    assert all(card_fusion(card).resize == RESIZE for card in cards)
    five_folds(tmp_path, tmp_path, tmp_path, seed=8)
    assert fitted[6:] == [8] * 5
