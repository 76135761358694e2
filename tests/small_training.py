"""A small training configuration."""

from __future__ import annotations

from avloc.config import TrainConfig
from tests.small_models import SMALL
from tests.synthetic_scenes import HINT_WIDTH

CONFIG = TrainConfig(model=SMALL, init="random", batch=4, epochs=2, workers=0, precision="fp32")
SMALL_FLAGS = [
    *("--dim", str(HINT_WIDTH), "--vision-trunk", "shufflenet_v2_x0_5", "--audio-trunk", "shufflenet_v2_x0_5"),
    *("--init", "random", "--batch", "4", "--set", "model.frame=64", "--set", "workers=1", "--set", "precision=fp32"),
]


def changed(config: TrainConfig, **more) -> TrainConfig:
    return TrainConfig(**{**vars(config), **more})
