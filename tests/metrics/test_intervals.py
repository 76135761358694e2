"""The bootstrap against drawing clips and scoring them again."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avloc.metrics import summarise
from avloc.metrics.intervals import METRICS, RESAMPLES, SEED, _counts, interval, paired_difference

NAN = float("nan")
# Steps of 1/20 sit on the bars of the success curve; few of them, so that scores and differences tie.
scores = st.sampled_from([0.0, 0.05 * 3, 0.15, 0.45, math.nextafter(0.5, 0), 0.5, 0.75, 1.0])
score_lists = st.lists(scores, min_size=2, max_size=8)
comparisons = st.sampled_from([">=", ">"])
score_pairs = st.lists(st.tuples(scores, scores), min_size=2, max_size=8)


def draws_of(n) -> list[list[int]]:
    random = np.random.default_rng(SEED)
    return [random.integers(n, size=n).tolist() for _ in range(RESAMPLES)]


def redrawn(values, success) -> dict[str, list[float]]:
    drawn = [summarise([values[clip] for clip in clips], success) for clips in draws_of(len(values))]
    return {name: [getattr(summary, name) for summary in drawn] for name in METRICS}


def percentile_reference(numbers, percent) -> float:
    ordered, rank = sorted(numbers), percent / 100 * (len(numbers) - 1)
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return low + (high - low) * (rank - math.floor(rank))


@given(score_lists, comparisons)
@example([0.5, 0.5, 0.5], ">=")
@example([0.5, 0.5, 1.0], ">")
@settings(max_examples=12, deadline=None)
def test_the_interval_equals_scoring_the_drawn_clips_again(values, success):
    result = interval(values, success)
    assert list(result) == list(METRICS)
    for name, numbers in redrawn(values, success).items():
        expected = [percentile_reference(numbers, 2.5), percentile_reference(numbers, 97.5)]
        assert result[name] == pytest.approx(expected, abs=1e-12)


@given(score_pairs, comparisons)
@example([(0.5, 0.5), (1.0, 1.0)], ">=")
@example([(0.5, 0.0), (1.0, 0.0), (0.0, 1.0)], ">")
@settings(max_examples=12, deadline=None)
def test_the_paired_difference_equals_scoring_the_drawn_clips_again(pairs, success):
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    result = paired_difference(a, b, success)
    assert list(result) == list(METRICS)
    of_a, of_b = redrawn(a, success), redrawn(b, success)
    for name, found in result.items():
        numbers = [round(left - right, 12) for left, right in zip(of_a[name], of_b[name], strict=True)]
        at_most, at_least = sum(number <= 0 for number in numbers), sum(number >= 0 for number in numbers)
        apart = getattr(summarise(a, success), name) - getattr(summarise(b, success), name)
        assert found["difference"] == pytest.approx(apart, abs=1e-12)
        assert found["low"] == pytest.approx(percentile_reference(numbers, 2.5), abs=1e-11)
        assert found["high"] == pytest.approx(percentile_reference(numbers, 97.5), abs=1e-11)
        assert found["p"] == min(1.0, 2 * (min(at_most, at_least) + 1) / (RESAMPLES + 1))


@given(score_pairs)
@settings(max_examples=30, deadline=None)
def test_turning_a_pair_round_turns_its_sign_and_keeps_p(pairs):
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    there, back = paired_difference(a, b), paired_difference(b, a)
    for name in METRICS:
        assert there[name]["p"] == back[name]["p"]
        assert there[name]["difference"] == -back[name]["difference"]
        assert there[name]["low"] == pytest.approx(-back[name]["high"], abs=1e-12)


def test_a_map_does_not_differ_from_itself():
    values = np.random.default_rng(3).random(50)
    expected = {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    assert paired_difference(values, values) == dict.fromkeys(METRICS, expected)


def test_equal_sums_in_another_order_are_no_difference():
    """Rounding leaves 1e-17 where the same scores are added up in another order; that is no side of zero."""
    result = paired_difference([0.1, 0.7, 0.3], [0.1, 0.7, 0.1 + 0.2])
    assert result["mean_ciou"]["p"] == 1


def test_a_map_better_on_every_clip_has_the_smallest_p():
    values = np.random.default_rng(3).random(50) / 2
    assert paired_difference(values + 0.5, values)["mean_ciou"]["p"] == 2 / 1001


def test_a_paired_difference_is_significant_where_intervals_overlap():
    values = np.random.default_rng(3).random(200) * 0.9
    better = values + 0.02
    assert interval(better)["mean_ciou"][0] < interval(values)["mean_ciou"][1]
    assert paired_difference(better, values)["mean_ciou"]["low"] > 0.019


def test_the_interval_has_the_width_of_theory():
    """Of a mean over many clips: 1.96 standard errors to either side."""
    values = np.random.default_rng(7).random(5158)
    result, summary = interval(values), summarise(values)
    for name, spread in {"ciou_50": 0.5, "auc": values.std(), "mean_ciou": values.std()}.items():
        low, high = result[name]
        assert low < getattr(summary, name) < high
        assert high - low == pytest.approx(2 * 1.96 * spread / math.sqrt(5158), rel=0.15)


@pytest.mark.parametrize("n", [2, 3, 250])
def test_counts_are_draws_with_replacement(n):
    counts = _counts(n)
    assert counts.tolist() == [[clips.count(clip) for clip in range(n)] for clips in draws_of(n)]
    assert not counts.flags.writeable


def test_the_draws_are_shared_and_repeatable():
    values = np.random.default_rng(5).random(300)
    first = json.dumps([interval(values), paired_difference(values, values[::-1])])
    assert _counts(300) is _counts(300)
    _counts.cache_clear()
    assert json.dumps([interval(values), paired_difference(values, values[::-1])]) == first


def test_memory_stays_small_at_the_size_of_vggss():
    values = np.random.default_rng(5).random(5158)
    _counts.cache_clear()
    tracemalloc.start()
    try:
        paired_difference(values, values[::-1])
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_no_clip_and_one_clip_have_no_interval():
    assert all(math.isnan(end) for values in ([], [0.7]) for ends in interval(values).values() for end in ends)
    nothing, one = paired_difference([], []), paired_difference([0.75], [0.25])
    assert all(math.isnan(number) for found in nothing.values() for number in found.values())
    assert one["ciou_50"]["difference"] == 1
    assert one["mean_ciou"]["difference"] == 0.5
    assert all(math.isnan(found[key]) for found in one.values() for key in ("low", "high", "p"))


def test_a_nan_is_refused_and_so_are_other_clips():
    with pytest.raises(ValueError, match="NaN is no score"):
        interval([0.5, NAN])
    with pytest.raises(ValueError, match="the same clips"):
        paired_difference([0.5, 0.5], [0.5])
