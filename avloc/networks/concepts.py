"""Concepts: things that are classes both of AudioSet and of ImageNet (`data/concepts.txt`).

They are the dimensions of a common space in which pretrained audio and image classifiers are comparable without
training. Two more dimensions hold constants, one of images and one of audio, so that vectors without a strong concept
are not similar across modalities.

Shape letters: B batch, C classes, D concepts and the two constants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor

from avloc.networks import lite0, yamnet
from avloc.transforms import constant

IMAGE_CLASS_WEIGHT = 0.5
"""Initial weight of an ImageNet class in its concept, over the square root of the concept's number of classes."""
AUDIO_CLASS_WEIGHT = 1.0
"""Initial weight of an AudioSet class in its concepts."""
IMAGE_BIAS, AUDIO_BIAS = 16.0, 0.3
"""The constants, of a cell of an image and of a sound."""


@dataclass(frozen=True)
class Concept:
    """One dimension of the common space."""

    name: str
    audioset: tuple[int, ...]
    """Rows of YAMNet's class map, rising."""
    imagenet: tuple[int, ...]
    """Classes of ImageNet-1k, rising; () for sounds without a visible source."""


def read_concepts(text: str) -> tuple[Concept, ...]:
    """The table in the format of `data/concepts.txt`.

    Raises:
        ValueError: a line is not `name | classes | classes`, or has an unknown class.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return tuple(_read_line(line) for line in lines)


def _read_line(line: str) -> Concept:
    name, audioset, imagenet = (part.strip() for part in line.split("|"))
    return Concept(name, _numbers(audioset, yamnet.CLASSES), _numbers(imagenet, lite0.CLASSES))


def _numbers(text: str, classes: int) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split():
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    if found and max(found) >= classes:
        raise ValueError(f"class {max(found)} in {text!r}: there are {classes}")
    return tuple(sorted(found))


CONCEPTS = read_concepts(files("avloc.networks").joinpath("data", "concepts.txt").read_text(encoding="utf-8"))
IMAGE_CONSTANT, AUDIO_CONSTANT = len(CONCEPTS), len(CONCEPTS) + 1
"""The dimensions of the constants."""
DIM = len(CONCEPTS) + 2
"""Width of the common space."""


def concepts_hash() -> str:
    """SHA-256 of the names and classes, independent of the layout of the file."""
    return hashlib.sha256(repr(CONCEPTS).encode()).hexdigest()


def strongest(scores: Tensor, classes: tuple[tuple[int, ...], ...]) -> Tensor:
    """The highest of the scores [B, C, ...] among the `classes` of each concept.

    Returns:
        [B, concepts, ...]; minus infinity for a concept without classes.
    """
    none = torch.full_like(scores[:, 0], -torch.inf)
    of_classes = scores[:, constant(_in_order(classes), scores.new_empty(0, dtype=torch.int64))]
    groups = torch.split(of_classes, [len(group) for group in classes], 1)
    return torch.stack([group.amax(1) if group.shape[1] else none for group in groups], 1)


@cache
def _in_order(classes: tuple[tuple[int, ...], ...]) -> Callable[[], Tensor]:
    return lambda: torch.tensor([number for group in classes for number in group])


def concept_projections() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Initial projections into the common space, for backbones with class scores.

    Features have weight 0, class scores the weights of their concepts; the biases are the constants.

    Returns:
        Weight [D, 1280 + 1000, 1, 1] and bias [D] for `efficientnet_lite0+classes`, weight [D, 1024 + 521] and bias
        [D] for `yamnet+classes`, float32.
    """
    image = torch.zeros(DIM, lite0.WIDTH + lite0.CLASSES, 1, 1)
    audio = torch.zeros(DIM, yamnet.WIDTH + yamnet.CLASSES)
    for row, concept in enumerate(CONCEPTS):
        share = IMAGE_CLASS_WEIGHT / max(1, len(concept.imagenet)) ** 0.5
        image[row, [lite0.WIDTH + number for number in concept.imagenet]] = share
        audio[row, [yamnet.WIDTH + number for number in concept.audioset]] = AUDIO_CLASS_WEIGHT
    return image, _constant(IMAGE_CONSTANT, IMAGE_BIAS), audio, _constant(AUDIO_CONSTANT, AUDIO_BIAS)


def _constant(dimension: int, value: float) -> Tensor:
    bias = torch.zeros(DIM)
    bias[dimension] = value
    return bias
