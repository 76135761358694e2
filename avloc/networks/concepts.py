"""Concepts: things that can be heard and seen, each named by classes of AudioSet and of ImageNet.

They are the dimensions of a common space in which published classifiers for sounds and for pictures can be compared
without training. The table lies in `data/concepts.txt`. Two more dimensions hold a constant each, to which a vector
points where no concept is strong: `NOTHING_SEEN` that of pictures, `NOTHING_HEARD` that of sounds. There are two, so
that a cell in which nothing is known is not what a sound of which nothing is known is most like.

Shape letters: B batch, C classes, D concepts and the two of nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import torch
from torch import Tensor

from avloc.networks import lite0, yamnet

IMAGE_PER_CLASS = 0.5
"""What an ImageNet class adds to a concept of its own in the first projection of a picture; it shrinks with the square
root of the number of classes, so that a concept of a hundred classes does not outshout one of a single class."""
SOUND_PER_CLASS = 1.0
"""What an AudioSet class adds to its concepts in the first projection of a sound."""
IMAGE_NOTHING = 16.0
"""The constant of `NOTHING_SEEN` in a cell of a picture."""
SOUND_NOTHING = 0.3
"""The constant of `NOTHING_HEARD` in a sound."""


@dataclass(frozen=True)
class Concept:
    """One dimension of the common space."""

    name: str
    audioset: tuple[int, ...]
    """Rows of YAMNet's class map, rising."""
    imagenet: tuple[int, ...]
    """Classes of ImageNet-1k, rising; () for what cannot be seen."""


def read_concepts(text: str) -> tuple[Concept, ...]:
    """The table in the format of `data/concepts.txt`.

    Raises:
        ValueError: a line is not `name | classes | classes`, or names a class that there is not.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return tuple(_read_line(line) for line in lines)


def _read_line(line: str) -> Concept:
    name, heard, seen = (part.strip() for part in line.split("|"))
    return Concept(name, _numbers(heard, yamnet.CLASSES), _numbers(seen, lite0.CLASSES))


def _numbers(text: str, classes: int) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split():
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    if found and max(found) >= classes:
        raise ValueError(f"class {max(found)} in {text!r}: there are {classes}")
    return tuple(sorted(found))


CONCEPTS = read_concepts(files("avloc.networks").joinpath("data", "concepts.txt").read_text(encoding="utf-8"))
NOTHING_SEEN, NOTHING_HEARD = len(CONCEPTS), len(CONCEPTS) + 1
"""The dimensions that hold a constant: the first in pictures, the second in sounds."""
DIM = len(CONCEPTS) + 2
"""Width of a common space of concepts."""


def concepts_hash() -> str:
    """SHA-256 of the names and classes, whatever their layout in the file."""
    return hashlib.sha256(repr(CONCEPTS).encode()).hexdigest()


def strongest(scores: Tensor, classes: Sequence[Sequence[int]]) -> Tensor:
    """The highest score among the classes of each concept.

    Args:
        scores: [B, C, ...].
        classes: for each concept, which of the C.

    Returns:
        [B, concepts, ...]; minus infinity for a concept without classes.
    """
    none = scores.new_full((len(scores), *scores.shape[2:]), -torch.inf)
    return torch.stack([scores[:, list(group)].amax(1) if group else none for group in classes], 1)


def concept_projections() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First projections into the common space, for trunks whose features are followed by class scores.

    Features count nothing yet, class scores go to their concepts, and the biases hold the constants of nothing.

    Returns:
        Weight [D, 1280 + 1000, 1, 1] and bias [D] for `efficientnet_lite0+classes`, weight [D, 1024 + 521] and bias
        [D] for `yamnet+classes`, float32.
    """
    image = torch.zeros(DIM, lite0.WIDTH + lite0.CLASSES, 1, 1)
    sound = torch.zeros(DIM, yamnet.WIDTH + yamnet.CLASSES)
    for row, concept in enumerate(CONCEPTS):
        share = IMAGE_PER_CLASS / max(1, len(concept.imagenet)) ** 0.5
        image[row, [lite0.WIDTH + number for number in concept.imagenet]] = share
        sound[row, [yamnet.WIDTH + number for number in concept.audioset]] = SOUND_PER_CLASS
    return image, _constant(NOTHING_SEEN, IMAGE_NOTHING), sound, _constant(NOTHING_HEARD, SOUND_NOTHING)


def _constant(dimension: int, value: float) -> Tensor:
    bias = torch.zeros(DIM)
    bias[dimension] = value
    return bias
