"""Resize, min-max, fusion and the median cut against loops."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avloc.heatmap import fuse, heat_maps, median_masks, resize

grids = hnp.arrays(np.float32, (3, 4), elements=st.floats(-1, 1, width=32))


def resize_twin(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with corners aligned, pixel by pixel."""
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v = y * (grid.shape[0] - 1) / max(height - 1, 1)
            u = x * (grid.shape[1] - 1) / max(width - 1, 1)
            y0, x0 = min(int(v), grid.shape[0] - 2), min(int(u), grid.shape[1] - 2)
            a, b = v - y0, u - x0
            top = (1 - b) * grid[y0, x0] + b * grid[y0, x0 + 1]
            low = (1 - b) * grid[y0 + 1, x0] + b * grid[y0 + 1, x0 + 1]
            out[y, x] = (1 - a) * top + a * low
    return out


@given(grids, st.integers(2, 12), st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_resize_equals_its_definition(grid, height, width):
    ours = resize(torch.from_numpy(grid)[None], (height, width))[0]
    np.testing.assert_allclose(ours, resize_twin(grid, height, width), atol=1e-5)


@given(grids)
@settings(max_examples=60, deadline=None)
def test_a_heat_map_fills_zero_to_one_unless_flat(grid):
    heat = heat_maps(torch.from_numpy(grid)[None], (9, 7))
    assert heat.min() == 0
    assert heat.max() in (0, 1)
    assert torch.isfinite(heat).all()


def test_a_flat_map_is_all_zeros():
    assert heat_maps(torch.full((1, 7, 7), 0.3), (20, 20)).abs().max() == 0


@given(st.lists(grids, min_size=2, max_size=4))
@settings(max_examples=30, deadline=None)
def test_a_heat_map_does_not_depend_on_its_neighbours(maps):
    together = heat_maps(torch.from_numpy(np.stack(maps)), (11, 13))
    for row, grid in enumerate(maps):
        assert torch.equal(together[row], heat_maps(torch.from_numpy(grid)[None], (11, 13))[0])


def test_fusion_is_the_weighted_sum_brought_to_zero_to_one():
    one, other = torch.rand(2, 5, 6), torch.rand(2, 5, 6)
    mixed = 0.6 * one + 0.4 * other
    fused = fuse([one, other], [0.6, 0.4])
    for row in range(2):
        twin = (mixed[row] - mixed[row].min()) / (mixed[row].max() - mixed[row].min())
        assert torch.allclose(fused[row], twin)


@given(hnp.arrays(np.float32, (4, 6), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])))
@settings(max_examples=60, deadline=None)
def test_the_median_cut_keeps_everything_at_or_above_the_middle_rank(heat):
    mask = median_masks(torch.from_numpy(heat)[None])[0].numpy()
    threshold = sorted(heat.ravel())[12]
    assert (mask == (heat >= threshold)).all()
    assert mask.sum() >= 12


def test_the_median_cut_keeps_half_where_nothing_ties():
    heat = torch.randperm(224 * 224).reshape(1, 224, 224).float()
    assert int(median_masks(heat).sum()) == 25_088
