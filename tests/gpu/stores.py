"""Synthetic stores, written without the packages that decode media."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from avloc.media.pictures import encode_jpeg, shrink
from avloc.registry import METHOD_SPECS
from avloc.store import Clip, HintStamp, HintWriter, StoreHeader, StoreWriter
from tests.bench.material import picture, sound

_DISTINCT = 64
_SIDE, _QUALITY = 256, 90
"""Of the JPEG files that `avloc prepare` writes."""


def training_store(folder: Path, clips: int, dim: int) -> Path:
    """Write clips like those of videos of 640 x 360, of which 64 differ, with hints of both teachers."""
    if (folder / "store.json").is_file():
        return folder
    spec = METHOD_SPECS["avc"].store
    frames = [shrink(picture(seed), _SIDE) for seed in range(min(clips, _DISTINCT))]
    pictures = [encode_jpeg(frame, quality=_QUALITY) for frame in frames]
    sounds = [np.round(sound(seed, spec.seconds, spec.rate) * 32_767).astype(np.int16) for seed in range(len(pictures))]
    ids = [f"made{number:06d}" for number in range(clips)]
    with StoreWriter(folder, StoreHeader(spec=replace(spec, shorter_side=_SIDE))) as writer:
        for number, clip_id in enumerate(ids):
            which = number % len(pictures)
            size = frames[which].shape[:2]
            writer.add(Clip(id=clip_id, picture=pictures[which], sound=sounds[which], frame_hw=size))
    draws = np.random.default_rng(0)
    for teacher, shape in (("panns", (dim,)), ("detr", (25, 25))):
        values = draws.random((_DISTINCT, *shape), np.float32)
        with HintWriter(folder, HintStamp(teacher=teacher, shape=shape)) as hints:
            for number, clip_id in enumerate(ids):
                hints.add(clip_id, values[number % _DISTINCT])
    return folder
