"""Masks against drawn truths: intersection over union and the F-score against pixel loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avloc.metrics.segments import F_THRESHOLDS, f_curves, intersection_over_union, max_f

NAN = float("nan")
shapes = st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(1, 4))
mask_pairs = shapes.flatmap(lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape)))
# Values on a threshold, and right below one, are where a comparison goes wrong.
on_the_edge = [
    0.0,
    1.0,
    NAN,
    float(F_THRESHOLDS[1]),
    math.nextafter(float(F_THRESHOLDS[127]), 0),
    float(F_THRESHOLDS[-1]),
]
heats = st.one_of(st.sampled_from(on_the_edge), st.floats(0, 1))
pictures = shapes.flatmap(
    lambda shape: st.tuples(hnp.arrays(np.float64, shape, elements=heats), hnp.arrays(np.bool_, shape))
)


def iou_reference(mask, truth) -> float:
    both = either = 0
    for marked, drawn in zip(mask.ravel(), truth.ravel(), strict=True):
        both += marked and drawn
        either += marked or drawn
    return both / either if either else 1.0


def f_reference(heat, truth, bar) -> float:
    hit = marked = drawn = 0
    for value, inside in zip(heat.ravel(), truth.ravel(), strict=True):
        drawn += inside
        marked += value >= bar
        hit += inside and value >= bar
    if not hit:
        return 0.0
    precision, recall = hit / marked, hit / drawn
    return 1.3 * precision * recall / (0.3 * precision + recall)


@given(mask_pairs)
@settings(max_examples=150, deadline=None)
def test_intersection_over_union_equals_counting(pair):
    masks, truths = pair
    result = intersection_over_union(masks, truths)
    assert result.dtype == np.float64
    assert result.tolist() == [iou_reference(mask, truth) for mask, truth in zip(masks, truths, strict=True)]


def test_empty_masks():
    nothing, everything, pixel = np.zeros((1, 3, 3), bool), np.ones((1, 3, 3), bool), np.zeros((1, 3, 3), bool)
    pixel[0, 1, 1] = True
    assert intersection_over_union(nothing, nothing) == 1
    assert intersection_over_union(pixel, nothing) == 0
    assert intersection_over_union(nothing, pixel) == 0
    assert intersection_over_union(pixel, everything) == pytest.approx(1 / 9)


def test_the_thresholds_are_the_published_ones():
    assert len(F_THRESHOLDS) == 255
    assert F_THRESHOLDS[0] == 0
    assert F_THRESHOLDS[-1] == 1 - 1e-10
    assert F_THRESHOLDS[127] == pytest.approx(0.5, abs=1e-9)


@given(pictures)
@settings(max_examples=100, deadline=None)
def test_the_f_curve_equals_its_definition_at_every_threshold(these):
    result = f_curves(*these)
    assert result.shape == (len(these[0]), 255)
    for curve, heat, truth in zip(result, *these, strict=True):
        expected = [f_reference(heat, truth, bar) for bar in F_THRESHOLDS] if truth.any() else [NAN] * 255
        assert curve.tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(pictures)
@settings(max_examples=50, deadline=None)
def test_single_precision_is_compared_in_double(these):
    heat, truth = these[0].astype(np.float32), these[1]
    assert np.array_equal(f_curves(heat, truth), f_curves(heat.astype(np.float64), truth), equal_nan=True)


def test_known_curves():
    truth = np.array([[[True, True], [False, False]]])
    assert np.allclose(f_curves(truth.astype(np.float32), truth)[:, 1:], 1)
    assert np.allclose(f_curves(np.ones((1, 2, 2), np.float32), truth), 1.3 * 0.5 / (0.3 * 0.5 + 1))
    assert f_curves(np.zeros((1, 2, 2), np.float32), truth)[0, 1:].max() == 0
    assert f_curves(np.full((1, 2, 2), NAN, np.float32), truth).max() == 0


def test_one_pixel():
    assert np.allclose(f_curves(np.ones((1, 1, 1)), np.ones((1, 1, 1), bool)), 1)
    assert np.isnan(f_curves(np.ones((1, 1, 1)), np.zeros((1, 1, 1), bool))).all()


@given(pictures)
@example((np.zeros((0, 2, 2)), np.zeros((0, 2, 2), bool)))
@settings(max_examples=60, deadline=None)
def test_max_f_is_the_best_point_of_the_mean_over_pictures_with_a_truth(these):
    drawn = [(heat, truth) for heat, truth in zip(*these, strict=True) if truth.any()]
    means = [sum(f_reference(heat, truth, bar) for heat, truth in drawn) / len(drawn) for bar in F_THRESHOLDS if drawn]
    assert max_f(f_curves(*these)) == pytest.approx(max(means, default=NAN), abs=1e-12, nan_ok=True)


def test_max_f_is_not_the_mean_of_maxima():
    """Two pictures that are best at different thresholds: a maximum for each would hide it."""
    truth = np.array([[[True, False]]] * 2)
    heat = np.array([[[0.4, 0.2]], [[0.9, 0.6]]])
    curves = f_curves(heat, truth)
    assert curves.max(1).tolist() == pytest.approx([1, 1])
    assert max_f(curves) < 0.9


def test_pictures_and_truths_come_in_pairs():
    with pytest.raises(ValueError, match="zip"):
        f_curves(np.zeros((2, 2, 2)), np.zeros((1, 2, 2), bool))
