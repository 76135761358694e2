"""Ground truth, cIoU and summaries against pixel loops and known truths."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avloc.metrics import AUC_THRESHOLDS, Truth, ground_truth, mask_truth, size_of, summarise
from avloc.metrics.localization import success_curve
from tests import reference_scoring as slow

masks = hnp.arrays(np.bool_, (6, 7))
truths = hnp.arrays(np.float32, (6, 7), elements=st.sampled_from([0.0, 0.5, 1.0]))
boxes = hnp.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(4)), elements=st.floats(-3e16, 3e16))
fractions = hnp.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(4)), elements=st.floats(0, 1))


def ciou(masks: np.ndarray, truths: np.ndarray) -> np.ndarray:
    return np.array([Truth(truth).ciou(mask) for mask, truth in zip(masks, truths, strict=True)])


@given(st.lists(st.tuples(masks, truths), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_ciou_equals_its_definition(pairs):
    scores = ciou(np.stack([mask for mask, _ in pairs]), np.stack([truth for _, truth in pairs]))
    for score, (mask, truth) in zip(scores, pairs, strict=True):
        assert score == pytest.approx(slow.ciou(mask, truth.tolist()), abs=1e-12)
        assert 0 <= score <= 1


@given(masks, truths)
@settings(max_examples=40, deadline=None)
def test_ciou_does_not_change_under_flips(mask, truth):
    plain = ciou(mask[None], truth[None])
    assert np.allclose(plain, ciou(mask[None, ::-1], truth[None, ::-1]))
    assert np.allclose(plain, ciou(mask[None, :, ::-1], truth[None, :, ::-1]))


def test_ciou_of_the_truth_itself_is_one_and_of_its_outside_zero():
    truth = ground_truth(np.array([[0.25, 0.25, 0.75, 1.0]]), "union", 224)
    assert ciou(np.stack([truth > 0, truth == 0]), np.stack([truth, truth])).tolist() == [1.0, 0.0]


def test_pixels_of_weak_consensus_cost_nothing_extra():
    truth = np.zeros((1, 4, 4), np.float32)
    truth[0, 0, :2], truth[0, 0, 2:] = 1, 0.5
    narrow, wide = truth == 1, truth > 0
    assert ciou(narrow, truth)[0] == pytest.approx(2 / 3)
    assert ciou(wide, truth)[0] == 1.0


def test_an_empty_truth_scores_zero():
    assert ciou(np.ones((1, 4, 4), bool), np.zeros((1, 4, 4), np.float32))[0] == 0
    assert ciou(np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), np.float32))[0] == 0


@given(truths)
@settings(max_examples=60, deadline=None)
def test_a_truth_counts_its_pixels(values):
    truth = Truth(values)
    inside = [place for place, value in enumerate(values.ravel()) if value]
    assert (truth.pixels, truth.area) == (len(inside), len(inside) / values.size)
    assert [place for place in range(values.size) if truth.holds(place)] == inside


@given(hnp.arrays(np.float32, (3, 3), elements=st.sampled_from([0.0, 0.5, 1.0])), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_no_mask_of_so_many_pixels_is_better_than_the_best(values, pixels):
    """Every mask there is, one after the other."""
    truth, best = Truth(values), 0.0
    for chosen in combinations(range(9), pixels):
        mask = np.zeros(9, bool)
        mask[list(chosen)] = True
        best = max(best, slow.ciou(mask.reshape(3, 3), values.tolist()))
    assert truth.best_ciou(pixels) == pytest.approx(best, abs=1e-12)


@given(boxes | fractions, st.sampled_from(["union", "consensus"]), st.sampled_from([1, 7, 32]))
@settings(max_examples=80, deadline=None)
def test_ground_truth_equals_its_definition(these, rule, side):
    truth = ground_truth(these, rule, side)
    assert truth.tolist() == slow.truth(these, slow.RULES["avloc"], rule, side)
    assert set(np.unique(truth)) <= ({0, 1} if rule == "union" else {0, 0.5, 1})


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.sampled_from([1, 7, 16, 21]))
@settings(max_examples=60, deadline=None)
def test_a_mask_is_seen_through_the_centres_of_the_pixels(mask, side):
    truth = mask_truth(mask, side)
    assert truth.dtype == np.float32
    assert truth.tolist() == slow.drawn_truth(mask.tolist(), side)


def test_consensus_needs_two_boxes():
    twice = np.array([[0, 0, 0.5, 1], [0.25, 0, 1, 1.0]])
    assert ground_truth(twice, "consensus", 4)[0].tolist() == [0.5, 1, 0.5, 0.5]
    assert ground_truth(twice, "union", 4)[0].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("corner", range(257))
def test_corners_truncate_like_the_published_integers(corner):
    """Fractions of a 256-pixel frame are exact, so nothing is lost by keeping boxes as fractions."""
    truth = ground_truth(np.array([[0, 0, corner / 256, 1]]), "union", 224)
    assert truth[0].sum() == int(224 * corner / 256)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
@settings(max_examples=60, deadline=None)
def test_summary_equals_brute_force(scores):
    result = summarise(scores)
    assert result.n == len(scores)
    assert result.ciou_50 == sum(score >= 0.5 for score in scores) / len(scores)
    assert result.mean_ciou == pytest.approx(sum(scores) / len(scores))
    shares = [sum(score >= 0.05 * step for score in scores) / len(scores) for step in range(21)]
    trapezoids = sum((shares[i] + shares[i + 1]) / 2 * (AUC_THRESHOLDS[i + 1] - AUC_THRESHOLDS[i]) for i in range(20))
    assert result.auc == pytest.approx(trapezoids)
    assert np.allclose(success_curve(np.array(scores)), shares)


def test_no_scores_are_not_a_score():
    result = summarise([])
    assert result.n == 0
    assert all(math.isnan(value) for value in (result.ciou_50, result.auc, result.mean_ciou))


def test_exactly_half_counts_only_with_at_least():
    assert [summarise([0.5, 0.6, 0.4], success).ciou_50 for success in (">=", ">")] == [2 / 3, 1 / 3]
    assert summarise([0.5, 0.6], ">").curve == summarise([0.5, 0.6]).curve


def test_sizes_change_at_their_squares():
    """A share of the picture times its pixels is often off by a rounding, and 32 by 32 pixels are not small."""
    for side, below, at in ((32, "small", "medium"), (96, "medium", "large"), (144, "large", "huge")):
        n = side * side
        assert [size_of(pixels / 224**2) for pixels in (n - 1, n, n + 1)] == [below, at, at]
    assert (size_of(0.0), size_of(1.0)) == ("small", "huge")
