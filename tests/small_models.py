"""A model with random weights, small enough to load and run in a moment."""

from __future__ import annotations

from pathlib import Path

import torch

from avloc.checkpoint import save_model
from avloc.config import ModelConfig
from avloc.engine import Engine

SMALL = ModelConfig(dim=16, vision_trunk="shufflenet_v2_x0_5", audio_trunk="shufflenet_v2_x0_5", frame=64)


def save_small(path: Path, config: ModelConfig = SMALL, *, seed: int = 0, card: dict | None = None) -> Path:
    """Write a small random model file; another seed is another model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = Engine(config, torch.device("cpu")).model.state_dict()
    save_model(path, config, state, {"name": path.stem} if card is None else card)
    return path
