"""Ground truth, cIoU and summaries against pixel loops and known truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avloc.metrics import AUC_THRESHOLDS, ciou, ground_truth, success_curve, summarise

masks = hnp.arrays(np.bool_, (6, 7))
truths = hnp.arrays(np.float32, (6, 7), elements=st.sampled_from([0.0, 0.5, 1.0]))
boxes = hnp.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(4)), elements=st.floats(-3e16, 3e16))


def ciou_twin(mask, truth) -> float:
    hit = whole = 0.0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            value = float(truth[y, x])
            hit += value if mask[y, x] else 0
            whole += value + (1 if mask[y, x] and value == 0 else 0)
    return hit / whole if whole else 0.0


@given(st.lists(st.tuples(masks, truths), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_ciou_equals_its_definition(pairs):
    scores = ciou(np.stack([mask for mask, _ in pairs]), np.stack([truth for _, truth in pairs]))
    for score, (mask, truth) in zip(scores, pairs, strict=True):
        assert score == pytest.approx(ciou_twin(mask, truth), abs=1e-12)
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


@given(boxes, st.sampled_from(["union", "consensus"]))
@settings(max_examples=80, deadline=None)
def test_ground_truth_survives_any_numbers(these, rule):
    truth = ground_truth(these, rule, 32)
    assert set(np.unique(truth)) <= ({0, 1} if rule == "union" else {0, 0.5, 1})


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
