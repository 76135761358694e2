"""The cohort of a fitted model: one moment of each of some recorded clips, its sound and a few cells of its picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from avloc.engine import Cohort
from tests.recipe.projections import Projections
from tests.recipe.real import RealClips
from tests.recipe.settings import FitSettings, read_settings


def make_cohort(
    model: Projections, real: RealClips, clips: Sequence[int], seed: int, settings: FitSettings | None = None
) -> Cohort:
    """The cohort of a model.

    Of each picture those cells are kept that most of the cohort's sounds have their largest cosine with, so that the
    file stays small.

    Args:
        model: the fitted projections.
        real: the moments.
        clips: those that the model may be fitted on, indices into `real`; only original sounds are taken.
        seed: of the draw.
        settings: number of clips and of cells; None is those of the recipe.
    """
    settings = settings or read_settings()
    chosen = drawn(real, clips, settings.cohort, np.random.default_rng(seed))
    audio_KD = model.sound_vectors(real.sounds[chosen])
    image_LcD = model.cell_vectors(real.cells[chosen])
    best_LK = torch.einsum("lcd,kd->lkc", image_LcD, audio_KD).argmax(2)
    kept = torch.stack([_most_frequent(row, image_LcD.shape[1], settings.cohort_cells) for row in best_LK])
    return Cohort(audio_KD, image_LcD.take_along_dim(kept[:, :, None], 1))


def drawn(real: RealClips, clips: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """One moment of each of up to `count` clips, with original sound, in a random order."""
    by_clip: dict[str, int] = {}
    for index in rng.permutation(np.array(clips, np.int64)).tolist():
        if real.clips[index].calibrates:
            by_clip.setdefault(real.clips[index].clip, index)
    return list(by_clip.values())[:count]


def _most_frequent(values: Tensor, size: int, count: int) -> Tensor:
    return torch.bincount(values, minlength=size).topk(count).indices
