"""AVE weights and features of the reference numbers, generated from their seed: see `drawing`."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np

from tests.parity.drawing import HERE

SECONDS = 10
EVENTS = 28


def weights(seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Weights by file stem. One-dimensional tensors are biases, all others matrices."""
    files = json.loads((HERE / "ave_keys.json").read_text())
    streams = itertools.count(seed * 100_003)
    return {
        Path(file).stem: {key: _weight(shape, next(streams)) for key, shape in named_shapes}
        for file, named_shapes in files.items()
    }


def _weight(shape: list[int], stream: int) -> np.ndarray:
    normal = np.random.RandomState(stream).standard_normal(shape)
    spread = 0.05 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[1:]))
    return (normal * spread).astype(np.float32)


def clips(seed: int, batch: int) -> dict[str, np.ndarray]:
    """Features [B, 10, 7, 7, 512] and [B, 10, 128], the class of each second [B, 10] and of each clip [B]."""
    random = np.random.RandomState(seed)
    audio = _positive(random, (batch, SECONDS, 128))
    visual = _positive(random, (batch, SECONDS, 7, 7, 512))
    labels = np.full((batch, SECONDS), EVENTS)
    events = np.empty(batch, np.int64)
    for clip in range(batch):
        events[clip] = random.randint(0, EVENTS)
        start, length = random.randint(0, 5), random.randint(2, 6)
        labels[clip, start : start + length] = events[clip]
    return {"audio": audio, "visual": visual, "labels": labels, "events": events}


def pairs(seed: int, clips: int) -> dict[str, np.ndarray]:
    """Visual features [n, 10, 512], audio features [n, 10, 128] and `event` [n, 10] bool: one run of 2 to 7 seconds."""
    random = np.random.RandomState(seed)
    visual, audio = _positive(random, (clips, SECONDS, 512)), _positive(random, (clips, SECONDS, 128))
    event = np.zeros((clips, SECONDS), bool)
    for clip in range(clips):
        length = random.randint(2, 8)
        start = random.randint(0, SECONDS + 1 - length)
        event[clip, start : start + length] = True
    return {"visual": visual, "audio": audio, "event": event}


def _positive(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
    return np.maximum(random.standard_normal(shape), 0).astype(np.float32)
