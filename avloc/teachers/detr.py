"""DETR teacher: attention on the objects of a frame.

Shape letters: B batch, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avloc.errors import UsageError
from avloc.media.pictures import decode_picture
from avloc.networks.detr import CELL, CONFIDENCE, SIDE, attention_maps, check_confidence, load_detr, stretched
from avloc.store import Clip, HintStamp
from avloc.teachers.base import Hint, in_fixed_batches
from avloc.weights import DETR, Located, Weight


@dataclass(frozen=True, kw_only=True)
class DetrSettings:
    """Settings of DETR's hints.

    Raises:
        UsageError: an invalid value.
    """

    confidence: float = CONFIDENCE
    """Use queries whose best class, "no object" excluded, is more probable than this."""
    side: int = SIDE
    """Side in pixels of the square that the frame is stretched to; a hint has side/32 cells per side."""

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if self.side < CELL or self.side % CELL:
            raise UsageError(f"side = {self.side!r} is impossible; valid: a multiple of {CELL}")


class DetrTeacher:
    """DETR's attention on the objects of a clip's frame, [side/32, side/32], summing to 1.

    Args:
        settings: query threshold and size of the frame.
        weights: DETR's, from `avloc.weights.locate`.
        device: runs the network, in float32.
    """

    name = "detr"
    weight: Weight = DETR
    batch_size = 4

    def __init__(self, settings: DetrSettings, weights: Located, device: torch.device) -> None:
        self.settings = settings
        self.weights = weights
        self.device = device

    @cached_property
    def model(self) -> nn.Module:
        """The network, loaded on first use."""
        return load_detr(self.weights.path).to(self.device)

    def stamp(self) -> HintStamp:
        """Name, weights and settings."""
        cells = self.settings.side // CELL
        settings = asdict(self.settings)
        return HintStamp(teacher=self.name, shape=(cells, cells), weights=self.weights.hashes, settings=settings)

    def read(self, clip: Clip) -> NDArray[np.uint8]:
        """The frame, stretched to [side, side, 3].

        Raises:
            InputError: the picture cannot be decoded.
        """
        return stretched(decode_picture(clip.picture), self.settings.side)

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """Attention maps; None where no query is confident."""
        return in_fixed_batches(batch, self.batch_size, self._predict)

    def _predict(self, batch: NDArray[Any]) -> list[Hint]:
        frames = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2)
        maps = attention_maps(self.model, frames, confidence=self.settings.confidence)
        return [_numpy(attention) for attention in maps]


def _numpy(attention: Tensor | None) -> Hint:
    return None if attention is None else attention.cpu().numpy()
