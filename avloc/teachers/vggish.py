"""VGGish teacher: an embedding of 128 numbers per clip, or per second."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from avloc.errors import Refused
from avloc.networks.vggish import PATCH_FRAMES, WIDTH, VGGish, load_vggish, log_mel_patches, mean_unit
from avloc.registry import StoreSpec
from avloc.store import HintStamp
from avloc.teachers.base import Hint, StoredSoundTeacher
from avloc.transforms import MEL_HOP, MEL_RATE, MEL_WINDOW
from avloc.weights import VGGISH, Located, Weight

_LEAST_SAMPLES = MEL_WINDOW + (PATCH_FRAMES - 1) * MEL_HOP


class VggishTeacher(StoredSoundTeacher):
    """Mean embedding [128] of a clip's sound, normalised to unit length; "no hint" if it is zero.

    Raises:
        Refused: the sounds of the store are shorter than one patch, or have a sample rate below 16 kHz.
    """

    name = "vggish"
    weight: Weight = VGGISH

    def __init__(self, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        if spec.rate < MEL_RATE or int(spec.seconds * MEL_RATE) < _LEAST_SAMPLES:
            reason = f"the store holds {spec.seconds:g} s at {spec.rate} Hz; VGGish needs 0.975 s at {MEL_RATE} Hz"
            raise Refused(reason, hint=f"Prepare it again with --rate {MEL_RATE}.")
        super().__init__(spec, weights, device)

    @cached_property
    def model(self) -> VGGish:
        """The network, loaded on first use."""
        return load_vggish(self.weights.path).to(self.device)

    def stamp(self) -> HintStamp:
        """Name, weights and settings."""
        settings = {"rate": MEL_RATE, "seconds": self.spec.seconds, "pooling": "mean of patches, length 1"}
        return HintStamp(teacher=self.name, shape=(WIDTH,), weights=self.weights.hashes, settings=settings)

    @torch.inference_mode()
    def predict(self, sound_BN: Tensor) -> list[Hint]:
        """Unit vectors; None for embeddings of zeros."""
        vectors = mean_unit(self.model.embed(log_mel_patches(sound_BN, MEL_RATE))).cpu().numpy()
        return [vector if vector.any() else None for vector in vectors]
