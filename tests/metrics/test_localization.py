"""Ground truth and summaries against pixel loops and known truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avloc.metrics import AUC_THRESHOLDS, ground_truth, mask_truth, size_of, summarise
from avloc.metrics.localization import success_curve
from tests import reference_scoring as slow

boxes = hnp.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(4)), elements=st.floats(-3e16, 3e16))
fractions = hnp.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(4)), elements=st.floats(0, 1))


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
