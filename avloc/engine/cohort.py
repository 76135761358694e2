"""Cohort of a model: sounds and pictures that do not belong to an input, with which its similarity is compared.

Some pictures have a high cosine with almost any sound, and some sounds with almost any picture. What the cohort reaches
is subtracted from the peak cosine before it becomes a match. Speaker verification normalises its scores in the same way
(Auckenthaler et al., "Score normalization for text-independent speaker verification systems", 2000). We subtract a
quantile, and do not divide by the deviation, which was worse on clips kept out.

Shape letters: K sounds and L pictures of the cohort, c cells, D common space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avloc.checkpoint import ModelFile
from avloc.errors import WeightsError

AUDIO_KEY, IMAGE_KEY = "audio", "image"
"""Keys of `ModelFile.cohort`."""
QUANTILE = 0.9
"""One of ten sounds, or pictures, of the cohort reaches more."""


@dataclass(frozen=True)
class Cohort:
    """Unit vectors of sounds, and of cells of pictures."""

    audio: Tensor
    """[K, D]."""
    image: Tensor
    """[L, c, D]."""

    @classmethod
    def of(cls, model: ModelFile) -> Cohort | None:
        """The cohort in a model file; None if there is none.

        Raises:
            WeightsError: it is not complete, or does not fit the model's common space.
        """
        if not model.cohort:
            return None
        audio, image = (model.cohort.get(key, torch.empty(0)) for key in (AUDIO_KEY, IMAGE_KEY))
        dim = model.config.dim
        fits = audio.ndim == 2 and image.ndim == 3 and audio.shape[-1] == image.shape[-1] == dim
        if not (fits and audio.numel() and image.numel() and audio.isfinite().all() and image.isfinite().all()):
            raise WeightsError(
                f"{model.path} has an unusable cohort; valid: finite audio [K, {dim}], image [L, c, {dim}]"
            )
        return cls(F.normalize(audio.float(), dim=-1), F.normalize(image.float(), dim=-1))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """For `save_model`."""
        return {AUDIO_KEY: self.audio, IMAGE_KEY: self.image}

    def of_pictures(self, cells_NcD: Tensor) -> Tensor:
        """[N] peak cosine that one of ten sounds of the cohort exceeds, for pictures of unit vectors."""
        peaks = torch.einsum("ncd,kd->nck", cells_NcD.float(), self.audio.to(cells_NcD.device)).amax(1)
        return peaks.quantile(QUANTILE, dim=1)

    def of_sounds(self, audio_MD: Tensor) -> Tensor:
        """[M] peak cosine that one of ten pictures of the cohort exceeds, for unit vectors of sounds."""
        peaks = torch.einsum("lcd,md->mlc", self.image.to(audio_MD.device), audio_MD.float()).amax(2)
        return peaks.quantile(QUANTILE, dim=1)

    def similarity(self, image_DHW: Tensor, audio_D: Tensor) -> float:
        """Mean of both for one picture and one sound."""
        cells = image_DHW.flatten(1).T[None]
        return float((self.of_pictures(cells) + self.of_sounds(audio_D[None])) / 2)
