"""Baselines: maps that depend on neither picture nor sound, and the best possible mask."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from avloc.engine import Truths
from avloc.heatmap import area_ranks, median_rank, threshold_masks
from avloc.metrics import ClipScore

RANDOM = "random"
SOUND_IGNORED = "sound ignored"
CEILING = "ceiling"
_RANDOM_CELLS = 7


class Fixed:
    """The same map and mask [side, side] for every picture; the protocol's threshold is not used.

    Pixels are compared by the rank of their values, which single precision holds.
    """

    def __init__(self, heat: NDArray[np.float64], mask: NDArray[np.bool_], device: torch.device | str = "cpu") -> None:
        self.heat, self.mask = heat, mask
        ranks = np.unique(heat, return_inverse=True)[1].ravel().astype(np.float32)
        self._ranks, self._sorted = torch.from_numpy(ranks).to(device), np.sort(ranks)
        self._inside = torch.from_numpy(mask.ravel()).to(self._ranks)
        self._peak = self._ranks.argmax()
        self.has_peak = bool(self._sorted[-1] > 0)

    def score(self, truths: Truths, comparison: str) -> list[ClipScore]:
        """Score the mask against truths."""
        count = len(truths.pixels)
        masks = self._inside.expand(count, 1, -1)
        cious = areas = truths.ciou(masks)[:, 0]
        hit = np.zeros(count, np.bool_)
        if self.has_peak:
            limits = torch.from_numpy(self._sorted[area_ranks(truths.size, truths.pixels)]).to(self._ranks)
            areas = truths.ciou(threshold_masks(self._ranks.expand(count, -1), limits[:, None], comparison))[:, 0]
            hit = truths.hold(self._peak.expand(count))
        rows = zip(cious.tolist(), areas.tolist(), hit.tolist(), strict=True)
        return [ClipScore(ciou=ciou, area_ciou=area, hit=inside) for ciou, area, inside in rows]


def fixed_baselines(prior: NDArray[np.float64], device: torch.device | str = "cpu") -> dict[str, Fixed]:
    """`centre disc`, `centre square`, `whole frame` and `truth prior`.

    `prior` [side, side] is the sum of the truths of all clips, including the scored one.
    """
    side = len(prior)
    offset = np.abs(np.arange(side) - (side - 1) / 2)
    disc = -np.hypot(offset[:, None], offset)
    square = -np.maximum(offset[:, None], offset)
    half_square = square >= -(int(side / np.sqrt(2)) / 2)
    return {
        "centre disc": Fixed(disc, _hotter_half(disc), device),
        "centre square": Fixed(square, half_square, device),
        "whole frame": Fixed(np.zeros((side, side)), np.ones((side, side), np.bool_), device),
        "truth prior": Fixed(prior, _hotter_half(prior), device),
    }


def _hotter_half(heat: NDArray[np.float64]) -> NDArray[np.bool_]:
    hotter: NDArray[np.bool_] = heat >= np.sort(heat, axis=None)[median_rank(heat.size)]
    return hotter


def ceiling(truths: Truths) -> list[ClipScore]:
    """The best score of any mask of half the picture; of an odd number of pixels the larger half."""
    best = truths.best_ciou(truths.size - median_rank(truths.size)).tolist()
    there = (truths.pixels > 0).tolist()
    return [ClipScore(ciou=ciou, area_ciou=float(any_), hit=any_) for ciou, any_ in zip(best, there, strict=True)]


def random_cells(clip_id: str) -> NDArray[np.float32]:
    """A [7, 7] map of noise that depends on the id alone."""
    seed = int.from_bytes(hashlib.sha256(clip_id.encode("utf-8", "surrogateescape")).digest()[:8], "little")
    return np.random.default_rng(seed).random((_RANDOM_CELLS, _RANDOM_CELLS), np.float32)
