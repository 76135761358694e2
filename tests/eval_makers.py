"""Test stores, and synthetic reports of `avloc eval` without a model or pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from avloc.config import TrainConfig, to_dict
from avloc.evaluate.records import ClipRow, EvalReport, MapScores
from avloc.metrics import ClipScore, interval, summarise
from avloc.protocols import Protocol
from avloc.registry import StoreSpec
from avloc.store import Clip, StoreHeader, StoreWriter
from tests.synthetic_scenes import RATE, SECONDS, SIDE, Scene

SPEC = StoreSpec(seconds=SECONDS, rate=RATE)


def card(seed: int = 10, *, epoch: int = 100, selection: str = "last epoch", **more) -> dict[str, object]:
    """A model card of a run with the paper's settings and training list and both hints."""
    config = {**to_dict(TrainConfig(seed=seed)), "init": "resnet18-f37072fd.pth"}
    values = {
        "version": "0",
        "config": config,
        "precision": "fp32",
        "selection": selection,
        "hints": {"panns": {"teacher": "panns"}, "detr": {"teacher": "detr"}},
        "init": {"weights": "resnet18-f37072fd.pth", "verified": True},
        "clips": 10_000,
        "training_list": "flickr_10k_random",
        "training_list_clips": 10_000,
        "epoch": epoch,
    }
    return values | more


def report(name: str, scores: Mapping[str, Sequence[float]], ids: Sequence[str] = (), **more) -> EvalReport:
    """A report of one model; `scores` holds the cIoU of each clip for each kind of map."""
    count = len(next(iter(scores.values())))
    ids = list(ids) or [f"clip{index:04d}" for index in range(count)]
    rows = [
        ClipRow(
            id=clip_id,
            label="",
            flags=(),
            area=0.3,
            size="large",
            scores={kind: ClipScore(ciou=own[row], area_ciou=own[row], hit=True) for kind, own in scores.items()},
        )
        for row, clip_id in enumerate(ids)
    ]
    values = {
        "testset": "flickr",
        "model": name,
        "model_hash": f"hash of {name}",
        "model_card": card(),
        "data_hash": "data",
        "protocol": Protocol(),
        "box_rule": "consensus",
        "n_expected": count,
        "missing": {},
        "maps": {kind: _map_scores(own) for kind, own in scores.items()},
        "baselines": {},
        "sweep": {},
        "not_run": {},
        "clips": sorted(rows, key=lambda row: row.id),
    }
    return EvalReport(**values | more)


def _map_scores(scores: Sequence[float]) -> MapScores:
    overall = summarise(scores)
    return MapScores(overall=overall, interval=interval(scores), area=overall, pointing=1.0, sizes={})


def to_clip(scene: Scene, **changes) -> Clip:
    jpeg = io.BytesIO()
    scene.picture.save(jpeg, format="JPEG", quality=92)
    sound = np.round(scene.waveform * 32_767).astype(np.int16)
    values = {"id": scene.name, "picture": jpeg.getvalue(), "sound": sound, "frame_hw": (SIDE, SIDE)}
    return Clip(**values | {"boxes": np.array([scene.box])} | changes)


def write(folder: Path, clips: Sequence[Clip], *, expected=None, shard_clips: int = 512, **header) -> Path:
    expected = tuple(clip.id for clip in clips) if expected is None else tuple(expected)
    about = StoreHeader(spec=header.pop("spec", SPEC), kind="test", expected=expected, **header)
    with StoreWriter(folder, about, shard_clips=shard_clips) as writer:
        for clip in clips:
            writer.add(clip)
    return folder
