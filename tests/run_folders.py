"""Comparing run folders."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open


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
