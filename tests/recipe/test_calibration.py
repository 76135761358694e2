"""Scores of right and wrong sounds: against loops over all pairs, and what the fitted numbers promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avloc.localize.verdict import VerdictRule
from tests.recipe.calibration import (
    BINS,
    LEVELS,
    WRONG_MATCH,
    Scores,
    calibration_error,
    fit_calibration,
    fit_rule,
    match_of,
    reliability,
    roc_auc,
    thresholds,
    verdict_levels,
    verdict_shares,
)

levels = st.integers(0, 20).map(lambda step: step / 20)
weighted = st.lists(st.tuples(levels | st.floats(0, 1), st.integers(1, 4).map(float)), min_size=1, max_size=12)


@st.composite
def scores(draw) -> Scores:
    (right, n), (wrong, m) = (map(np.array, zip(*draw(weighted), strict=True)) for _ in range(2))
    return Scores(right, wrong, n, m)


def pairs(found: Scores):
    for score, weight in zip(found.right, found.right_weights, strict=True):
        for other, other_weight in zip(found.wrong, found.wrong_weights, strict=True):
            yield score, other, weight * other_weight


@given(scores())
def test_auc_is_that_of_all_pairs(found):
    won = sum(weight * ((one > other) + (one == other) / 2) for one, other, weight in pairs(found))
    assert roc_auc(found) == pytest.approx(won / sum(weight for *_, weight in pairs(found)), abs=1e-4)


@given(scores())
def test_auc_of_whole_weights_is_that_of_repeated_scores(found):
    repeated = Scores.equal(
        np.repeat(found.right, found.right_weights.astype(int)), np.repeat(found.wrong, found.wrong_weights.astype(int))
    )
    assert roc_auc(found) == roc_auc(repeated)


def slow_error(found: Scores, wrong_weight: float) -> float:
    rows = [
        (score, 1, w / found.right_weights.sum()) for score, w in zip(found.right, found.right_weights, strict=True)
    ]
    total = found.wrong_weights.sum() / wrong_weight
    rows += [(score, 0, weight / total) for score, weight in zip(found.wrong, found.wrong_weights, strict=True)]
    whole, error = sum(weight for *_, weight in rows), 0.0
    for k in range(BINS):
        inside = [row for row in rows if k <= row[0] * BINS < k + 1 or (k == BINS - 1 and row[0] == 1)]
        if weight := sum(row[2] for row in inside):
            mean, share = (sum(row[2] * row[column] for row in inside) / weight for column in (0, 1))
            error += weight / whole * abs(mean - share)
    return error


@given(scores(), st.sampled_from([1.0, 2.0]))
def test_calibration_error_is_that_of_the_bins(found, wrong_weight):
    bins = reliability(found, wrong_weight)
    assert sum(one["weight"] for one in bins) == pytest.approx(1)
    assert calibration_error(bins) == pytest.approx(slow_error(found, wrong_weight), abs=1e-9)


def test_a_match_that_is_the_share_of_right_sounds_has_no_error():
    found = Scores.equal([0.25, 0.75, 0.75, 0.75], [0.25, 0.25, 0.25, 0.75])
    assert calibration_error(reliability(found)) == pytest.approx(0)
    assert calibration_error(reliability(found, wrong_weight=2)) == pytest.approx(0.125)
    assert calibration_error(reliability(Scores.equal([0.0], [1.0]))) == 1


@given(scores())
def test_thresholds_keep_their_shares(found):
    matches, no_match = thresholds(found)
    assert 0 <= no_match <= matches <= 1
    assert found.wrong_weights @ (found.wrong >= matches) <= WRONG_MATCH * found.wrong_weights.sum() or matches == 1
    assert found.right_weights @ (found.right < no_match) <= 0.1 * found.right_weights.sum() + 1e-9
    lower = matches - 0.001
    assert found.wrong_weights @ (found.wrong >= lower) > WRONG_MATCH * found.wrong_weights.sum()


def test_the_calibration_is_that_of_the_peaks():
    rng = np.random.default_rng(0)
    peaks = rng.uniform(-0.5, 1, 40_000)
    is_right = rng.random(len(peaks)) < 1 / (1 + np.exp(-(8 * peaks - 2)))
    right, wrong = peaks[is_right], peaks[~is_right]
    slope, offset = fit_calibration(Scores.equal(right, wrong))
    prior = np.log(len(wrong) / len(right))  # both have the same total weight
    assert (slope, offset) == (pytest.approx(8, rel=0.05), pytest.approx(-2 + prior, abs=0.1))
    again = Scores.equal(np.tile(right, 2), wrong)
    assert fit_calibration(again) == pytest.approx((slope, offset), abs=0.02)
    weighted = Scores(right, wrong, np.full(len(right), 0.5), np.full(len(wrong), 3.0))
    assert fit_calibration(weighted) == pytest.approx((slope, offset), abs=1e-6)


def test_heavier_pairs_count_as_repeated_ones():
    rng = np.random.default_rng(1)
    right, wrong = rng.normal(0.6, 0.2, 600), rng.normal(0.3, 0.2, 500)
    weights = rng.integers(1, 4, len(right)).astype(float)
    heavy = Scores(right, wrong, weights, np.ones(len(wrong)))
    repeated = Scores.equal(np.repeat(right, weights.astype(int)), wrong)
    assert fit_calibration(heavy) == pytest.approx(fit_calibration(repeated), rel=0.01)


@given(st.lists(st.floats(0.51, 1), min_size=1, max_size=9), st.lists(st.floats(-1, 0.49), min_size=1, max_size=9))
def test_separable_peaks_have_a_finite_calibration(right, wrong):
    slope, offset = fit_calibration(Scores.equal(right, wrong))
    rule = VerdictRule(slope=slope, offset=offset)
    assert min(map(rule.match, right)) > max(map(rule.match, wrong))


def test_the_rule_assumes_its_ratio_of_right_to_wrong_sounds():
    rng = np.random.default_rng(3)
    peaks = Scores.equal(rng.normal(0.6, 0.2, 300), rng.normal(0.3, 0.2, 400))
    rule, (slope, offset) = fit_rule(peaks), fit_calibration(peaks)
    assert rule.slope == pytest.approx(slope, abs=1e-3)
    middle = rule.match(-offset / slope)  # where equally many sounds would be right and wrong
    assert middle / (1 - middle) == pytest.approx(2**-0.5, rel=0.01)


def test_verdicts_and_matches_are_those_of_the_package():
    rng = np.random.default_rng(2)
    peaks = Scores.equal(rng.normal(0.6, 0.2, 300), rng.normal(0.3, 0.2, 400))
    rule = fit_rule(peaks)
    matches = peaks.mapped(lambda values: match_of(rule, values))
    assert matches.right == pytest.approx([rule.match(float(peak)) for peak in peaks.right])
    shares = verdict_shares(verdict_levels(rule, matches))
    for side, values in (("right", peaks.right), ("wrong", peaks.wrong)):
        given = [
            rule.judge(silent=False, sound_effect=1, sound_effect_noise=1, peak_similarity=float(peak)).verdict
            for peak in values
        ]
        assert shares[side] == {str(one): pytest.approx(given.count(one) / len(given), abs=1e-4) for one in LEVELS}
    assert shares["wrong"]["matches"] <= WRONG_MATCH
    assert shares["right"]["no_match"] <= 0.1
    assert math.isclose(sum(shares["right"].values()), 1, abs_tol=1e-3)
