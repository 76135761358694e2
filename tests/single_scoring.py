"""Scores of one clip at a time in NumPy, the slow twin of `avloc.engine.scoring`, which scores blocks on a device."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from avloc.engine import ClipCells, truth_map
from avloc.heatmap import resize
from avloc.metrics import ClipScore, intersection_over_union
from avloc.protocols import Protocol

RANGES = {"av": (-1.0, 2.0), "object": (0.0, 2.5)}


def grown(cells: np.ndarray, protocol: Protocol) -> np.ndarray:
    """A map of cells at the protocol's side."""
    return resize(torch.from_numpy(cells)[None], (protocol.side,) * 2, protocol.resize)[0].numpy()


def min_max(grid: np.ndarray, flat: str) -> np.ndarray:
    """A map scaled to [0, 1]."""
    span = grid.max() - grid.min()
    if span == 0:
        return np.full_like(grid, 0.0 if flat == "zeros" else np.nan)
    return (grid - grid.min()) / span


@np.errstate(invalid="ignore")  # infinities
def heat(maps: Mapping[str, np.ndarray], weights: Mapping[str, float], protocol: Protocol) -> np.ndarray:
    """The heat map of one clip: of one map, or of the weighted sum of several."""
    flat, side = protocol.flat, (protocol.side,) * 2
    if len(weights) > 1 and protocol.fusion == "fixed" and set(weights) <= set(RANGES):
        total = np.zeros(side, np.float32)
        for name, weight in weights.items():
            low, span = RANGES[name]
            share = np.float32(weight / sum(weights.values()))
            total += share * grown((maps[name] - np.float32(low)) / np.float32(span), protocol)
        return min_max(total, flat)
    heats = []
    for name in weights:
        if name == "detr" and name not in maps:
            heats.append(np.full(side, 0.0 if protocol.no_query == "zeros" else np.nan, np.float32))
        elif np.ptp(maps[name]) == 0:
            heats.append(np.full(side, 0.0 if flat == "zeros" else np.nan, np.float32))
        else:
            heats.append(min_max(grown(maps[name], protocol), flat))
    terms = [np.float32(weight) * one for weight, one in zip(weights.values(), heats, strict=True)]
    return heats[0] if len(heats) == 1 else min_max(sum(terms[1:], terms[0]), flat)


def ciou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Consensus intersection over union of one mask and one truth."""
    whole = truth.sum(dtype=np.float64) + (mask & (truth == 0)).sum()
    return float(truth[mask].sum(dtype=np.float64) / whole) if whole else 0.0


def score(cells: ClipCells, weights: Mapping[str, float], protocol: Protocol, box_rule: str) -> ClipScore:
    """The scores of one clip."""
    grid, truth = heat(cells.maps, weights, protocol), truth_map(cells, protocol, box_rule)
    pixels, wanted = grid.size, int((truth > 0).sum())
    ordered = np.full(pixels, np.nan, np.float32) if np.isnan(grid).any() else np.sort(grid, axis=None)
    median = ordered[pixels // 2]
    limits = [median if protocol.threshold == "median" else 0.5, ordered[pixels - wanted] if wanted else median]
    masks = [grid >= limit if protocol.comparison == ">=" else grid > limit for limit in limits]
    peak = int(grid.argmax())
    return ClipScore(
        ciou=ciou(masks[0], truth),
        area_ciou=ciou(masks[1], truth),
        hit=bool(grid.flat[peak] > 0 and truth.flat[peak] > 0),
        iou=float(intersection_over_union(masks[0], truth > 0)) if cells.mask else float("nan"),
    )
