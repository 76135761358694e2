"""The cohort of a fitted model: sounds, and a few cells of pictures; one half recorded, one half labelled.

Recorded clips are what the model is used on, with as much speech and music as there is. Labelled files are one of each
of some kinds, drawn at random, so that kinds that are rare among the recorded clips have something to be compared with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from avloc.engine import Cohort
from tests.recipe.material import Material
from tests.recipe.projections import Projections
from tests.recipe.real import RealClips
from tests.recipe.settings import FitSettings, read_settings


def make_cohort(
    model: Projections, material: Material, clips: Sequence[int], seed: int, settings: FitSettings | None = None
) -> Cohort:
    """The cohort of a model; smaller where there are fewer clips or kinds than half of its size.

    Of each picture those cells are kept that most of the cohort's sounds have their largest cosine with, so that the
    file stays small.

    Args:
        model: the fitted projections.
        material: recorded clips, labelled pictures, of which those with boxes are taken, and labelled sounds.
        clips: those that the model may be fitted on, indices into `material.real`; only original sounds are taken.
        seed: of the draw.
        settings: sizes; None is those of the recipe.
    """
    settings, rng = settings or read_settings(), np.random.default_rng(seed)
    real, pictures, sounds = material.real, material.pictures, material.sounds
    half = settings.cohort // 2
    recorded = one_of_each([real.clips[index].clip for index in _original(real, clips)], rng)[:half]
    moments = [_original(real, clips)[place] for place in recorded]
    shown = one_of_each(pictures.classes[: len(pictures.cells)], rng)[:half]
    audible = one_of_each(sounds.classes, rng)[:half]
    audio_KD = model.sound_vectors(torch.cat([real.sounds[moments], sounds.features[audible, 0]]))
    image_LcD = model.cell_vectors(torch.cat([real.cells[moments], pictures.cells[shown]]))
    best_LK = torch.einsum("lcd,kd->lkc", image_LcD, audio_KD).argmax(2)
    kept = torch.stack([_most_frequent(row, image_LcD.shape[1], settings.cohort_cells) for row in best_LK])
    return Cohort(audio_KD, image_LcD.take_along_dim(kept[:, :, None], 1))


def one_of_each(names: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Index of one entry of each name, in a random order."""
    found: dict[str, int] = {}
    for index in rng.permutation(len(names)).tolist():
        found.setdefault(names[index], index)
    return list(found.values())


def _original(real: RealClips, clips: Sequence[int]) -> list[int]:
    return [index for index in clips if real.clips[index].calibrates]


def _most_frequent(values: Tensor, size: int, count: int) -> Tensor:
    return torch.bincount(values, minlength=size).topk(count).indices
