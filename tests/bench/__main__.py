"""`python -m tests.bench [--json out.json]`: what takes how long on this machine, as medians of repeated runs."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from avloc.annotations import published_boxes
from avloc.engine import ClipCells
from avloc.evaluate.score import Clip, score_protocols
from avloc.localize.video import write_video
from avloc.protocols import PROTOCOLS
from tests.media_makers import make_video

SCORED = ("avloc", "ezvsl", "lvs", "sspl")
MAPS = ("av", "object", "fused")
ROWS = ("scoring", "overlay video")


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


class FakeMapper:
    """A bump that wanders: no model, so that the row shows what everything else costs."""

    seconds, rate = 3.0, 22_050

    def cells_at(self, frame, waveform, rate):
        down, across = np.mgrid[0:14, 0:14]
        place = 7 + 5 * float(waveform[:100].mean())
        bump = np.exp(-((down - place) ** 2 + (across - 9) ** 2) / 6)
        return bump.astype(np.float32), False


def made_up_video(path: Path, seconds: float) -> Path:
    """640 x 360 at 30 pictures a second: a texture that drifts under grain, and stereo noise."""
    draws = np.random.default_rng(0)
    small = Image.fromarray(draws.integers(0, 256, (60, 100, 3), np.uint8))
    texture = np.asarray(small.resize((1000, 600), Image.Resampling.BICUBIC), np.int16)

    def picture(time_s: float) -> np.ndarray:
        x, y = int(180 + 170 * np.sin(time_s)), int(120 + 110 * np.cos(0.7 * time_s))
        grain = draws.integers(-4, 5, (360, 640, 1), np.int16)
        return np.clip(texture[y : y + 360, x : x + 640] + grain, 0, 255).astype(np.uint8)

    sound = (0.1 * draws.standard_normal((2, round(seconds * 44_100)))).astype(np.float32)
    return make_video(
        path,
        seconds=seconds,
        fps=30,
        size=(640, 360),
        frame_fn=picture,
        sound=sound,
        rate=44_100,
        video_codec="libx264",
    )


def overlay_video(seconds: float, repeats: int) -> dict[str, object]:
    """A video of 360p to an overlay video, a map every half second, the model left out."""
    walls, processors = [], []
    with tempfile.TemporaryDirectory() as folder:
        source = made_up_video(Path(folder) / "in.mp4", seconds)
        write_video(source, Path(folder) / "out.mp4", FakeMapper(), end=1.0)  # imports and caches
        for _ in range(repeats):
            wall, processor = time.perf_counter(), time.process_time()
            summary = write_video(source, Path(folder) / "out.mp4", FakeMapper())
            walls.append(time.perf_counter() - wall)
            processors.append(time.process_time() - processor)
    return {
        "row": "overlay video",
        "what": f"{summary.frames} pictures of 640 x 360, {summary.maps} maps, without the model",
        "median_s": round(statistics.median(walls), 2),
        "all_s": [round(value, 2) for value in walls],
        "median_processor_s": round(statistics.median(processors), 2),
        "processor_ms_per_picture": round(1e3 * statistics.median(processors) / summary.frames, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--clips", type=int, default=5158)
    parser.add_argument("--video-seconds", type=float, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--row", choices=ROWS, action="append", help="only this one; may repeat")
    given = parser.parse_args()
    measure = {
        "scoring": lambda: scoring(given.clips, given.repeats),
        "overlay video": lambda: overlay_video(given.video_seconds, given.repeats),
    }
    rows = [measure[name]() for name in given.row or ROWS]
    for row in rows:
        print(json.dumps(row))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
