"""`python -m tests.bench [--json out.json]`: what takes how long on this machine, as medians of repeated runs."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

import numpy as np

from avloc.annotations import published_boxes
from avloc.engine import ClipCells
from avloc.evaluate.score import Clip, score_protocols
from avloc.protocols import PROTOCOLS

SCORED = ("avloc", "ezvsl", "lvs", "sspl")
MAPS = ("av", "object", "fused")


def made_up_clips(count: int) -> list[Clip]:
    """VGG-SS's boxes with maps of noise."""
    draws = np.random.default_rng(0)
    known = sorted(published_boxes().by_id.items())[:count]
    return [
        Clip(
            cells=ClipCells(
                id=clip_id,
                boxes=annotation.boxes,
                maps={name: draws.random((7, 7), np.float32) for name in ("av", "object")},
            )
        )
        for clip_id, annotation in known
    ]


def scoring(clips: int, repeats: int) -> dict[str, object]:
    """Maps of VGG-SS's clips scored under four protocols, networks left out."""
    made = made_up_clips(clips)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        score_protocols(made, [PROTOCOLS[name] for name in SCORED], "union", MAPS)
        seconds.append(time.perf_counter() - start)
    return {
        "row": "scoring",
        "what": f"{len(made)} clips x {len(MAPS)} maps x {len(SCORED)} protocols, baselines and intervals included",
        "median_s": round(statistics.median(seconds), 2),
        "all_s": [round(value, 2) for value in seconds],
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--clips", type=int, default=5158)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rows = [scoring(given.clips, given.repeats)]
    for row in rows:
        print(json.dumps(row))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
