"""The state from which an interrupted run is resumed: `trainer-state.pt` in the run folder."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import torch

from avloc.files import write_buffer
from avloc.weights.torch_files import load_plain

_NAME = "trainer-state.pt"


@dataclass
class RunState:
    """State of a run besides weights and optimiser."""

    step: int = 0
    """Optimiser steps done."""
    sums: dict[str, list[float]] = field(default_factory=dict)
    """Sum and count of each loss term in the current epoch."""
    best: float | None = None
    """Best validation score so far, the higher the better."""


def save_state(folder: Path, run_state: RunState, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Write the state; a run resumed from it is bit-equal to an uninterrupted one."""
    state = {"progress": vars(run_state), "model": model.state_dict(), "optimiser": optimiser.state_dict()}
    buffer = io.BytesIO()  # torch's own error does not say that the disk is full
    torch.save(state, buffer)
    write_buffer(folder / _NAME, buffer)


def load_state(folder: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> RunState:
    """Restore the stored state of model and optimiser, or start at step 0."""
    path = folder / _NAME
    if not path.is_file():
        return RunState()
    state = load_plain(path)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return RunState(**state["progress"])


def peek_state(folder: Path) -> RunState:
    """The state of an existing run, without its weights."""
    path = folder / _NAME
    return RunState(**load_plain(path)["progress"]) if path.is_file() else RunState()
