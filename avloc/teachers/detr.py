"""DETR sees: where its attention lies on the objects of a clip's frame.

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
from avloc.media import decode_picture
from avloc.networks.detr import CELL, CONFIDENCE, SIDE, attention_maps, check_confidence, load_detr, stretched
from avloc.store import Clip, HintStamp
from avloc.teachers.base import Hint, in_slabs
from avloc.weights import DETR, Located, Weight


@dataclass(frozen=True, kw_only=True)
class DetrSettings:
    """What changes the hints of DETR."""

    confidence: float = CONFIDENCE
    """A query counts if its best class is more probable than this ("no object" is not a class)."""
    side: int = SIDE
    """The frame is stretched to a square of this many pixels; a hint has side/32 cells each way."""

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if self.side < CELL or self.side % CELL:
            raise UsageError(f"side = {self.side!r} is impossible; valid: a multiple of {CELL}")


class DetrTeacher:
    """DETR's attention on the objects of a clip's frame, [side/32, side/32], summing to 1.

    Args:
        settings: how it is asked.
        weights: DETR's, from `avloc.weights.locate`.
        device: where the network runs; float32 throughout.
    """

    name = "detr"
    weight: Weight = DETR
    slab = 4

    def __init__(self, settings: DetrSettings, weights: Located, device: torch.device) -> None:
        self.settings = settings
        self.weights = weights
        self.device = device

    @cached_property
    def model(self) -> nn.Module:
        """The network, loaded when first needed."""
        return load_detr(self.weights.path).to(self.device)

    def stamp(self) -> HintStamp:
        """Who answers, and how."""
        cells = self.settings.side // CELL
        settings = asdict(self.settings)
        return HintStamp(teacher=self.name, shape=(cells, cells), weights=self.weights.hashes, settings=settings)

    def read(self, clip: Clip) -> NDArray[np.uint8]:
        """The clip's frame, stretched: [side, side, 3].

        Raises:
            InputError: the picture cannot be decoded.
        """
        return stretched(decode_picture(clip.picture), self.settings.side)

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """Attention maps; None where no query is confident."""
        return in_slabs(batch, self.slab, self._attended)

    def _attended(self, slab: NDArray[Any]) -> list[Hint]:
        frames = torch.from_numpy(slab).to(self.device).permute(0, 3, 1, 2)
        maps = attention_maps(self.model, frames, confidence=self.settings.confidence)
        return [_numpy(attention) for attention in maps]


def _numpy(attention: Tensor | None) -> Hint:
    return None if attention is None else attention.cpu().numpy()
