"""Models with random weights, small enough to load and run in a moment, as far as their method allows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

from avloc.checkpoint import save_model
from avloc.config import ModelConfig
from avloc.engine import Engine

SMALL = ModelConfig(dim=16, vision_trunk="shufflenet_v2_x0_5", audio_trunk="shufflenet_v2_x0_5", frame=64)

_SMALLEST = ("init=random", "precision=fp32")
_SHUFFLES = ("model.dim=16", "model.vision_trunk=shufflenet_v2_x0_5", "model.audio_trunk=shufflenet_v2_x0_5")
TINY_METHODS = {
    "avc": (*_SMALLEST, *_SHUFFLES, "model.frame=64"),
    "ezvsl": (*_SMALLEST, *_SHUFFLES, "model.frame=64"),
    "lvs": (*_SMALLEST, "model.frame=64", "model.seconds=1"),
    "sspl": (*_SMALLEST, "model.seconds=1"),
    "sacl": (*_SMALLEST, "model.seconds=1", "sacl.grid=2"),
}
"""Method -> the settings that make it as small as it can be: SSPL and SACL have one size of frames,
and of networks but for what `narrowed` does."""


@contextmanager
def narrowed() -> Iterator[None]:
    """Within it the hidden layers of VGGish and of SSPL's head, most of what these two store, are few numbers wide."""
    with patch("avloc.networks.vggish._HIDDEN", 16), patch("avloc.methods.sspl._WIDE", 32):
        yield


def save_small(path: Path, config: ModelConfig = SMALL, *, seed: int = 0, card: dict | None = None) -> Path:
    """Write a small random model file; another seed is another model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = Engine(config, torch.device("cpu")).model.state_dict()
    save_model(path, config, state, {"name": path.stem} if card is None else card)
    return path
