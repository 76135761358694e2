"""Maps of cells and a protocol to scores; validation during training and `avloc eval` share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avloc.engine.inference import ClipCells
from avloc.heatmap import area_rank, cut, fuse, heat_maps, median_rank, ranked, resize, stretch
from avloc.media import decode_mask
from avloc.metrics import ClipScore, Truth, ground_truth, intersection_over_union, mask_truth
from avloc.protocols import Protocol

_RANGES = {"av": (-1.0, 2.0), "object": (0.0, 2.5)}
"""Map -> lowest value and span; DETR's attention has none that all clips share."""


def kinds_of(protocol: Protocol, names: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """The weights behind each kind of map: `av`, `object`, `detr`, and by the protocol `fused` and `fused-detr`."""
    mixed = {"fused": protocol.fused, "fused-detr": protocol.fused_detr}
    return {name: mixed.get(name, {name: 1.0}) for name in names}


def truth_of(cells: ClipCells, protocol: Protocol, box_rule: str) -> Truth:
    """What the protocol takes for the truth of a clip.

    Args:
        cells: with boxes or a mask.
        protocol: which boxes count, and on which square.
        box_rule: how boxes become a map (`avloc.metrics.ground_truth`); a mask needs no rule.
    """
    if cells.mask:
        return Truth(mask_truth(decode_mask(cells.mask), protocol.side))
    boxes = cells.boxes[:1] if protocol.boxes == "first" else cells.boxes
    return Truth(ground_truth(boxes, box_rule, protocol.side))


class Heats:
    """Heat maps of one clip, each made once for all protocols that resize alike."""

    def __init__(self, cells: ClipCells) -> None:
        self.cells = cells
        self._made: dict[tuple[object, ...], Tensor] = {}

    def heat(self, weights: Mapping[str, float], protocol: Protocol) -> NDArray[np.float32]:
        """[side, side] heat map of one source, or of several by their weights.

        Raises:
            KeyError: there is no such map; only `detr` may be absent.
        """
        if len(weights) > 1 and protocol.fusion == "fixed" and set(weights) <= set(_RANGES):
            heat = stretch(self.in_fixed_range(weights, protocol)[None], protocol.flat)
        else:
            maps = [self._single(name, protocol) for name in weights]
            heat = maps[0] if len(maps) == 1 else fuse(maps, list(weights.values()), protocol.flat)
        values: NDArray[np.float32] = heat[0].numpy()
        return values

    def in_fixed_range(self, weights: Mapping[str, float], protocol: Protocol) -> Tensor:
        """[side, side] weighted mean of maps on scales that all clips share.

        A cosine c counts as (c + 1) / 2, an activation x as x / 2.5. Source: SLAVC `test.py`.
        """
        total = torch.zeros(protocol.side, protocol.side)
        for name, weight in weights.items():
            low, span = _RANGES[name]
            scaled = (torch.from_numpy(self.cells.maps[name]) - low) / span
            total += weight / sum(weights.values()) * resize(scaled[None], (protocol.side,) * 2, protocol.resize)[0]
        return total

    def _single(self, name: str, protocol: Protocol) -> Tensor:
        size = (protocol.side, protocol.side)
        if name == "detr" and name not in self.cells.maps:  # DETR was sure of nothing
            return torch.full((1, *size), 0.0 if protocol.no_query == "zeros" else float("nan"))
        key = (name, protocol.side, protocol.resize, protocol.flat)
        if key not in self._made:
            cells = torch.from_numpy(self.cells.maps[name])[None]
            self._made[key] = heat_maps(cells, size, protocol.resize, protocol.flat)
        return self._made[key]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A heat map under a protocol's threshold."""

    mask: NDArray[np.bool_]
    """[side, side] pixels inside."""
    score: ClipScore


def score_heat(heat: NDArray[np.float32], truth: Truth, protocol: Protocol, *, is_mask: bool = False) -> Cut:
    """Cut one heat map [side, side] by the protocol and compare it with the truth.

    Args:
        heat: in [0, 1]; the threshold of the `half` rule is taken literally.
        truth: of the same size.
        protocol: threshold and comparison.
        is_mask: whether the truth is a mask, which has a plain IoU too.
    """
    ranks = [median_rank(heat.size), area_rank(heat.size, truth.pixels)]
    median, at_area = ranked(heat, ranks)
    mask = cut(heat, median if protocol.threshold == "median" else 0.5, protocol.comparison)
    peak = int(heat.argmax())
    return Cut(
        mask=mask,
        score=ClipScore(
            ciou=truth.ciou(mask),
            area_ciou=truth.ciou(cut(heat, at_area, protocol.comparison)),
            hit=bool(heat.flat[peak] > 0) and truth.holds(peak),
            iou=float(intersection_over_union(mask[None], (truth.map > 0)[None])[0]) if is_mask else float("nan"),
        ),
    )
