"""What the training loop asks of the thing that is learned, whichever it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from avloc.config import TrainConfig
from avloc.distributed import Peers
from avloc.methods.base import Group
from avloc.progress import Listener


class Learner(Protocol):
    """A model that says which of its parameters learn, and how fast."""

    def groups(self) -> list[Group]:
        """What learns."""


class Task(Protocol):
    """Material, networks and loss of one run. The loop owns steps, optimiser, saving and interrupts."""

    config: TrainConfig
    device: torch.device
    precision: str
    clips: int
    """How many there are to learn from."""
    selection: str
    """How the epoch that becomes the model is chosen."""
    identity: dict[str, Any]
    """What makes a run this run, beside its configuration and its initial weights."""

    def start(self, listener: Listener) -> dict[str, Any]:
        """Build the networks with their initial weights, and return what these were; a dry run need not read them.

        Raises:
            WeightsError: `init` asks for weights that are not there.
            UsageError: the model file to start from is not there, or is of another configuration.
        """

    @property
    def model(self) -> nn.Module:
        """The networks, once they are built."""

    def groups(self) -> list[Group]:
        """What of them learns."""

    def share(self, peers: Peers) -> None:
        """From here on the batches of `load` are this process's part, and gradients are those of the whole."""

    def load(self, batches: Iterable[list[int]]) -> Iterable[Any]:
        """The material of each batch of positions."""

    def terms(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss terms of one batch, before their weights.

        Raises:
            Refused: something of it is damaged.
        """

    def validate(self) -> tuple[float, float] | None:
        """The score that selects, the higher the better, and the value to log; None where nothing is held out.

        Raises:
            Refused: a held-out clip is damaged.
        """

    def card(self, init: dict[str, Any]) -> dict[str, Any]:
        """What the model file will say about its training."""
