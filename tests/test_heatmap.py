"""Resize, min-max, fusion and thresholds against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avloc.heatmap import (
    _ranked_by_bits,
    area_ranks,
    fuse,
    heat_maps,
    median_rank,
    order_statistics,
    peaks,
    resize,
    threshold_masks,
)
from tests import reference_scoring as slow

grids = hnp.arrays(np.float32, (3, 4), elements=st.floats(-1, 1, width=32))
any_grids = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-1, 1, width=32))
levels = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.sampled_from([np.float32(value) for value in (0, 0.25, 0.5, 1)]),
)
HOW = {"bilinear-corners": "corners", "bilinear-halfpixel": "areas", "bicubic-corners": "cubic"}


@pytest.mark.parametrize("how", HOW)
@given(any_grids, st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_resize_equals_its_definition(how, grid, side):
    ours = resize(torch.from_numpy(grid)[None], (side, side), how)[0]
    np.testing.assert_allclose(ours, slow.resized(grid.tolist(), side, HOW[how]), atol=1e-5)


@pytest.mark.parametrize("how", HOW)
@given(grids, st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_height_and_width_are_resized_independently(how, grid, height, width):
    ours = resize(torch.from_numpy(grid)[None], (height, width), how)[0]
    tall = slow.resized(grid.tolist(), height, HOW[how])
    wide = slow.resized(grid.T.tolist(), width, HOW[how])
    assert ours.shape == (height, width)
    # A column of the grid is resized in height as on a square; likewise a row in width.
    only_height = resize(torch.from_numpy(grid)[None], (height, 4), how)[0]
    only_width = resize(torch.from_numpy(grid)[None], (3, width), how)[0]
    np.testing.assert_allclose(resize(only_height[None], (height, height), how)[0], tall, atol=1e-5)
    np.testing.assert_allclose(resize(only_width[None], (width, width), how)[0], np.transpose(wide), atol=1e-5)


@pytest.mark.parametrize("how", HOW)
def test_a_map_of_its_final_size_is_unchanged(how):
    grid = torch.rand(2, 9, 9)
    assert torch.equal(resize(grid, (9, 9), how), grid)


@pytest.mark.parametrize("how", HOW)
@given(grids)
@settings(max_examples=30, deadline=None)
def test_a_heat_map_spans_zero_to_one_unless_flat(how, grid):
    heat = heat_maps(torch.from_numpy(grid)[None], (9, 7), how)
    assert heat.min() == 0
    assert heat.max() in (0, 1)
    assert torch.isfinite(heat).all()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("value", [0.0, 0.3, -1e-30, 3e38])
def test_a_flat_map_is_all_zeros_or_all_nan(how, value):
    flat = torch.full((1, 7, 7), value)
    assert (heat_maps(flat, (20, 20), how) == 0).all()
    assert heat_maps(flat, (20, 20), how, "nan").isnan().all()


@pytest.mark.parametrize("flat", ["zeros", "nan"])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_a_map_with_nan_has_no_threshold(how, flat, strange):
    for cells in (torch.rand(7, 7), torch.full((7, 7), strange)):
        cells[3, 6] = strange
        heat = heat_maps(cells[None], (20, 20), how, flat)
        ranks = torch.tensor([[0, 200, 399]])
        for found in (order_statistics(heat.flatten(1), ranks.numpy()), _ranked_by_bits(heat.flatten(1), ranks)):
            assert found.isnan().all()
            assert not threshold_masks(heat.flatten(1), found).any()
        if math.isnan(strange):
            assert heat.isnan().all()


@pytest.mark.parametrize("how", HOW)
@given(st.lists(grids, min_size=2, max_size=4))
@settings(max_examples=30, deadline=None)
def test_a_heat_map_does_not_depend_on_the_rest_of_the_batch(how, maps):
    together = heat_maps(torch.from_numpy(np.stack(maps)), (11, 13), how)
    for row, grid in enumerate(maps):
        assert torch.equal(together[row], heat_maps(torch.from_numpy(grid)[None], (11, 13), how)[0])


def test_a_nan_or_flat_map_in_the_batch_changes_no_other():
    fine = torch.rand(7, 7)
    beside = torch.stack([fine, torch.full((7, 7), math.nan), torch.full((7, 7), math.inf), torch.ones(7, 7)])
    assert torch.equal(heat_maps(beside, (20, 20))[0], heat_maps(fine[None], (20, 20))[0])


def test_fusion_is_the_normalised_weighted_sum():
    one, other = torch.rand(2, 5, 6), torch.rand(2, 5, 6)
    mixed = 0.6 * one + 0.4 * other
    fused = fuse([one, other], [0.6, 0.4])
    for row in range(2):
        reference = (mixed[row] - mixed[row].min()) / (mixed[row].max() - mixed[row].min())
        assert torch.allclose(fused[row], reference)


def test_a_flat_fusion_follows_the_rule_for_flat_maps():
    ramp = torch.arange(4.0).reshape(1, 2, 2) / 4
    assert (fuse([ramp, 0.75 - ramp], [0.5, 0.5]) == 0).all()
    assert fuse([ramp, 0.75 - ramp], [0.5, 0.5], "nan").isnan().all()
    with pytest.raises(ValueError, match="zip"):
        fuse([ramp, ramp], [1.0])


def flat(*heats: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(heats)).flatten(1)


@given(st.integers(1, 40), st.integers(1, 3), st.booleans(), st.data())
@settings(max_examples=80, deadline=None)
def test_ranked_values_are_those_of_the_sorted_map(pixels, count, ties, data):
    values = st.sampled_from([0, 0.25, 0.5, 1]) if ties else st.floats(0, 1, width=32)
    heats = data.draw(hnp.arrays(np.float32, (count, pixels), elements=values))
    ranks = data.draw(hnp.arrays(np.int64, (count, 2), elements=st.integers(0, pixels - 1)))
    expected = [[sorted(heat)[rank] for rank in own] for heat, own in zip(heats.tolist(), ranks, strict=True)]
    assert order_statistics(flat(*heats), ranks).tolist() == expected
    assert _ranked_by_bits(flat(*heats), torch.from_numpy(ranks)).tolist() == expected
    assert peaks(flat(*heats)).tolist() == [heat.index(max(heat)) for heat in heats.tolist()]


@given(levels, st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, math.nan]), min_size=1, max_size=3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_cut_compares_every_pixel(heat, at, strictly):
    heat = heat.copy()
    heat[0, 0] = math.nan
    expected = [slow.marked(heat.tolist(), one, strictly) for one in at]
    masks = threshold_masks(flat(heat), torch.tensor([at]), ">" if strictly else ">=")
    assert masks.view(len(at), *heat.shape).tolist() == expected
    assert masks.dtype == torch.float32


def test_a_value_of_the_map_is_its_own_threshold():
    heat = np.random.default_rng(0).random((31, 31), np.float32)
    every = np.arange(31 * 31)[None]
    limits = order_statistics(flat(heat), every)
    assert threshold_masks(flat(heat), limits).sum(2).tolist() == [[31 * 31 - rank for rank in range(31 * 31)]]
    assert threshold_masks(flat(heat), limits, ">").sum(2).tolist() == [[31 * 31 - 1 - rank for rank in range(31 * 31)]]


def test_the_median_threshold_keeps_half_of_the_pixels_without_ties():
    heat = (torch.randperm(224 * 224) / 224**2)[None]
    limits = order_statistics(heat, np.array([[median_rank(224 * 224)]]))
    assert [threshold_masks(heat, limits, sign).sum() for sign in (">=", ">")] == [25_088, 25_087]


@given(st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_the_rank_of_an_area_leaves_as_many_pixels(pixels):
    heat = torch.from_numpy(np.random.default_rng(pixels).permutation(pixels) / np.float32(pixels)).float()[None]
    wanted = np.arange(1, pixels + 1)
    limits = order_statistics(heat, area_ranks(pixels, wanted)[None])
    assert threshold_masks(heat, limits).sum(2).tolist() == [wanted.tolist()]
    assert area_ranks(pixels, np.array([0])).tolist() == [median_rank(pixels)] == [pixels // 2]
