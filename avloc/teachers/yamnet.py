"""YAMNet teacher: the concepts in a clip's sound.

Shape letters: B batch, D concepts and the two constants.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from avloc.networks.concepts import AUDIO_BIAS, CONCEPTS, DIM, concepts_hash, strongest
from avloc.networks.yamnet import CLASS_OFFSET, YAMNet, load_yamnet
from avloc.registry import StoreSpec
from avloc.teachers.base import SoundTeacher, TeacherContext, unit_concepts
from avloc.transforms import MEL_WINDOW, log_mel
from avloc.weights import YAMNET, Located


def audio_concepts(logits: Tensor) -> Tensor:
    """Unit vectors [B, D] of logits [B, 521]: a concept's strength is relu(highest logit of its classes + 5)."""
    best = strongest(logits, tuple(concept.audioset for concept in CONCEPTS))
    return unit_concepts((best + CLASS_OFFSET).relu(), audio_bias=AUDIO_BIAS)


class YamnetTeacher(SoundTeacher[YAMNet]):
    """The concepts in a clip's sound, a unit vector [D]."""

    name = "yamnet"
    title = "YAMNet"
    weight = YAMNET
    load = staticmethod(load_yamnet)
    min_samples = MEL_WINDOW

    def __init__(self, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        settings = {"concepts": concepts_hash(), "offset": CLASS_OFFSET, "nothing": AUDIO_BIAS}
        super().__init__(spec, weights, device, shape=(DIM,), settings=settings)

    @classmethod
    def build(cls, context: TeacherContext) -> Self:
        """It has no options."""
        return cls(context.store.spec, context.find(cls.weight), context.device)

    def predict(self, batch: Tensor) -> Tensor:
        """Unit vectors, also for silence; never NaN."""
        return audio_concepts(self.model(log_mel(batch, self.rate)).float())
