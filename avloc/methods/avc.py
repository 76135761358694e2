"""AVC: EZ-VSL's network, wider, taught by hints from a sound teacher and an object teacher.

Yaghoubi, Kelm, Gerkmann and Frintrop, "Acoustic and Visual Knowledge Distillation for Contrastive Audio-Visual
Localization", ICMI 2023. The teachers (PANNs Cnn14 and DETR-R50) speak through stored hints during training and are
gone afterwards.
"""

from __future__ import annotations

from torch import Tensor

from avloc import losses
from avloc.config import LossWeights
from avloc.methods.ezvsl import EZVSL, Embeddings, HintBatch, Supervision
from avloc.parallel import ALONE, Peers


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
        """Named loss terms, before their weights; a term whose weight is 0 or that no clip has hints for is absent."""
        terms = super().losses(embeddings, hints, weights, truth, peers)
        found: dict[str, Tensor | None] = {}
        if weights.audio_hint and hints.audio is not None:
            found["audio_hint"] = losses.audio_hint(embeddings.audio, hints.audio, peers)
        if weights.visual_hint and hints.visual is not None and hints.visual_present is not None:
            form = losses.visual_hint if hints.visual.dim() == 3 else losses.visual_hint_vectors
            found["visual_hint"] = form(embeddings.image, hints.visual, hints.visual_present, peers)
        return terms | {name: term for name, term in found.items() if term is not None}
