"""EfficientNet-Lite0 teacher: the concepts in each cell of a frame.

Shape letters: B batch, D concepts and the two constants, h w cells.
"""

from __future__ import annotations

from functools import cache
from statistics import NormalDist
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avloc.media.pictures import decode_picture, square
from avloc.networks.concepts import CONCEPTS, DIM, IMAGE_BIAS, concepts_hash, strongest
from avloc.networks.lite0 import Lite0, load_lite0
from avloc.store import Clip
from avloc.teachers.base import Teacher, TeacherContext, unit_concepts
from avloc.transforms import constant, normalise_frames
from avloc.weights import LITE0, Located

SIDE = 224
"""Side in pixels of the square that the frame is stretched to, as in training."""
HINT_SIDE = SIDE // 32
"""Cells per side of a hint."""
DEVIATION = 2.5
"""Standard deviation over cells of a concept's highest class logit, relative to the mean of all classes."""
_BASE, _SLOPE = 0.2, 1.81
"""Linear fit of the concepts' mean highest logits (3700 pictures of 32 kinds, every eighth); see `usual_logits`."""


@cache
def usual_logits() -> tuple[float, ...]:
    """Expected highest logit of each concept in an average cell, which grows with its number of classes.

    Linear in the normal quantile of the expected maximum of that many draws; the correlation with the measured means is
    0.85.
    """
    draws = [max(1, len(concept.imagenet)) for concept in CONCEPTS]
    return tuple(_BASE + _SLOPE * NormalDist().inv_cdf(1 - 1 / (count + 1)) for count in draws)


def image_concepts(class_maps: Tensor) -> Tensor:
    """Unit vectors [B, D, h, w] of logits [B, 1000, h, w].

    A concept's strength is relu(z - 1), where z is the highest logit of its ImageNet classes, relative to the mean of
    all classes, standardised by `usual_logits` and `DEVIATION`. Concepts without such classes have 0.
    """
    over_mean = class_maps - class_maps.mean(1, keepdim=True)
    best = strongest(over_mean, tuple(concept.imagenet for concept in CONCEPTS))
    level = constant(_usual_logits, best)[:, None, None]
    return unit_concepts(((best - level) / DEVIATION - 1).relu(), image_bias=IMAGE_BIAS)


def _usual_logits() -> Tensor:
    return torch.tensor(usual_logits(), dtype=torch.float64)


class Lite0Teacher(Teacher[Lite0]):
    """The concepts in each cell of a clip's frame, unit vectors [D, 7, 7]."""

    name = "lite0"
    weight = LITE0
    load = staticmethod(load_lite0)

    def __init__(self, weights: Located, device: torch.device) -> None:
        settings = {
            "concepts": concepts_hash(),
            "usual": [_BASE, _SLOPE],
            "deviation": DEVIATION,
            "nothing": IMAGE_BIAS,
            "side": SIDE,
        }
        super().__init__(weights, device, shape=(DIM, HINT_SIDE, HINT_SIDE), settings=settings)

    @classmethod
    def build(cls, context: TeacherContext) -> Self:
        """It has no options."""
        return cls(context.find(cls.weight), context.device)

    def read(self, clip: Clip) -> NDArray[np.uint8]:
        """The frame, stretched to [224, 224, 3].

        Raises:
            InputError: the picture cannot be decoded.
        """
        return square(decode_picture(clip.picture), SIDE)

    def predict(self, batch: Tensor) -> Tensor:
        """Unit vectors of all cells, never NaN."""
        frames = normalise_frames(batch.permute(0, 3, 1, 2))
        return image_concepts(self.model.class_maps(frames).float())
