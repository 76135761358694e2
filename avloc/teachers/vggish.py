"""VGGish teacher: an embedding of 128 numbers per clip."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from avloc.networks.vggish import PATCH_FRAMES, WIDTH, VGGish, load_vggish, log_mel_patches, mean_unit
from avloc.registry import StoreSpec
from avloc.teachers.base import SoundTeacher, TeacherContext
from avloc.transforms import MEL_HOP, MEL_WINDOW
from avloc.weights import VGGISH, Located


class VggishTeacher(SoundTeacher[VGGish]):
    """Mean embedding [128] of a clip's sound, normalised to unit length; "no hint" if it is zero."""

    name = "vggish"
    title = "VGGish"
    weight = VGGISH
    load = staticmethod(load_vggish)
    may_lack_hint = True
    min_samples = MEL_WINDOW + (PATCH_FRAMES - 1) * MEL_HOP

    def __init__(self, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        settings = {"pooling": "mean of patches, length 1"}
        super().__init__(spec, weights, device, shape=(WIDTH,), settings=settings)

    @classmethod
    def build(cls, context: TeacherContext) -> Self:
        """It has no options."""
        return cls(context.store.spec, context.find(cls.weight), context.device)

    def predict(self, batch: Tensor) -> Tensor:
        """Unit vectors; NaN for embeddings of zeros."""
        vectors = mean_unit(self.model.embed(log_mel_patches(batch, self.rate)))
        return vectors.where(vectors.any(1, keepdim=True), torch.nan)
