"""EZ-VSL: two backbones, a common space, and a contrastive loss on the best cell for each sound.

Mo and Morgado, "Localizing Visual Sounds the Easy Way", ECCV 2022. Two ResNet18 (the vision one from ImageNet), a 1x1
convolution and a linear layer into a space of 512 dimensions, cosine similarity of every cell with the sound's vector.
Attribute names are the published checkpoints' key names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from avloc import losses
from avloc.config import LossWeights, ModelConfig
from avloc.distributed import ALONE, Peers
from avloc.methods.base import Embeddings, HintBatch, Method, Published, Supervision, tensors_of
from avloc.networks.backbones import AUDIO_ONLY
from avloc.networks.base import BackboneOutput, init_from_scratch, mean_activation
from avloc.networks.builder import audio_transform, build_backbone

AVC_DIM = 2_048


class EZVSL(Method):
    """The two-stream network and its contrastive loss."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tau = config.tau
        self.imgnet = build_backbone(config.vision_trunk)
        self.imgnet.check_frame(config.frame)
        self.audnet = build_backbone(config.audio_trunk, channels=1)
        self._audio_transform = audio_transform(self.audnet.name.network, config.rate)
        self.img_proj, self.aud_proj = self.projections(self.imgnet.width(), self.audnet.width())
        for part in (self.audnet, self.img_proj, self.aud_proj):
            init_from_scratch(part)

    def projections(self, vision_width: int, audio_width: int) -> tuple[nn.Module, nn.Module]:
        """Layers from the backbones' channels into the common space, for cells and for sounds."""
        dim = self.config.dim
        return nn.Conv2d(vision_width, dim, kernel_size=1), nn.Linear(audio_width, dim)

    def backbones(self) -> list[nn.Module]:
        """Those of images and of audio."""
        return [self.imgnet, self.audnet]

    def trainable(self, name: str) -> bool:
        """A frozen pretrained head and what it depends on stay frozen."""
        network, _, part = name.partition(".")
        return network != "imgnet" or self.imgnet.trainable(part)

    def audio_input(self, sound_BN: Tensor, rate: int) -> Tensor:
        """Log-spectrograms [B, 1, 257, T], or log-mel spectrograms [B, 1, 64, T] (`audio_transform`)."""
        return self._audio_transform(sound_BN, rate)

    def encode_image(self, frames_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors [B, D, h, w] of normalised frames, and the mean activation of the object prior's features."""
        out: BackboneOutput = self.imgnet(frames_B3HW)
        cells: Tensor = self.img_proj(out.concatenated())
        return F.normalize(cells.float(), dim=1), mean_activation(out.prior_features)

    def encode_audio(self, spectrograms: Tensor) -> Tensor:
        """Unit vectors [B, D] of spectrograms of any width, as `audio_input` returns them."""
        out: BackboneOutput = self.audnet(spectrograms)
        vector: Tensor = self.aud_proj(out.concatenated().amax((2, 3)))
        return F.normalize(vector.float(), dim=1)

    def losses(
        self,
        embeddings: Embeddings,
        hints: HintBatch,  # noqa: ARG002
        weights: LossWeights,
        truth: Supervision | None = None,
        peers: Peers = ALONE,
    ) -> dict[str, Tensor]:
        """Unweighted loss terms: `contrastive`, and `box` and `peak` if they have weights; hints are not used.

        Where `peers` share the batch, their mean is the term (`avloc.losses`).
        """
        image, audio, truth = embeddings.image, embeddings.audio, truth or Supervision()
        masked = truth.relation if weights.same_class == "masked" else None
        terms = {"contrastive": self.contrast(embeddings, masked, peers)}
        if truth.relation is not None and truth.cover is not None and truth.boxed is not None:
            boxes = (truth.relation, truth.cover, truth.boxed)
            found = {
                "box": losses.box(image, audio, *boxes, peers) if weights.box else None,
                "peak": losses.peak(image, audio, *boxes, self.tau, peers) if weights.peak else None,
            }
            terms |= {name: term for name, term in found.items() if term is not None}
        return terms

    def contrast(self, embeddings: Embeddings, relation_BB: Tensor | None, peers: Peers) -> Tensor:
        """The contrastive term; `relation_BB` gives the negatives of each image (`avloc.losses`)."""
        return losses.contrastive(embeddings.image, embeddings.audio, self.tau, relation_BB, peers)

    def pretrained(self) -> list[tuple[nn.Module, str]]:
        """The image backbone; and the audio backbone if it is an audio network."""
        backbones = (self.imgnet, self.audnet) if self.audnet.name.network in AUDIO_ONLY else (self.imgnet,)
        return [(backbone, backbone.name.network) for backbone in backbones]

    @classmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """Entry `model`, with or without the prefix `module.`; any width but AVC's; audio at each file's own rate."""
        state = two_stream_state(files)
        if state is None or len(state["img_proj.weight"]) == AVC_DIM:
            return None
        return ModelConfig(method="ezvsl", dim=len(state["img_proj.weight"]), rate=0), state


def two_stream_state(files: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor] | None:
    """The tensors of a checkpoint of EZ-VSL or AVC; None if it is of neither."""
    if len(files) != 1:
        return None
    (content,) = files.values()
    state = tensors_of(content, "model")
    shape = state["img_proj.weight"].shape if "img_proj.weight" in state else ()
    return state if "aud_proj.weight" in state and len(shape) == 4 else None
