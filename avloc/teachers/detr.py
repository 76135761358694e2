"""DETR teacher: attention on the objects of a frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from avloc.errors import UsageError
from avloc.media.pictures import decode_picture
from avloc.networks.detr import CELL, CONFIDENCE, SIDE, attention_maps, check_confidence, load_detr, stretched
from avloc.store import Clip
from avloc.teachers.base import Teacher, TeacherContext
from avloc.weights import DETR, Located

RESIZE = "bilinear, not rounded"
"""In the stamp: hints of frames that Pillow stretched, as before version 0.3, differ in the last digits."""


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
    """DETR's attention on the objects of a clip's frame, [side/32, side/32], summing to 1.

    Frames are sent to the device as they are, and stretched there, in float32. Pillow, which stretches them for
    `avloc.priors.DetrPrior`, rounds them to uint8: a value differs by 1 at most. Frames with more pixels than the
    network takes are stretched by Pillow before.
    """

    name = "detr"
    weight = DETR
    load = staticmethod(load_detr)
    batch_size = 4
    may_lack_hint = True

    def __init__(self, settings: DetrSettings, weights: Located, device: torch.device) -> None:
        cells = settings.side // CELL
        super().__init__(weights, device, shape=(cells, cells), settings={**asdict(settings), "resize": RESIZE})
        self.settings = settings

    @classmethod
    def build(cls, context: TeacherContext) -> Self:
        """With the `confidence` of the options."""
        return cls(DetrSettings(confidence=context.confidence), context.find(cls.weight), context.device)

    def read(self, clip: Clip) -> NDArray[np.uint8]:
        """The frame [H, W, 3], with no more pixels than the network takes.

        Raises:
            InputError: the picture cannot be decoded.
        """
        rgb, side = decode_picture(clip.picture), self.settings.side
        return rgb if rgb.size <= 3 * side * side else stretched(rgb, side)

    def preprocess(self, one: Tensor) -> Tensor:
        """The frame stretched to [3, side, side], float32 in [0, 255]."""
        square = (self.settings.side, self.settings.side)
        return F.interpolate(one.permute(2, 0, 1)[None].float(), square, mode="bilinear", antialias=True)[0]

    def predict(self, batch: Tensor) -> Tensor:
        """Attention maps; NaN where no query is confident."""
        return attention_maps(self.model, batch, confidence=self.settings.confidence)
