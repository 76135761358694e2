"""Extended sets: beside clips with their own sounds, pairs of a picture and a sound that belongs to nothing in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avloc.engine import ClipCells, Heats, kinds_of
from avloc.evaluate.records import ClipRow
from avloc.metrics import ExtendedScores, confidence, extended_scores
from avloc.protocols import Protocol


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

    Source: SLAVC `test.py`.
    """
    by_id = {cells.id: cells for cells in sounding}
    weights = {name: parts for name, parts in kinds_of(protocol, kinds).items() if set(parts) <= {"av", "object"}}
    out = {}
    for name, parts in weights.items():
        cious = [row.scores[name].ciou for row in rows] + [float("nan")] * len(silent)
        ordered = [*(by_id[row.id] for row in rows), *silent]
        heights = [confidence(Heats(cells).in_fixed_range(parts, protocol).numpy()) for cells in ordered]
        out[name] = extended_scores(np.array(heights), np.array(cious))
    return out
