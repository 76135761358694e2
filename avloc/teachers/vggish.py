"""VGGish hears: one vector of 128 numbers for a clip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from avloc.errors import Refused
from avloc.networks.vggish import PATCH_FRAMES, WIDTH, VGGish, load_vggish, log_mel_patches, mean_unit
from avloc.published import StoreSpec
from avloc.store import Clip, HintStamp
from avloc.teachers.base import Hint, in_slabs, stored_sound
from avloc.transforms import MEL_HOP, MEL_RATE, MEL_WINDOW
from avloc.weights import VGGISH, Located, Weight

_LEAST_SAMPLES = MEL_WINDOW + (PATCH_FRAMES - 1) * MEL_HOP


class VggishTeacher:
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
    slab = 8

    def __init__(self, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        if spec.rate < MEL_RATE or int(spec.seconds * MEL_RATE) < _LEAST_SAMPLES:
            reason = f"the store holds {spec.seconds:g} s at {spec.rate} Hz; VGGish needs 0.975 s at {MEL_RATE} Hz"
            raise Refused(reason, hint=f"Prepare it again with --rate {MEL_RATE} --seconds 3.")
        self.spec, self.weights, self.device = spec, weights, device

    @cached_property
    def model(self) -> VGGish:
        """The network, loaded when first needed."""
        return load_vggish(self.weights.path).to(self.device)

    def stamp(self) -> HintStamp:
        """Who answers, and how."""
        settings = {"rate": MEL_RATE, "seconds": self.spec.seconds, "pooling": "mean of patches, length 1"}
        return HintStamp(teacher=self.name, shape=(WIDTH,), weights=self.weights.hashes, settings=settings)

    def read(self, clip: Clip) -> NDArray[np.float32]:
        """The clip's sound in the store, [seconds * 16000] in [-1, 1]."""
        return stored_sound(clip, self.spec, MEL_RATE)

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """Vectors of length 1, or none."""
        return in_slabs(batch, self.slab, self._heard)

    def _heard(self, slab: NDArray[Any]) -> list[Hint]:
        sound = torch.from_numpy(slab).to(self.device)
        with torch.inference_mode():
            vectors = mean_unit(self.model.embed(log_mel_patches(sound, MEL_RATE))).cpu().numpy()
        return [vector if vector.any() else None for vector in vectors]
