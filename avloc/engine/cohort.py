"""Cohort of a model: other sounds and pictures, some of the same kind, to compare the similarity of an input with.

Some pictures have a high cosine with almost any sound, and some sounds with almost any picture. What the cohort reaches
is subtracted from the peak cosine before it becomes a match. Speaker verification normalises scores in a similar way
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
from avloc.methods import Method, any_class

KEYS = ("audio", "image")
"""Of `ModelFile.cohort`."""
QUANTILE = 0.98
"""One of fifty sounds, or pictures, of the cohort reaches more. Part of the file format: calibrations depend on it."""


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
            WeightsError: it is not complete, or does not fit the model's common space, or the model's similarity is not
                that of one vector a sound (`sspl`, `sacl`).
        """
        if not model.cohort:
            return None
        method = any_class(model.config.method)
        if not issubclass(method, Method) or method.similarity is not Method.similarity:
            raise WeightsError(f"{model.path} has a cohort; valid: none with method {model.config.method}")
        audio, image = (model.cohort.get(key, torch.empty(0)) for key in KEYS)
        dim = model.config.dim
        whole = model.cohort.keys() == {*KEYS} and all(one.numel() and one.isfinite().all() for one in (audio, image))
        fits = (audio.ndim, image.ndim, audio.shape[-1], image.shape[-1]) == (2, 3, dim, dim)
        if not (whole and fits):
            valid = f"finite audio [K, {dim}] and image [L, c, {dim}]"
            raise WeightsError(f"{model.path} has an unusable cohort; valid: {valid}")
        return cls(F.normalize(audio.float(), dim=-1), F.normalize(image.float(), dim=-1))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """For `save_model`."""
        return dict(zip(KEYS, (self.audio, self.image), strict=True))

    def of_pictures(self, cells_NcD: Tensor) -> Tensor:
        """[N] peak cosine that one of fifty sounds of the cohort exceeds, for pictures of unit vectors."""
        peaks = torch.einsum("ncd,kd->nck", cells_NcD.float(), self.audio.to(cells_NcD.device)).amax(1)
        return peaks.cpu().quantile(QUANTILE, dim=1)  # computed in float64, which mps lacks

    def of_sounds(self, audio_MD: Tensor) -> Tensor:
        """[M] peak cosine that one of fifty pictures of the cohort exceeds, for unit vectors of sounds."""
        peaks = torch.einsum("lcd,md->mlc", self.image.to(audio_MD.device), audio_MD.float()).amax(2)
        return peaks.cpu().quantile(QUANTILE, dim=1)

    def similarity(self, image_DHW: Tensor, audio_D: Tensor) -> float:
        """Mean of both for one picture and one sound."""
        cells = image_DHW.flatten(1).T[None]
        return float((self.of_pictures(cells) + self.of_sounds(audio_D[None])) / 2)
