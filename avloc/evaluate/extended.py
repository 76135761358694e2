"""Extended sets: beside clips with their own sounds, pairs of a picture and a sound that belongs to nothing in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from avloc.engine import ClipCells, kinds_of
from avloc.evaluate.records import ClipRow
from avloc.heatmap import resize
from avloc.metrics import ExtendedScores, confidence, extended_scores
from avloc.protocols import Protocol

_OBJECT_RANGE = 2.5
"""What SLAVC divides the object prior by."""


def extended(
    rows: Sequence[ClipRow],
    sounding: Sequence[ClipCells],
    silent: Sequence[ClipCells],
    protocol: Protocol,
    kinds: Sequence[str],
) -> dict[str, ExtendedScores]:
    """Scores of each kind of map that has a fixed range; DETR's attention has none and is left out.

    Args:
        rows: cIoU of the sounding clips.
        sounding: their maps, in any order.
        silent: maps of the pairs.
        protocol: resize, side and the weights of the fused map.
        kinds: of map.

    Source: SLAVC `test.py`: a cosine c counts as (c + 1) / 2, an activation x as x / 2.5, fused by their weights.
    """
    by_id = {cells.id: cells for cells in sounding}
    weights = {name: parts for name, parts in kinds_of(protocol, kinds).items() if set(parts) <= {"av", "object"}}
    out = {}
    for name, parts in weights.items():
        cious = [row.scores[name].ciou for row in rows] + [float("nan")] * len(silent)
        ordered = [*(by_id[row.id] for row in rows), *silent]
        heights = [confidence(_in_fixed_range(cells, parts, protocol)) for cells in ordered]
        out[name] = extended_scores(np.array(heights), np.array(cious))
    return out


def _in_fixed_range(cells: ClipCells, parts: Mapping[str, float], protocol: Protocol) -> NDArray[np.float32]:
    total = torch.zeros(protocol.side, protocol.side)
    for name, weight in parts.items():
        values = torch.from_numpy(cells.maps[name])
        scaled = (values + 1) / 2 if name == "av" else values / _OBJECT_RANGE
        total += weight / sum(parts.values()) * resize(scaled[None], (protocol.side,) * 2, protocol.resize)[0]
    result: NDArray[np.float32] = total.numpy()
    return result
