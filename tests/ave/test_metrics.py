"""Accuracies and windows, against counting and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avloc.ave.metrics import (
    accuracy,
    chance_of_match,
    class_accuracies,
    confusion,
    majority_accuracy,
    matched,
    nearest_windows,
    window_sums,
)

class_pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12)


@given(class_pairs)
def test_accuracies_equal_counting(pairs):
    predicted, truth = (np.array([pair[place] for pair in pairs], np.int64) for place in (0, 1))
    counts = confusion(predicted, truth, 4)
    assert counts.tolist() == [[pairs.count((column, row)) for column in range(4)] for row in range(4)]
    for row in range(4):
        there = [guess == row for guess, true in pairs if true == row]
        expected = sum(there) / len(there) if there else math.nan
        assert class_accuracies(counts)[row] == pytest.approx(expected, nan_ok=True)
    share = [sum(true == row for _, true in pairs) / len(pairs) if pairs else math.nan for row in range(4)]
    right = sum(guess == true for guess, true in pairs) / len(pairs) if pairs else math.nan
    assert accuracy(predicted, truth) == pytest.approx(right, nan_ok=True)
    assert majority_accuracy(truth) == pytest.approx(max(share), nan_ok=True)
    assert accuracy(3, truth) == pytest.approx(share[3], nan_ok=True)


@st.composite
def searches(draw):
    clip = draw(st.integers(1, 6))
    length = draw(st.integers(0, clip))
    start = draw(st.integers(0, clip - length))
    steps = draw(st.lists(st.integers(0, 3), min_size=clip * clip, max_size=clip * clip))  # few, so that sums tie
    return np.array(steps, np.float32).reshape(clip, clip), np.arange(clip) - start, length


@given(searches())
def test_windows_equal_loops(search):
    distances, offset, length = search
    event = (offset >= 0) & (offset < length)
    clip, first = len(event), int(np.argmax(event))
    sums = window_sums(distances, event)
    if length in (0, clip):
        assert sums is None
        return
    starts = range(clip - length + 1)
    picture = [sum(distances[start + i, first + i] for i in range(length)) for start in starts]
    sound = [sum(distances[first + i, start + i] for i in range(length)) for start in starts]
    for ours, slow in zip(sums, (picture, sound), strict=True):
        assert ours[: len(starts)].tolist() == slow
        assert np.isnan(ours[len(starts) :]).all()
    best = [sums.index(min(sums)) for sums in (picture, sound)]
    assert nearest_windows(sums).tolist() == best
    assert matched(sums, event).tolist() == [start == first for start in best]
    assert chance_of_match(np.array([event, event])) == pytest.approx(1 / len(starts))


def test_events_with_gaps_or_without_windows():
    gap = np.array([True, False, True, False])
    with pytest.raises(ValueError, match="must be consecutive"):
        window_sums(np.zeros((4, 4)), gap)
    event = np.array([True, True, False, False])
    assert not matched(window_sums(np.full((4, 4), np.nan), event), event).any(), "no numbers find nothing"
    assert math.isnan(chance_of_match(np.array([[True, True], [False, False]])))
    assert chance_of_match(np.array([[True, False, False], [True, True, False]])) == pytest.approx((1 / 3 + 1 / 2) / 2)
