"""Several sources in a picture: the worst one counts, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avloc.metrics.sources import source_scores

NAN = float("nan")
cious = st.one_of(st.sampled_from([0.0, 0.5, math.nextafter(0.5, 0), 0.05 * 3, 1.0, NAN]), st.floats(0, 1))
# Names that differ by a trailing zero character or by nothing but their length are different pictures.
source_lists = st.lists(st.tuples(st.sampled_from(["a", "a\0", "", "b", "photo"]), cious), max_size=25)


def reference(sources) -> tuple[int, float, float]:
    names = [name for name, _ in sources]
    pictures = [name for place, name in enumerate(names) if name in names[:place] and names[:place].count(name) == 1]
    if not pictures:
        return 0, NAN, NAN

    def share(bar) -> float:
        return sum(all(ciou >= bar for name, ciou in sources if name == here) for here in pictures) / len(pictures)

    bars = [0.05 * step for step in range(21)]
    area = sum((share(bars[i]) + share(bars[i + 1])) / 2 * (bars[i + 1] - bars[i]) for i in range(20))
    return len(pictures), share(0.5), area


@given(source_lists)
@example([])
@example([("a", 1.0)])
@example([("a", 1.0), ("a", NAN)])
@settings(max_examples=200, deadline=None)
def test_a_picture_counts_if_all_its_sources_do(sources):
    doubled = [(name, min(1.0, 2 * ciou)) for name, ciou in sources]
    result = source_scores([name for name, _ in sources], [c for _, c in sources], [c for _, c in doubled])
    expected, at_area = reference(sources), reference(doubled)
    assert result.n_pictures == expected[0]
    assert (result.iiou_50, result.iauc) == pytest.approx(expected[1:], abs=1e-12, nan_ok=True)
    assert (result.area_iiou_50, result.area_iauc) == pytest.approx(at_area[1:], abs=1e-12, nan_ok=True)


@given(source_lists, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_sources_changes_no_bit(sources, random):
    shuffled = random.sample(sources, len(sources))
    plain, mixed = (
        source_scores(*zip(*[(s[0], s[1], s[1]) for s in these], strict=True)) if these else None
        for these in (sources, shuffled)
    )
    assert repr(plain) == repr(mixed)


def test_one_miss_among_three_sources_loses_the_picture():
    result = source_scores(["a", "b", "a", "b", "a"], np.array([1.0, 0.9, 1.0, 0.5, 0.49]), np.ones(5))
    assert (result.n_pictures, result.iiou_50) == (2, 0.5)


def test_a_single_source_has_no_score():
    assert source_scores(["a", "b", "b"], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]).iiou_50 == 1
    assert math.isnan(source_scores(["a"], [1.0], [1.0]).iauc)


def test_every_source_has_a_score():
    with pytest.raises(ValueError, match="zip"):
        source_scores(["a", "b"], [1.0, 1.0], [1.0])
