"""What the projections are fitted on: features of labelled pictures and sounds, of composed scenes, of real clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tests.recipe.real import RealClips


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures; those with boxes come first."""

    classes: Sequence[str]
    shown: Sequence[Sequence[str]]
    """Sound classes that each may show."""
    features: Tensor
    """[P, 49, 2280], averaged to 7x7 cells."""
    cells: Tensor
    """[b, 196, 2280] of the first b."""
    covers: Tensor
    """[b, 14, 14] share of each cell under boxes of what makes the sounds of the picture's class."""


@dataclass(frozen=True)
class SoundFiles:
    """Labelled sounds."""

    classes: Sequence[str]
    features: Tensor
    """[S, 1 + K, 1545]: of the middle 3 s, then of K variants of it."""


@dataclass(frozen=True)
class Scenes:
    """Composed clips with boxes."""

    classes: Sequence[str]
    """Class of the sound of each."""
    shown: Sequence[Sequence[str]]
    cells: Tensor
    """[C, 196, 2280]."""
    sounds: Tensor
    """[C, 1545]."""
    covers: Tensor
    """[C, 14, 14] share of each cell under boxes of what sounds."""


@dataclass(frozen=True)
class Material:
    """Everything to fit on and, of `real`, to measure with."""

    pictures: Pictures
    sounds: SoundFiles
    scenes: Scenes
    real: RealClips
