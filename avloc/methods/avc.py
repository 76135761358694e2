"""AVC: EZ-VSL's network, wider, trained with hints of an audio teacher and an object teacher.

Yaghoubi, Kelm, Gerkmann and Frintrop, "Acoustic and Visual Knowledge Distillation for Contrastive Audio-Visual
Localization", ICMI 2023. The outputs of the teachers (PANNs Cnn14 and DETR-R50) are stored as hints for training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from avloc import losses
from avloc.config import LossWeights, ModelConfig
from avloc.distributed import ALONE, Peers
from avloc.methods.base import Embeddings, HintBatch, Published, Supervision
from avloc.methods.ezvsl import AVC_DIM, EZVSL, two_stream_state


class AVC(EZVSL):
    """Two ResNet18 with a 2048-d common space; contrastive, audio-hint and visual-hint terms."""

    def losses(
        self,
        embeddings: Embeddings,
        hints: HintBatch,
        weights: LossWeights,
        truth: Supervision | None = None,
        peers: Peers = ALONE,
    ) -> dict[str, Tensor]:
        """Unweighted loss terms; a term with weight 0, or without hints in the batch, is absent."""
        terms = super().losses(embeddings, hints, weights, truth, peers)
        found: dict[str, Tensor | None] = {}
        if weights.audio_hint and hints.audio is not None:
            found["audio_hint"] = losses.audio_hint(embeddings.audio, hints.audio, peers)
        if weights.visual_hint and hints.visual is not None and hints.visual_present is not None:
            found["visual_hint"] = losses.visual_hint(embeddings.image, hints.visual, hints.visual_present, peers)
        return terms | {name: term for name, term in found.items() if term is not None}

    @classmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """As EZ-VSL's, 2048 wide. It was trained on spectrograms of 44.1 kHz, 554 frames wide.

        The paper's 22.05 kHz does not fit the published training code (`datasets.py`).
        """
        state = two_stream_state(files)
        if state is None or len(state["img_proj.weight"]) != AVC_DIM:
            return None
        return ModelConfig(method="avc", dim=AVC_DIM, rate=44_100), state
