"""Synthetic evaluations as the JSON data that `avloc.report` takes, with seeded random scores."""

from __future__ import annotations

import io
from collections import defaultdict
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from avloc.metrics import ClipScore, size_of, summarise
from avloc.protocols import PROTOCOLS
from avloc.report import ReportPicture
from tests.media_makers import disc

KINDS = ("av", "object", "detr", "fused")
LABELS = ("dog barking", "playing cello", "race car")
NAN = float("nan")
ABOUT = {"command": "avloc eval --testset made-up --report out", "version": "0.0", "python": "3.11"}


def make_clips(n: int = 12, *, kinds=KINDS, seed: int = 0, **changes) -> list[dict[str, Any]]:
    """`n` rows with ids clip-000, clip-001 ...; every third has the flag `still`."""
    rng = np.random.default_rng(seed)
    return [
        {
            "id": f"clip-{place:03}",
            "label": LABELS[place % len(LABELS)],
            "flags": ["still"] if place % 3 == 0 else [],
            "area": (area := float(rng.beta(1, 3))),
            "size": size_of(area),
            "scores": {kind: make_score(rng) for kind in kinds},
            **changes,
        }
        for place in range(n)
    ]


def make_score(rng: np.random.Generator) -> dict[str, Any]:
    ciou, area_ciou = rng.random(2).tolist()
    return asdict(ClipScore(ciou=ciou, area_ciou=area_ciou, hit=bool(rng.random() < 0.5)))


def make_map(cious: list[float]) -> dict[str, Any]:
    """`MapScores` as plain data."""
    summary = asdict(summarise(cious))
    ends = {name: [NAN, NAN] if len(cious) < 2 else [0.1, 0.9] for name in ("ciou_50", "auc", "mean_ciou")}
    sizes = {"small": asdict(summarise([])), "huge": summary}
    return {
        "overall": summary,
        "interval": ends,
        "area": summary,
        "pointing": NAN,
        "sizes": sizes,
        "miou": NAN,
        "max_f": NAN,
    }


def make_report(
    protocol: str = "avloc", *, model: str = "run-1", clips: list[dict[str, Any]] | None = None, **changes
) -> dict:
    """The result of `EvalReport.as_json()`."""
    clips = make_clips() if clips is None else clips
    cious = defaultdict(list)
    for clip in clips:
        for kind, score in clip["scores"].items():
            cious[kind].append(score["ciou"])
    return {
        "schema": "avloc.eval/2",
        "version": "0.0",
        "protocol": PROTOCOLS[protocol].as_json(),
        "n_scored": len(clips),
        "testset": "made-up",
        "model": model,
        "model_hash": "ab12" * 16,
        "model_card": {"training": {"list": "vggss_144k", "epochs": 3}, "selection": "last"},
        "data_hash": "cd34" * 16,
        "box_rule": "union",
        "n_expected": len(clips) + 2,
        "missing": {"gone-1": "not in the store", "gone-2": "no boxes"},
        "maps": {kind: make_map(values) for kind, values in cious.items()},
        "baselines": {"centre disc": make_map([0.2, 0.6]), "ceiling": make_map([0.4, 0.9])},
        "sweep": {"0.5 av + 0.5 object": make_map([0.1, 0.7])},
        "not_run": {"fused-detr": "weights absent"},
        "no_query": 3,
        "extended": {},
        "negatives": {},
        "sources": {},
        "cost": [],
        "priors": {"object": {"network": "resnet18", "sha256": "f37072fd"}},
        "clips": clips,
        **changes,
    }


def make_heat(rng: np.random.Generator, dtype=np.uint16) -> np.ndarray:
    """[56, 56] one Gaussian over the whole range of `dtype`."""
    y, x = np.mgrid[0:56, 0:56] / 55
    cx, cy = rng.random(2)
    bump = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.2)
    return np.round((bump - bump.min()) / np.ptp(bump) * np.iinfo(dtype).max).astype(dtype)


def encoded(rgb: np.ndarray, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, kind)
    return file.getvalue()


def make_picture(clip_id: str, *, models=("run-1",), kinds=KINDS, size=(96, 64), **changes) -> ReportPicture:
    rng = np.random.default_rng(sum(clip_id.encode("utf-8", "surrogatepass")))
    plain = {
        "id": clip_id,
        "jpeg": encoded(disc(size, (0.5, 0.5))),
        "size": size,
        "boxes": np.array([[0.3, 0.3, 0.7, 0.7]]),
        "heats": {model: {kind: make_heat(rng) for kind in kinds} for model in models},
    }
    return ReportPicture(**{**plain, **changes})
