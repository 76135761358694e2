"""EfficientNet-Lite0 sees: which concepts stand in each cell of a clip's frame.

Shape letters: B batch, D concepts and the two of nothing, H W pixels, h w cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avloc.media import decode_picture, square
from avloc.networks.concepts import CONCEPTS, DIM, IMAGE_BIAS, concepts_hash, strongest
from avloc.networks.lite0 import Lite0, load_lite0
from avloc.store import Clip, HintStamp
from avloc.teachers.base import Hint, in_slabs, unit_concepts
from avloc.transforms import normalise_frames
from avloc.weights import LITE0, Located, Weight

SIDE = 224
"""Side of the square that the frame is stretched to, in pixels: what the weights were trained on."""
CELLS = SIDE // 32
"""Cells of a hint each way."""
DEVIATION = 2.5
"""How far the strongest logit of a concept's classes strays from cell to cell, over the mean of all classes."""
_BASE, _SLOPE = 0.2, 1.81
"""Line through the usual strongest logits of the concepts (3700 pictures of 32 kinds, every eighth), by `usual`."""


@cache
def usual() -> tuple[float, ...]:
    """For each concept, its strongest logit in a usual cell: the more classes it has, the higher is the best of them.

    Linear in the normal quantile at which the largest of so many draws is expected; the correlation with the measured
    means of the concepts is 0.85.
    """
    draws = [max(1, len(concept.imagenet)) for concept in CONCEPTS]
    return tuple(_BASE + _SLOPE * NormalDist().inv_cdf(1 - 1 / (count + 1)) for count in draws)


def seen_concepts(class_maps: Tensor) -> Tensor:
    """Unit vectors of every cell, [B, D, h, w].

    For each concept the highest logit of its ImageNet classes over the mean of all classes, in deviations from the
    usual, and what of it goes beyond one deviation. A concept without such classes has 0.

    Args:
        class_maps: logits [B, 1000, h, w].
    """
    over_mean = class_maps - class_maps.mean(1, keepdim=True)
    best = strongest(over_mean, [concept.imagenet for concept in CONCEPTS])
    level = best.new_tensor(usual())[:, None, None]
    return unit_concepts(((best - level) / DEVIATION - 1).relu(), seen=IMAGE_BIAS)


class Lite0Teacher:
    """The concepts in each cell of a clip's frame, unit vectors [D, 7, 7].

    Args:
        weights: EfficientNet-Lite0's, from `avloc.weights.locate`.
        device: where the network runs; float32 throughout.
    """

    name = "lite0"
    weight: Weight = LITE0
    slab = 8

    def __init__(self, weights: Located, device: torch.device) -> None:
        self.weights = weights
        self.device = device

    @cached_property
    def model(self) -> Lite0:
        """The network, loaded when first needed."""
        return load_lite0(self.weights.path).to(self.device)

    def stamp(self) -> HintStamp:
        """Who answers, and how."""
        settings = {
            "concepts": concepts_hash(),
            "usual": [_BASE, _SLOPE],
            "deviation": DEVIATION,
            "nothing": IMAGE_BIAS,
            "side": SIDE,
        }
        shape = (DIM, CELLS, CELLS)
        return HintStamp(teacher=self.name, shape=shape, weights=self.weights.hashes, settings=settings)

    def read(self, clip: Clip) -> NDArray[np.uint8]:
        """The clip's frame, stretched: [224, 224, 3].

        Raises:
            InputError: the picture cannot be decoded.
        """
        return square(decode_picture(clip.picture), SIDE)

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """Vectors of length 1 in every cell; a picture of nothing known has them too."""
        return in_slabs(batch, self.slab, self._seen)

    def _seen(self, slab: NDArray[Any]) -> list[Hint]:
        frames = torch.from_numpy(slab).to(self.device).permute(0, 3, 1, 2)
        return list(seen_concepts(self.model.class_maps(normalise_frames(frames))).cpu().numpy())
