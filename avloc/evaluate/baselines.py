"""Baselines: maps that depend on neither picture nor sound, and the best possible mask."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from avloc.heatmap import area_rank, median_rank, threshold_mask
from avloc.metrics import ClipScore, Truth

RANDOM = "random"
SOUND_IGNORED = "sound ignored"
CEILING = "ceiling"
_RANDOM_CELLS = 7


class Fixed:
    """The same map and mask [side, side] for every picture; the protocol's threshold is not used."""

    def __init__(self, heat: NDArray[np.float64], mask: NDArray[np.bool_]) -> None:
        self.heat, self.mask = heat, mask
        self._sorted = np.sort(heat, axis=None)
        self._peak = int(heat.argmax())
        self.has_peak = bool(self._sorted[0] < self._sorted[-1])

    def score(self, truth: Truth, comparison: str) -> ClipScore:
        """Score the mask against a truth."""
        mask = self.mask
        if self.has_peak:
            at_area = float(self._sorted[area_rank(self.heat.size, truth.pixels)])
            mask = threshold_mask(self.heat, at_area, comparison)
        return ClipScore(
            ciou=truth.ciou(self.mask), area_ciou=truth.ciou(mask), hit=self.has_peak and truth.holds(self._peak)
        )


def fixed_baselines(prior: NDArray[np.float64]) -> dict[str, Fixed]:
    """`centre disc`, `centre square`, `whole frame` and `truth prior`.

    `prior` [side, side] is the sum of the truths of all clips, including the scored one.
    """
    side = len(prior)
    offset = np.abs(np.arange(side) - (side - 1) / 2)
    disc = -np.hypot(offset[:, None], offset)
    square = -np.maximum(offset[:, None], offset)
    half_square = square >= -(int(side / np.sqrt(2)) / 2)
    return {
        "centre disc": Fixed(disc, _hotter_half(disc)),
        "centre square": Fixed(square, half_square),
        "whole frame": Fixed(np.zeros((side, side)), np.ones((side, side), np.bool_)),
        "truth prior": Fixed(prior, _hotter_half(prior)),
    }


def _hotter_half(heat: NDArray[np.float64]) -> NDArray[np.bool_]:
    return threshold_mask(heat, float(np.sort(heat, axis=None)[median_rank(heat.size)]))


def ceiling(truth: Truth) -> ClipScore:
    """The best score of any mask of half the picture; of an odd number of pixels the larger half."""
    best = truth.best_ciou(truth.map.size - median_rank(truth.map.size))
    return ClipScore(ciou=best, area_ciou=float(truth.pixels > 0), hit=truth.pixels > 0)


def random_cells(clip_id: str) -> NDArray[np.float32]:
    """A [7, 7] map of noise that depends on the id alone."""
    seed = int.from_bytes(hashlib.sha256(clip_id.encode("utf-8", "surrogateescape")).digest()[:8], "little")
    return np.random.default_rng(seed).random((_RANDOM_CELLS, _RANDOM_CELLS), np.float32)
