"""Cached outputs of backbones: computed once, continued after a stop, replaced if they are of something else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.recipe import features
from tests.recipe.features import AUDIO_WIDTH, BATCH, CELLS, Cache, pooled, probabilities

NAMES = [f"n{row}" for row in range(3 * BATCH + 2)]
SHAPES = {"all": (len(NAMES), 3), "some": (BATCH + 1, 2)}


class Counted:
    """Rows that are their own numbers; stops before `limit`."""

    def __init__(self, limit=1000, offset=0):
        self.rows, self.limit, self.offset = [], limit, offset

    def __call__(self, rows):
        if rows.stop > self.limit:
            raise KeyboardInterrupt
        self.rows += rows
        numbers = torch.arange(rows.start, rows.stop).float()[:, None] + self.offset
        return {"all": numbers.expand(-1, 3), "some": numbers.expand(-1, 2)}


def check(read, offset=0):
    for name, (count, _) in SHAPES.items():
        assert read[name].dtype == torch.float16
        assert read[name][:, 1].tolist() == [row + offset for row in range(count)]


def test_what_is_cached_is_computed_once(tmp_path):
    compute = Counted()
    for _ in range(2):
        check(Cache(tmp_path, "run").read("set", NAMES, SHAPES, compute))
    assert compute.rows == list(range(len(NAMES)))


@pytest.mark.parametrize("every", [1, 2])
def test_a_stopped_run_continues(tmp_path, monkeypatch, every):
    monkeypatch.setattr(features, "_RECORDED_EVERY", every)
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path, "run").read("set", NAMES, SHAPES, Counted(limit=2 * BATCH))
    again = Counted()
    check(Cache(tmp_path, "run").read("set", NAMES, SHAPES, again))
    assert again.rows == list(range(BATCH * (2 if every == 1 else 1), len(NAMES)))


def test_other_names_runs_and_shapes_are_computed_anew(tmp_path):
    Cache(tmp_path, "run").read("set", NAMES, SHAPES, Counted())
    check(Cache(tmp_path, "other").read("set", NAMES, SHAPES, Counted(offset=100)), offset=100)
    check(Cache(tmp_path, "other").read("set", NAMES[::-1], SHAPES, Counted(offset=200)), offset=200)
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path, "run").read("set", NAMES, SHAPES, Counted(limit=0))
    again = Counted(offset=300)  # nothing of what was replaced is taken for computed
    check(Cache(tmp_path, "other").read("set", NAMES[::-1], SHAPES, again), offset=300)


def test_sets_may_be_empty(tmp_path):
    read = Cache(tmp_path, "run").read("set", [], {"all": (0, 3)}, Counted())
    assert read["all"].shape == (0, 3)


def test_pooled_cells_are_means_of_four():
    cells = torch.rand(2, CELLS, 5)
    grid = cells.numpy().reshape(2, 14, 14, 5)
    places = [(y, x) for y in range(0, 14, 2) for x in range(0, 14, 2)]
    expected = np.stack([grid[:, y : y + 2, x : x + 2].mean((1, 2)) for y, x in places], 1)
    assert pooled(cells).numpy() == pytest.approx(expected, abs=1e-6)


def test_probabilities_are_those_of_the_logits_but_0_below_the_offset():
    sounds = torch.zeros(2, AUDIO_WIDTH)
    sounds[1, 1024], sounds[0, 1544] = 5.0, 7.0
    found = probabilities(sounds)
    assert found[1, 0] == pytest.approx(0.5)
    assert found[0, 520] == pytest.approx(1 / (1 + np.exp(-2)))
    assert (found > 0).sum() == 2
