"""Negative audio: marked area, its curve, universal thresholds, overlap and the F scores against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avloc.metrics import intersection_over_union as overlap
from avloc.metrics.negatives import harmonic, negative_auc, negative_scores, share_above, universal_thresholds

NAN = float("nan")
values = st.one_of(st.sampled_from([0.0, 0.5, NAN]), st.floats(-1, 1, width=32))
maps = st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(1, 5)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=values)
)
masks = hnp.arrays(np.bool_, (3, 4))
shares = st.one_of(st.sampled_from([0.0, 0.05, 0.05 * 3, 0.15, 0.5, 1.0]), st.floats(0, 1))
share_lists = st.lists(shares, max_size=30)
bars = [0.05 * step for step in range(21)]


def area_under(heights) -> float:
    return sum((heights[i] + heights[i + 1]) / 2 * (bars[i + 1] - bars[i]) for i in range(20))


def auc_n_reference(pias) -> float:
    return area_under([sum(pia <= bar for pia in pias) / len(pias) for bar in bars]) if pias else NAN


def mean_reference(numbers) -> float:
    return sum(numbers) / len(numbers) if numbers else NAN


def harmonic_reference(a, b) -> float:
    return 0.0 if a == b == 0 else 2 / (1 / a + 1 / b) if a and b else a * b


@given(maps, values)
@settings(max_examples=150, deadline=None)
def test_the_marked_share_equals_counting(maps_BHW, threshold):
    result = share_above(maps_BHW, threshold)
    assert result.shape == maps_BHW.shape[:1]
    for share, map_HW in zip(result, maps_BHW, strict=True):
        assert share == sum(float(value) > threshold for row in map_HW for value in row) / map_HW.size
        assert share_above(map_HW, threshold) == share


def test_a_pixel_at_the_threshold_is_not_marked():
    flat = np.full((1, 2, 2), 0.25, np.float32)
    assert share_above(flat, 0.25) == 0
    assert share_above(flat, math.nextafter(0.25, 0)) == 1


def test_the_threshold_is_not_rounded_to_the_precision_of_the_map():
    single = np.full((1, 1, 1), 0.1, np.float32)
    assert float(single[0, 0, 0]) > 0.1
    assert share_above(single, 0.1) == 1


def test_a_map_of_nan_marks_nothing_and_neither_does_a_threshold_of_nan():
    assert share_above(np.full((1, 3, 3), NAN, np.float32), -1.0) == 0
    assert share_above(np.ones((1, 3, 3), np.float32), NAN) == 0


@given(share_lists)
@settings(max_examples=150, deadline=None)
def test_the_area_under_the_negative_curve_equals_its_definition(pias):
    assert negative_auc(pias) == pytest.approx(auc_n_reference(pias), abs=1e-12, nan_ok=True)


def test_the_negative_curve_at_its_ends():
    assert negative_auc([0.0, 0.0]) == pytest.approx(1)
    assert negative_auc([1.0]) == pytest.approx(0.025)
    # the bar of three steps is 0.15000000000000002: an area just above 0.15 still reaches it
    assert negative_auc([0.05 * 3]) == negative_auc([0.15])


@given(st.lists(values, max_size=20))
@example([NAN])
@example([-0.5, -0.25])
@settings(max_examples=150, deadline=None)
def test_universal_thresholds_equal_their_definition(peaks):
    found = universal_thresholds(peaks)
    known = sorted(peak for peak in peaks if not math.isnan(peak))
    if not known:
        assert all(math.isnan(value) for value in found.values())
        return
    rank = 0.75 * (len(known) - 1)
    low, high = known[math.floor(rank)], known[math.ceil(rank)]
    assert list(found) == ["max", "max10", "maxq3"]
    assert found["max"] == known[-1]
    assert found["max10"] == pytest.approx(1.1 * known[-1])
    assert found["maxq3"] == pytest.approx(low + (high - low) * (rank - math.floor(rank)), abs=1e-12)


@given(hnp.arrays(np.float32, (4, 3, 3), elements=st.floats(-1, 1, width=32)))
@settings(max_examples=60, deadline=None)
def test_no_negative_is_marked_at_the_largest_peak(negatives):
    assert not share_above(negatives, universal_thresholds(negatives.max((1, 2)))["max"]).any()


@given(st.floats(0, 1), st.floats(0, 1))
@example(0.0, 0.0)
@example(0.0, 1.0)
@settings(max_examples=60, deadline=None)
def test_the_harmonic_mean_equals_its_definition(a, b):
    assert harmonic(a, b) == pytest.approx(harmonic_reference(a, b), rel=1e-9, abs=1e-300)


def test_the_harmonic_mean_of_an_unknown_is_unknown():
    assert math.isnan(harmonic(NAN, 0.5))
    assert math.isnan(harmonic(0.0, NAN))


@given(masks, masks)
@example(np.zeros((3, 4), bool), np.zeros((3, 4), bool))
@example(np.zeros((3, 4), bool), np.ones((3, 4), bool))
@settings(max_examples=100, deadline=None)
def test_overlap_equals_counting(a, b):
    cells = [(y, x) for y in range(3) for x in range(4)]
    both, either = sum(a[c] and b[c] for c in cells), sum(a[c] or b[c] for c in cells)
    assert overlap(a, b) == (both / either if either else 1.0)
    assert overlap(np.stack([a, b]), np.stack([b, b])).tolist() == [overlap(a, b), 1.0]


@given(share_lists, share_lists, share_lists, share_lists)
@example([], [0.1], [0.1], [0.1])
@example([0.6], [], [], [])
@example([0.0], [1.0], [1.0], [0.0])
@settings(max_examples=100, deadline=None)
def test_the_scores_equal_their_definition(own, silence, noise, other):
    pias = {"silence": silence, "noise": noise, "other-class": other}
    overlaps = {kind: [1 - pia for pia in these] for kind, these in pias.items()}
    result = negative_scores("maxq3", 0.4, own, pias, overlaps)
    assert (result.threshold_rule, result.threshold, result.n) == ("maxq3", 0.4, len(own))
    close = {"abs": 1e-9, "nan_ok": True}
    pia = {kind: mean_reference(these) for kind, these in pias.items()}
    auc_n = {kind: auc_n_reference(these) for kind, these in pias.items()}
    assert result.pia == pytest.approx(pia, **close)
    assert result.auc_n == pytest.approx(auc_n, **close)
    assert result.overlap == pytest.approx({kind: mean_reference(these) for kind, these in overlaps.items()}, **close)
    there = [kind for kind, these in pias.items() if these]
    if not (own and there):
        assert all(math.isnan(score) for score in (result.f_loc, result.f_auc, result.f_loc_mean))
        return
    stillness = 1 - mean_reference([pia[kind] for kind in there])
    half = sum(ciou >= 0.5 for ciou in own) / len(own)
    area = area_under([sum(ciou >= bar for ciou in own) / len(own) for bar in bars])
    assert (result.ciou_50, result.auc) == pytest.approx((half, area), **close)
    assert result.mean_ciou == pytest.approx(mean_reference(own), **close)
    # rounding may leave 1e-17 of a stillness of 0, which no reader of a harmonic mean would see
    assert result.f_loc == pytest.approx(harmonic_reference(half, stillness), **close)
    assert result.f_loc_mean == pytest.approx(harmonic_reference(mean_reference(own), stillness), **close)
    assert result.f_auc == pytest.approx(
        harmonic_reference(area, mean_reference([auc_n[kind] for kind in there])), **close
    )


def test_a_kind_weighs_as_much_as_another_however_many_pictures_it_has():
    result = negative_scores("max", 0.4, [1.0], {"silence": [0.0] * 9, "noise": [1.0], "other-class": []}, {})
    assert result.f_loc == pytest.approx(2 / 3)
    assert math.isnan(result.pia["other-class"])
    assert result.overlap == {}
