"""VGGish hears: one vector of 128 numbers for a clip, or for each of its seconds."""

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
    """The mean embedding of the store's window of a clip, at length 1. No hint where VGGish answers with zeros.

    Args:
        spec: of the store that is heard.
        weights: VGGish's, from `avloc.weights.locate`.
        device: where the network runs; float32 throughout.

    Raises:
        Refused: the sounds of the store are shorter than one patch, or lack the bandwidth VGGish listens to.
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
        """The network, loaded when first needed."""
        return load_vggish(self.weights.path).to(self.device)

    def stamp(self) -> HintStamp:
        """Who answers, and how."""
        settings = {"rate": MEL_RATE, "seconds": self.spec.seconds, "pooling": "mean of patches, length 1"}
        return HintStamp(teacher=self.name, shape=(WIDTH,), weights=self.weights.hashes, settings=settings)

    @torch.inference_mode()
    def heard(self, sound_BN: Tensor) -> list[Hint]:
        """Vectors of length 1; none where the network answers with zeros."""
        vectors = mean_unit(self.model.embed(log_mel_patches(sound_BN, MEL_RATE))).cpu().numpy()
        return [vector if vector.any() else None for vector in vectors]
