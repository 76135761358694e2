"""Resize, min-max, fusion and thresholds against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avloc.heatmap import area_rank, fuse, heat_maps, median_rank, order_statistics, resize, threshold_mask
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
        heat = heat_maps(cells[None], (20, 20), how, flat)[0].numpy()
        assert all(map(math.isnan, order_statistics(heat, [0, 200, 399])))
        assert not threshold_mask(heat, 0.5).any()
        if math.isnan(strange):
            assert np.isnan(heat).all()


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


@given(levels, st.data())
@settings(max_examples=60, deadline=None)
def test_ranked_values_are_those_of_the_sorted_map(heat, data):
    ranks = data.draw(st.lists(st.integers(0, heat.size - 1), min_size=1, max_size=4))
    assert order_statistics(heat, ranks) == [sorted(heat.ravel().tolist())[rank] for rank in ranks]


@given(levels, st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, math.nan]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_cut_compares_every_pixel(heat, at, strictly):
    heat = heat.copy()
    heat[0, 0] = math.nan
    expected = slow.marked(heat.tolist(), at, strictly)
    assert threshold_mask(heat, at, ">" if strictly else ">=").tolist() == expected
    assert not expected[0][0]


def test_a_value_of_the_map_is_its_own_threshold():
    """Converted to double precision it includes its own pixel and excludes every lower one."""
    heat = np.random.default_rng(0).random((31, 31), np.float32)
    for value, below in zip(np.sort(heat.ravel())[1:], np.sort(heat.ravel()), strict=False):
        (at,) = order_statistics(heat, [int((heat < value).sum())])
        assert (threshold_mask(heat, at) == (heat >= value)).all()
        assert (threshold_mask(heat, at, ">") == (heat > value)).all()
        assert not threshold_mask(heat, at)[heat == below].any()


def test_the_median_threshold_keeps_half_of_the_pixels_without_ties():
    heat = torch.randperm(224 * 224).reshape(224, 224).float().numpy()
    (at,) = order_statistics(heat, [median_rank(heat.size)])
    assert (threshold_mask(heat, at).sum(), threshold_mask(heat, at, ">").sum()) == (25_088, 25_087)


@given(st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_the_rank_of_an_area_leaves_as_many_pixels(pixels):
    heat = np.random.default_rng(pixels).permutation(pixels).astype(np.float32)[None]
    for wanted in range(1, pixels + 1):
        (at,) = order_statistics(heat, [area_rank(pixels, wanted)])
        assert threshold_mask(heat, at).sum() == wanted
    assert area_rank(pixels, 0) == median_rank(pixels) == pixels // 2
