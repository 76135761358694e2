"""DETR teacher: attention on the objects of a frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avloc.errors import UsageError
from avloc.media.pictures import decode_picture
from avloc.networks.detr import CELL, CONFIDENCE, SIDE, attention_maps, check_confidence, load_detr, stretched
from avloc.store import Clip
from avloc.teachers.base import Teacher, TeacherContext
from avloc.weights import DETR, Located


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


class DetrTeacher(Teacher[nn.Module]):
    """DETR's attention on the objects of a clip's frame, [side/32, side/32], summing to 1."""

    name = "detr"
    weight = DETR
    load = staticmethod(load_detr)
    batch_size = 4

    def __init__(self, settings: DetrSettings, weights: Located, device: torch.device) -> None:
        cells = settings.side // CELL
        super().__init__(weights, device, shape=(cells, cells), settings=asdict(settings))
        self.settings = settings

    @classmethod
    def build(cls, context: TeacherContext) -> Self:
        """With the `confidence` of the options."""
        return cls(DetrSettings(confidence=context.confidence), context.find(cls.weight), context.device)

    def read(self, clip: Clip) -> NDArray[np.uint8]:
        """The frame, stretched to [side, side, 3].

        Raises:
            InputError: the picture cannot be decoded.
        """
        return stretched(decode_picture(clip.picture), self.settings.side)

    def predict(self, batch: Tensor) -> Tensor:
        """Attention maps; NaN where no query is confident."""
        return attention_maps(self.model, batch.permute(0, 3, 1, 2), confidence=self.settings.confidence)
