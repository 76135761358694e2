"""Sets with silent pairs: AP, max F1 and LocAcc, exact and SLAVC's, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avloc.metrics.extended import ExtendedScores, confidence, extended_scores

NAN = float("nan")
# Few values, so that most confidences tie; and cIoU on both sides of the bar.
heights = st.one_of(st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, NAN, -math.inf]), st.floats(-2, 2))
cious = st.one_of(
    st.sampled_from([NAN, NAN, 0.0, 0.5, math.nextafter(0.5, 0), math.nextafter(0.5, 1), 1.0]), st.floats(0, 1)
)
pair_lists = st.lists(st.tuples(heights, cious), max_size=40)
maps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.one_of(st.sampled_from([0.0, 0.5]), st.floats(-100, 100, width=32)),
)


@given(maps)
@settings(max_examples=100, deadline=None)
def test_confidence_is_the_mean_of_the_hottest_quarter_rounded_up(map_HW):
    hottest = sorted((float(value) for row in map_HW for value in row), reverse=True)[: math.ceil(map_HW.size / 4)]
    assert confidence(map_HW) == pytest.approx(math.fsum(hottest) / len(hottest), abs=1e-12)


@pytest.mark.parametrize(("n", "mean"), [(1, 0), (4, 3), (5, 3.5), (8, 6.5), (9, 7)])
def test_the_published_slice_rounds_the_quarter_up(n, mean):
    assert confidence(np.arange(n, dtype=np.float32).reshape(1, n)) == mean


def test_a_map_with_a_nan_or_without_pixels_has_no_confidence():
    broken = np.zeros((4, 4), np.float32)
    broken[0, 0] = NAN
    assert math.isnan(confidence(broken))
    assert math.isnan(confidence(np.zeros((0, 4), np.float32)))


def exact_reference(pairs) -> tuple[float, float, float]:
    n_sounding = sum(not math.isnan(ciou) for _, ciou in pairs)
    if not n_sounding:
        return NAN, NAN, NAN
    curve = []
    for bar in sorted({height for height, _ in pairs if not math.isnan(height)}, reverse=True):
        true = false = 0
        for height, ciou in pairs:
            if height >= bar:
                if ciou >= 0.5:
                    true += 1
                else:
                    false += 1
        curve.append((true / (true + false), true / n_sounding))
    ap = best = before = 0.0
    for step, (precision, recall) in enumerate(curve):
        ap += (recall - before) * max(later for later, _ in curve[step:])
        before = recall
        if precision + recall:
            best = max(best, 2 * precision * recall / (precision + recall))
    return ap, best, sum(ciou >= 0.5 for _, ciou in pairs) / n_sounding


def slavc_point(pairs, bar) -> tuple[float, float]:
    tally = {"true": 0, "false": 0, "missed": 0}
    for height, ciou in pairs:
        silent, sure = math.isnan(ciou), height >= bar
        if sure and ciou >= 0.5:
            tally["true"] += 1
        elif sure:
            tally["false"] += 1
        elif not silent:
            tally["missed"] += 1
    sure, due = tally["true"] + tally["false"], tally["true"] + tally["missed"]
    return (tally["true"] / sure if sure else 1.0), (tally["true"] / due if due else 1.0)


def slavc_reference(pairs) -> tuple[float, float, float]:
    if not pairs:
        return NAN, NAN, NAN
    rising = sorted(height for height, _ in pairs if not math.isnan(height))
    curve, rank = [], len(rising) - 2
    while rank >= 0:
        curve.append(slavc_point(pairs, rising[rank]))
        rank -= max(1, len(pairs) // 200)
    ap = 0.0
    for step in range(1, len(curve)):
        ap += max(precision for precision, _ in curve[step - 1 :]) * (curve[step][1] - curve[step - 1][1])
    best, rank = 0.0, 0
    while rank < len(rising):
        precision, recall = slavc_point(pairs, rising[rank])
        if precision + recall:
            best = max(best, 2 * precision * recall / (precision + recall))
        rank += max(1, len(pairs) // 10)
    sounding = [ciou for _, ciou in pairs if not math.isnan(ciou)]
    return ap, best, (sum(ciou > 0.5 for ciou in sounding) / len(sounding) if sounding else NAN)


def check(pairs) -> None:
    result = extended_scores([height for height, _ in pairs], [ciou for _, ciou in pairs])
    assert result.n_silent == sum(math.isnan(ciou) for _, ciou in pairs)
    assert result.n_sounding + result.n_silent == len(pairs)
    exact = (result.ap, result.max_f1, result.loc_acc)
    slavc = (result.slavc_ap, result.slavc_max_f1, result.slavc_loc_acc)
    assert exact == pytest.approx(exact_reference(pairs), abs=1e-12, nan_ok=True)
    assert slavc == pytest.approx(slavc_reference(pairs), abs=1e-12, nan_ok=True)


@given(pair_lists)
@example([])
@example([(0.5, NAN)])
@example([(0.5, 0.5)])
@example([(NAN, 0.7)])
@example([(NAN, NAN), (NAN, 0.7)])
@example([(0.5, 0.7)] * 12 + [(0.5, NAN)] * 12)
@settings(max_examples=300, deadline=None)
def test_scores_equal_plain_loops(pairs):
    check(pairs)


@pytest.mark.parametrize("n", [199, 200, 399, 400, 401, 450])
@pytest.mark.parametrize("levels", [5, 10_000])
def test_scores_equal_plain_loops_where_slavc_skips_thresholds(n, levels):
    draw = np.random.default_rng(n)
    cious_n = np.where(draw.random(n) < 0.4, NAN, draw.random(n))
    check(list(zip((draw.integers(levels, size=n) / levels).tolist(), cious_n.tolist(), strict=True)))


@given(pair_lists, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_pairs_changes_no_bit(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    plain, mixed = (extended_scores([p[0] for p in these], [p[1] for p in these]) for these in (pairs, shuffled))
    assert repr(plain) == repr(mixed)


def test_slavc_drops_the_first_step_of_recall():
    result = extended_scores([0.9, 0.8, 0.7], [1.0, 1.0, 1.0])
    assert (result.ap, result.max_f1) == (1, 1)
    assert (result.slavc_ap, result.slavc_max_f1) == (pytest.approx(1 / 3), 1)


def test_a_pair_found_in_the_wrong_place_counts_as_missed_but_not_for_slavc():
    result = extended_scores([0.9, 0.8], [1.0, 0.0])
    assert result.ap == 0.5
    assert result.max_f1 == pytest.approx(2 / 3)
    # SLAVC at the lower threshold: precision 1/2, recall 1/1. At the higher: precision 1/1, recall 1/2.
    assert result.slavc_max_f1 == pytest.approx(2 / 3)
    assert extended_scores([0.9, 0.8, 0.1], [0.0, 1.0, NAN]).max_f1 == pytest.approx(0.5)
    assert extended_scores([0.9, 0.8, 0.1], [0.0, 1.0, NAN]).slavc_max_f1 == pytest.approx(2 / 3)


def test_half_is_located_for_us_and_not_for_slavc():
    result = extended_scores([0.9], [0.5])
    assert (result.loc_acc, result.slavc_loc_acc) == (1, 0)


def test_a_confident_silent_pair_costs_precision():
    quiet = extended_scores([0.9, 0.1], [1.0, NAN])
    loud = extended_scores([0.1, 0.9], [1.0, NAN])
    assert (quiet.ap, loud.ap) == (1, 0.5)
    assert (quiet.max_f1, loud.max_f1) == (1, pytest.approx(2 / 3))


def test_what_is_undefined_is_no_number():
    silent = extended_scores([0.3, 0.4], [NAN, NAN])
    assert (silent.n_sounding, silent.n_silent) == (0, 2)
    assert all(math.isnan(value) for value in (silent.ap, silent.max_f1, silent.loc_acc, silent.slavc_loc_acc))
    assert (silent.slavc_ap, silent.slavc_max_f1) == (0, 0)
    nothing = extended_scores([], [])
    assert isinstance(nothing, ExtendedScores)
    assert [value for value in vars(nothing).values() if not math.isnan(value)] == [0, 0]


def test_a_nan_confidence_is_never_confident():
    assert extended_scores([NAN], [1.0]).ap == 0
    assert extended_scores([0.5, NAN], [1.0, 1.0]).ap == 0.5
    assert extended_scores([0.5, NAN], [1.0, NAN]).max_f1 == 1


def test_confidences_need_their_cious():
    with pytest.raises(ValueError, match="confidences for"):
        extended_scores([0.5], [1.0, 1.0])
