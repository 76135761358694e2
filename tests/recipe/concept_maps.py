"""Separate maps of several sounds in a mixture, from the named dimensions of the common space.

The cosine of a cell and a sound is a sum over dimensions. In a model whose dimensions are concepts
(`avloc.networks.concepts`), each term of the sum is the map of one concept, and two things that sound at once differ in
the concepts that contribute.

Shape letters: D common space, C concepts, h w cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ALIKE = 0.5
"""Cosine over cells from which the maps of two concepts are taken for those of one thing."""
LEAST_SHARE = 0.15
"""Least peak of a further concept's map, relative to that of the first one."""


@dataclass(frozen=True)
class ConceptMap:
    """The part of a similarity map that belongs to one thing."""

    dimension: int
    """The concept that contributes most to it."""
    cells_hw: Tensor
    """Contribution to the cosine of each cell, at least 0."""


def concept_maps(
    image_DHW: Tensor, audio_D: Tensor, count: int, *, named: int, least_share: float = LEAST_SHARE
) -> list[ConceptMap]:
    """Maps of up to `count` things that a sound and a picture share, the strongest first.

    Each thing is found by one concept. They are taken by the peak of their contribution; those with a map like that of
    an earlier one (`ALIKE`) and those that are much weaker than the first (`least_share`) are left out. The map of a
    thing is the sum of the contributions of its concept and of all others whose maps are most like it; negative
    contributions count as 0.

    Args:
        image_DHW: [D, h, w] unit vectors of the cells (`Embeddings.image`).
        audio_D: [D] unit vector of the sound.
        count: largest number of maps, at least 1.
        named: number of concepts, the first dimensions; others, such as the constants, are not used.
        least_share: 0 if the number of sounds is known to be `count`.

    Returns:
        An empty list if no concept contributes anywhere.
    """
    parts_Chw = (image_DHW[:named] * audio_D[:named, None, None]).float().clamp(min=0)
    directions = F.normalize(parts_Chw.flatten(1), dim=1)
    peaks = parts_Chw.amax((1, 2))
    found: list[int] = []
    for dimension in torch.argsort(peaks, descending=True, stable=True).tolist():
        if len(found) == count or peaks[dimension] <= 0 or peaks[dimension] < least_share * peaks.max():
            break
        if not found or (directions[found] @ directions[dimension]).max() < ALIKE:
            found.append(dimension)
    if not found:
        return []
    nearest = (directions @ directions[found].T).argmax(1)
    return [ConceptMap(dimension, parts_Chw[nearest == place].sum(0)) for place, dimension in enumerate(found)]
