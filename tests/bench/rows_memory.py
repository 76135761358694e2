"""What the contrastive loss takes as the batch grows."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from tests.bench.contrastive_memory import CELLS
from tests.bench.timing import AVLOC, REFERENCE, Given, Lap, Row, compared, python, spread, walls

_DIM = 512
_PLAIN_COPIES = 3
"""Arrays of all pairs of cells that the plain loss may hold at once: two were measured, and a reserve."""


def contrastive_memory(given: Given, _work: Path) -> list[Row]:
    """Forward and backward, each batch and each side in a process of its own."""
    sizes = (16, 32) if given.quick else (128, 256, 512, 1024, 2048, 4096)
    return [_row(given, given.batch or size) for size in (sizes if given.batch is None else sizes[:1])]


def _row(given: Given, batch: int) -> Row:
    name, cells = f"contrastive memory, {batch}", CELLS[0] * CELLS[1]
    what = f"contrastive loss, forward and backward, batch of {batch}, {cells} cells, {_DIM} dimensions"
    needs_mb, has_mb = _PLAIN_COPIES * batch**2 * cells * 4 / 2**20, _available_mb()
    sides = (AVLOC,) if needs_mb > 0.8 * has_mb else (REFERENCE, AVLOC)
    told: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(given.repeats):
        for side in sides:
            out = python("-m", "tests.bench.contrastive_memory", side, batch, _DIM).stdout
            told[side].append(json.loads(out))
    grown = {side: statistics.median(one["grown_mb"] for one in own) for side, own in told.items()}
    laps = {side: [Lap(one["wall_s"], one["processor_s"]) for one in own] for side, own in told.items()}
    facts = {"grown_mb": {side: round(value, 1) for side, value in grown.items()}}
    if len(sides) == 1:
        why = f"the plain loss is left out: about {needs_mb:.0f} MiB, {has_mb:.0f} are free"
        only = {REFERENCE: None, AVLOC: spread(walls(laps[AVLOC])), "ratio": None}
        return {"row": name, "what": f"{what}; {why}", "unit": "s", **only, **facts}
    return compared(name, what, laps, **facts, grown_ratio=round(grown[REFERENCE] / max(grown[AVLOC], 0.1), 2))


def _available_mb() -> float:
    """Memory that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1024
