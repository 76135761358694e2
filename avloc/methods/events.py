"""What is asked of models that tell what happens in each second, from features that are there already.

Shape letters: B batch, T seconds, K classes, background last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from avloc.config import ModelConfig
from avloc.methods.base import Group, Published

CELLS = 7
"""Cells along each side of the picture's features."""
VISUAL, AUDIO = 512, 128
"""Width of the features: of VGG19's last pooling, averaged over the frames of a second, and of VGGish."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """A batch of clips: `visual` [B, T, 7, 7, 512] and `audio` [B, T, 128] float32, `labels` [B, T] int64 classes.

    Matching needs the mean over the cells alone; `visual` may then be [B, T, 1, 1, 512].

    `clips` [B] int64 is the class of each clip, for methods that are taught no more than that.
    """

    visual: Tensor
    audio: Tensor
    labels: Tensor
    clips: Tensor | None = None
    background: int = 28
    """The class of seconds without an event, the last one."""


class EventMethod(nn.Module, ABC):
    """A model of features of seconds, with what it learns from."""

    training_only: tuple[str, ...] = ()
    """How the names of parameters begin that nothing but training needs."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def losses(self, features: Features) -> dict[str, Tensor]:
        """Named loss terms, each the mean over the batch."""

    def groups(self) -> list[Group]:
        """What learns, and how fast."""
        return [Group([weight for weight in self.parameters() if weight.requires_grad])]

    @classmethod
    @abstractmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """The model in the files of its authors.

        Args:
            files: name without ending -> what a file holds, as `avloc.weights.legacy_checkpoints` reads it.

        Returns:
            None where they are of another method.
        """
