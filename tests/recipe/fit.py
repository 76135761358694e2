"""Projections fitted on the features of frozen backbones: the named dimensions of a common space, and unnamed ones.

Shape letters: n pictures, m sounds, D common space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from avloc.checkpoint import ModelFile
from tests.recipe.material import Material


class Projections(nn.Module):
    """Linear maps of both backbones' outputs into the common space."""

    def images(self, pictures: Tensor) -> Tensor:
        """[n, cells, 2280] -> [n, cells, D], not normalised."""
        raise NotImplementedError

    def audio(self, sounds: Tensor) -> Tensor:
        """[m, 1545] -> [m, D], not normalised."""
        raise NotImplementedError

    def peaks(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        """Largest cosine of any cell of each picture with each sound: [n, cells, 2280], [m, 1545] -> [n, m]."""
        raise NotImplementedError


def fit(material: Material, clips: Sequence[int], seed: int) -> Projections:
    """Projections fitted on all labelled material and on these real clips (indices into `material.real`)."""
    raise NotImplementedError


def write_model(run_file: ModelFile, projections: Projections, path: Path, card: Mapping[str, Any]) -> None:
    """The model of a run with fitted projections in the place of its own; `card` is added to the run's."""
    raise NotImplementedError
