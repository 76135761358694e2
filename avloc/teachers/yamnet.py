"""YAMNet hears: which concepts sound in a clip.

Shape letters: B batch, D concepts and the two of nothing.
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


def heard_concepts(logits: Tensor) -> Tensor:
    """Unit vectors [B, D]: for each concept the highest logit of its AudioSet classes, so far as it is over -5.

    Args:
        logits: [B, 521].
    """
    best = strongest(logits, [concept.audioset for concept in CONCEPTS])
    return unit_concepts((best + CLASS_OFFSET).relu(), heard=AUDIO_BIAS)


class YamnetTeacher(StoredSoundTeacher):
    """The concepts that sound in the store's window of a clip, a unit vector [D].

    Args:
        spec: of the store that is heard.
        weights: YAMNet's, from `avloc.weights.locate`.
        device: where the network runs; float32 throughout.

    Raises:
        Refused: the sounds of the store are too short for YAMNet, or lack the bandwidth it listens to.
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
        """The network, loaded when first needed."""
        return load_yamnet(self.weights.path).to(self.device)

    def stamp(self) -> HintStamp:
        """Who answers, and how."""
        settings = {
            "concepts": concepts_hash(),
            "offset": CLASS_OFFSET,
            "nothing": AUDIO_BIAS,
            "rate": MEL_RATE,
            "seconds": self.spec.seconds,
        }
        return HintStamp(teacher=self.name, shape=(DIM,), weights=self.weights.hashes, settings=settings)

    def heard(self, sound_BN: Tensor) -> list[Hint]:
        """Vectors of length 1; silence too has one."""
        return list(heard_concepts(self.model(log_mel(sound_BN, MEL_RATE))).cpu().numpy())
