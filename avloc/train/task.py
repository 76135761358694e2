"""The interface between the training loop and a task: data, networks and loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from avloc.config import TrainConfig
from avloc.distributed import Peers
from avloc.methods.base import Group
from avloc.progress import Listener


def step_seed(seed: int, step: int) -> int:
    """Seed of the random numbers of one step of a run."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


class Task(Protocol):
    """Data, networks and loss of one run. The loop owns steps, optimiser, saving and interrupts.

    `MethodSpec.task` names the class, which is called with `TrainOptions`, `TrainConfig` and a listener.
    """

    config: TrainConfig
    device: torch.device
    precision: str
    clips: int
    """Number of training clips."""
    selection: str
    """How the epoch of `model.safetensors` is selected."""
    identity: dict[str, Any]
    """Data and selection, which must be the same when a run is resumed."""

    def start(self, listener: Listener) -> dict[str, Any]:
        """Build the networks and return the origin of their initial weights; a dry run may skip the weights.

        Raises:
            WeightsError: the weights of `init` are absent.
            UsageError: the model file of `init` does not exist, or has another configuration.
        """

    @property
    def model(self) -> nn.Module:
        """The networks, after `start`."""

    def groups(self) -> list[Group]:
        """The trainable parameters, by learning rate."""

    def share(self, peers: Peers) -> None:
        """Share batches with other processes: `load` gives this process's rows; gradients are of the whole batch."""

    def load(self, batches: Iterable[list[int]]) -> Iterable[Any]:
        """The data of each batch of positions."""

    def terms(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Unweighted loss terms of one batch.

        Raises:
            Refused: a clip is damaged.
        """

    def validate(self) -> tuple[float, float] | None:
        """The score that selects the epoch (higher is better) and the value to log; None without held-out clips.

        Raises:
            Refused: a held-out clip is damaged.
        """

    def card(self, init: dict[str, Any]) -> dict[str, Any]:
        """Provenance for the model file."""
