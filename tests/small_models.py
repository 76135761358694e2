"""Models with random weights, as small as their method allows."""

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
"""Method -> settings of the smallest model. SSPL and SACL have a fixed frame size, and a fixed network size but for
`narrowed`."""


@contextmanager
def narrowed() -> Iterator[None]:
    """Context in which hidden layers of VGGish, of SSPL's head and of VGG16 are narrow."""
    from torchvision.models import vgg

    widths = {"D": [8, 8, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 512, "M"]}
    with (
        patch("avloc.networks.vggish._HIDDEN", 16),
        patch("avloc.methods.sspl._WIDE", 32),
        patch.dict(vgg.cfgs, widths),
    ):
        yield


def save_small(path: Path, config: ModelConfig = SMALL, *, seed: int = 0, card: dict | None = None) -> Path:
    """Write a small model file with random weights of `seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = Engine(config, torch.device("cpu")).model.state_dict()
    save_model(path, config, state, {"name": path.stem} if card is None else card)
    return path
