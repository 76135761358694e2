"""Benchmark rows for time and memory of the contrastive loss over the batch size."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from tests.bench.contrastive_memory import CELLS
from tests.bench.timing import AVLOC, REFERENCE, Lap, Options, Row, compared, python, spread, walls

_DIM = 512
_PLAIN_COPIES = 3
"""Arrays of all pairs of cells that the reference loss may hold at once: two were measured, plus a margin."""


def contrastive_memory(options: Options, _work: Path) -> list[Row]:
    """Forward and backward pass, each batch size and each side in a separate process."""
    sizes = (16, 32) if options.quick else (128, 256, 512, 1024, 2048, 4096)
    return [_row(options, options.batch or size) for size in (sizes if options.batch is None else sizes[:1])]


def _row(options: Options, batch: int) -> Row:
    name, cells = f"contrastive memory, {batch}", CELLS[0] * CELLS[1]
    what = f"contrastive loss, forward and backward, batch of {batch}, {cells} cells, {_DIM} dimensions"
    needs_mb, has_mb = _PLAIN_COPIES * batch**2 * cells * 4 / 2**20, _available_mb()
    sides = (AVLOC,) if needs_mb > 0.8 * has_mb else (REFERENCE, AVLOC)
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(options.repeats):
        for side in sides:
            out = python("-m", "tests.bench.contrastive_memory", side, batch, _DIM).stdout
            measured[side].append(json.loads(out))
    grown = {side: statistics.median(one["grown_mb"] for one in own) for side, own in measured.items()}
    laps = {side: [Lap(one["wall_s"], one["processor_s"]) for one in own] for side, own in measured.items()}
    facts = {"grown_mb": {side: round(value, 1) for side, value in grown.items()}}
    if len(sides) == 1:
        why = f"the plain loss is left out: about {needs_mb:.0f} MiB, {has_mb:.0f} are free"
        only = {REFERENCE: None, AVLOC: spread(walls(laps[AVLOC])), "ratio": None}
        return {"row": name, "what": f"{what}; {why}", "unit": "s", **only, **facts}
    return compared(name, what, laps, **facts, grown_ratio=round(grown[REFERENCE] / max(grown[AVLOC], 0.1), 2))


def _available_mb() -> float:
    """Memory in MiB that is available without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1024
