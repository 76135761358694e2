"""YAMNet teacher: the concepts in a clip's sound.

Shape letters: B batch, D concepts and the two "nothing" components.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from avloc.errors import Refused
from avloc.networks.concepts import AUDIO_BIAS, CONCEPTS, DIM, concepts_hash, strongest
from avloc.networks.yamnet import CLASS_OFFSET, YAMNet, load_yamnet
from avloc.registry import StoreSpec
from avloc.store import HintStamp
from avloc.teachers.base import Hint, StoredSoundTeacher, unit_concepts
from avloc.transforms import MEL_RATE, MEL_WINDOW, log_mel
from avloc.weights import YAMNET, Located, Weight


def audio_concepts(logits: Tensor) -> Tensor:
    """Unit vectors [B, D]: a concept's strength is relu(highest logit of its AudioSet classes + 5).

    Args:
        logits: [B, 521].
    """
    best = strongest(logits, [concept.audioset for concept in CONCEPTS])
    return unit_concepts((best + CLASS_OFFSET).relu(), audio_bias=AUDIO_BIAS)


class YamnetTeacher(StoredSoundTeacher):
    """The concepts in a clip's sound, a unit vector [D].

    Raises:
        Refused: the sounds of the store are too short, or have a sample rate below 16 kHz.
    """

    name = "yamnet"
    weight: Weight = YAMNET

    def __init__(self, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        if spec.rate < MEL_RATE:
            reason = f"the store holds sound at {spec.rate} Hz; YAMNet needs {MEL_RATE} Hz"
            raise Refused(reason, hint=f"Prepare it again with --rate {MEL_RATE}.")
        if int(spec.seconds * MEL_RATE) < MEL_WINDOW:
            raise Refused(f"clips of {spec.seconds} s are too short for YAMNet, which needs {MEL_WINDOW / MEL_RATE} s")
        super().__init__(spec, weights, device)

    @cached_property
    def model(self) -> YAMNet:
        """The network, loaded on first use."""
        return load_yamnet(self.weights.path).to(self.device)

    def stamp(self) -> HintStamp:
        """Name, weights and settings."""
        settings = {
            "concepts": concepts_hash(),
            "offset": CLASS_OFFSET,
            "nothing": AUDIO_BIAS,
            "rate": MEL_RATE,
            "seconds": self.spec.seconds,
        }
        return HintStamp(teacher=self.name, shape=(DIM,), weights=self.weights.hashes, settings=settings)

    def predict(self, sound_BN: Tensor) -> list[Hint]:
        """Unit vectors, also for silence; never None."""
        return list(audio_concepts(self.model(log_mel(sound_BN, MEL_RATE))).cpu().numpy())
