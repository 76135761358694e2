"""A small training configuration, and comparison of two runs."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from avloc.config import ModelConfig, TrainConfig
from tests.world import HINT_WIDTH

SMALL = ModelConfig(dim=HINT_WIDTH, vision_trunk="shufflenet_v2_x0_5", audio_trunk="shufflenet_v2_x0_5", frame=64)
CONFIG = TrainConfig(model=SMALL, init="random", batch=4, epochs=2, workers=0, precision="fp32")
SMALL_FLAGS = [
    *("--dim", str(HINT_WIDTH), "--vision-trunk", "shufflenet_v2_x0_5", "--audio-trunk", "shufflenet_v2_x0_5"),
    *("--init", "random", "--batch", "4", "--set", "model.frame=64", "--set", "workers=1", "--set", "precision=fp32"),
]


def changed(config: TrainConfig, **more) -> TrainConfig:
    return TrainConfig(**{**vars(config), **more})


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def same_run(one: Path, other: Path) -> bool:
    """Weights, optimiser and log, bit for bit."""
    pairs = [(tensors(one / name), tensors(other / name)) for name in ("model.safetensors", "last.safetensors")]
    weights = all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
        for mine, theirs in pairs
    )
    states = [torch.load(folder / "trainer-state.pt", weights_only=True) for folder in (one, other)]
    moments = [
        torch.equal(value, states[1]["optimiser"]["state"][index][key])
        for index, entry in states[0]["optimiser"]["state"].items()
        for key, value in entry.items()
    ]
    logs = [(folder / "metrics.jsonl").read_text() for folder in (one, other)]
    return weights and all(moments) and logs[0] == logs[1] and states[0]["progress"] == states[1]["progress"]
