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
    """The same map [side, side] for every picture; its mask, the values of `least` or more, is the same too.

    Pixels are compared by the ranks of their values, which single precision holds.
    """

    def __init__(self, heat: NDArray[np.float64], least: float, device: torch.device | str = "cpu") -> None:
        self.heat, self.mask = heat, heat >= least
        levels, ranks = np.unique(heat, return_inverse=True)
        self._least, self._sorted = int(levels.searchsorted(least)), np.sort(ranks, axis=None)
        self._ranks = torch.from_numpy(ranks.ravel().astype(np.float32)).to(device)
        self._peak = self._ranks.argmax() if len(levels) > 1 else torch.tensor(-1, device=device)

    def score(self, truths: Truths, comparison: str) -> list[ClipScore]:
        """Score the mask against truths; a constant map has no hottest pixels, so that its mask is taken instead."""
        count = len(truths.pixels)
        limits = np.full((count, 2), self._least)
        if self._sorted[-1]:
            limits[:, 1] = self._sorted[area_ranks(truths.size, truths.pixels)] + (comparison == ">")
        masks = threshold_masks(self._ranks.expand(count, -1), torch.from_numpy(limits).to(self._ranks))
        return truths.scores(masks, self._peak.expand(count))


def fixed_baselines(prior: NDArray[np.float64], device: torch.device | str = "cpu") -> dict[str, Fixed]:
    """`centre disc`, `centre square`, `whole frame` and `truth prior`.

    `prior` [side, side] is the sum of the truths of all clips, including the scored one.
    """
    side = len(prior)
    offset = np.abs(np.arange(side) - (side - 1) / 2)
    disc = -np.hypot(offset[:, None], offset)
    square = -np.maximum(offset[:, None], offset)
    return {
        "centre disc": Fixed(disc, _median(disc), device),
        "centre square": Fixed(square, -int(side / np.sqrt(2)) / 2, device),
        "whole frame": Fixed(np.zeros((side, side)), 0.0, device),
        "truth prior": Fixed(prior, _median(prior), device),
    }


def _median(heat: NDArray[np.float64]) -> float:
    return float(np.sort(heat, axis=None)[median_rank(heat.size)])


def ceiling(truths: Truths) -> list[ClipScore]:
    """The best score of any mask of half the picture; of an odd number of pixels the larger half."""
    best = truths.best_ciou(truths.size - median_rank(truths.size)).tolist()
    there = (truths.pixels > 0).tolist()
    return [ClipScore(ciou=ciou, area_ciou=float(any_), hit=any_) for ciou, any_ in zip(best, there, strict=True)]


def random_cells(clip_id: str) -> NDArray[np.float32]:
    """A [7, 7] map of noise that depends on the id alone."""
    seed = int.from_bytes(hashlib.sha256(clip_id.encode("utf-8", "surrogateescape")).digest()[:8], "little")
    return np.random.default_rng(seed).random((_RANDOM_CELLS, _RANDOM_CELLS), np.float32)
