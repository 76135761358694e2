"""Separate maps of several sounds in a mixture, from the named dimensions of the common space.

In a model whose dimensions are concepts (`avloc.networks.concepts`), each dimension of the cells is the map of one
concept, and two things that sound at once differ in the concepts that the picture and the sound share.

Shape letters: D common space, C concepts, h w cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SOUND_POWER = 0.2
"""Power of the sound's share: of two sounds at once the weaker one is small in every concept, so that the picture
decides between the concepts that are in the sound at all."""
LEAST_USUAL = 0.03
"""Added to the usual peak of a concept, by which it is divided."""
ALIKE = 0.5
"""Cosine over cells from which the maps of two concepts are taken for those of one thing."""
LEAST_SHARE = 0.2
"""Least value of a concept in the sound, relative to the largest one."""


@dataclass(frozen=True)
class ConceptMap:
    """The part of a similarity map that belongs to one thing."""

    dimension: int
    """The concept with the highest peak in it."""
    cells_hw: Tensor
    """Strength in each cell, at least 0."""


def concept_maps(
    image_DHW: Tensor, audio_D: Tensor, count: int, *, usual_C: Tensor, least_share: float = LEAST_SHARE
) -> list[ConceptMap]:
    """Maps of up to `count` things that a sound and a picture share, the strongest first.

    The map of a concept is its value in each cell, relative to what is usual, times a low power of its value in the
    sound; negative values count as 0. Each thing is found by one concept. They are taken by their peaks; those with a
    map like that of an earlier one (`ALIKE`) are left out, and so are concepts that are weak in the sound
    (`least_share`). The map of a thing is the sum of the maps of its concept and of all others that are most like it.

    Args:
        image_DHW: [D, h, w] unit vectors of the cells (`Embeddings.image`).
        audio_D: [D] unit vector of the sound.
        count: largest number of maps, at least 1.
        usual_C: peak of each concept in usual pictures. The concepts are the first dimensions; others, such as the
            constants, are not used.
        least_share: 0 if the number of sounds is known to be `count`.

    Returns:
        An empty list if picture and sound share no concept.
    """
    image_Chw, sound_C = (values[: len(usual_C)].float().clamp(min=0) for values in (image_DHW, audio_D))
    factor_C = sound_C.pow(SOUND_POWER) * (sound_C >= least_share * sound_C.max()) / (usual_C + LEAST_USUAL)
    parts_Chw = image_Chw * factor_C[:, None, None]
    directions = F.normalize(parts_Chw.flatten(1), dim=1)
    peaks = parts_Chw.amax((1, 2))
    found: list[int] = []
    for dimension in torch.argsort(peaks, descending=True, stable=True).tolist():
        if len(found) == count or peaks[dimension] <= 0:
            break
        if not found or (directions[found] @ directions[dimension]).max() < ALIKE:
            found.append(dimension)
    if not found:
        return []
    nearest = (directions @ directions[found].T).argmax(1)
    return [ConceptMap(dimension, parts_Chw[nearest == place].sum(0)) for place, dimension in enumerate(found)]
