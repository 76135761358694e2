"""EZ-VSL: two trunks, a common space, the best cell against the sound.

Mo and Morgado, "Localizing Visual Sounds the Easy Way", ECCV 2022. Two ResNet18 (the vision one from ImageNet), a 1x1
convolution and a linear layer into a space of 512 dimensions, cosine similarity of every cell with the sound's vector.
Attribute names are the published checkpoints' key names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avloc import losses
from avloc.config import LossWeights, ModelConfig
from avloc.networks.trunks import build_trunk, class_channels, init_from_scratch
from avloc.parallel import ALONE, Peers


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors of a batch: `image` [B, D, h, w] per cell, `audio` [B, D].

    `activation` [B, h, w] is the mean absolute activation of the features that the vision trunk sees, float32 and
    without gradients: it says where objects are, whatever is heard. None where nobody computed it.
    """

    image: Tensor
    audio: Tensor
    activation: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class HintBatch:
    """Teachers' hints of a batch. None where they are not in use.

    `audio` [B, D]; `visual` [B, h, w], one number a cell as DETR's 25x25, or [B, D, h, w], a vector a cell as Lite0's
    7x7, with `visual_present` [B] bool: rows without a hint hold anything.
    """

    audio: Tensor | None = None
    visual: Tensor | None = None
    visual_present: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What annotations say of a batch. None where they are not in use.

    `relation` [B, B] int8, picture first, of all clips of the batch, whichever process has them: 1 own sound, -1 a
    wrong one, 0 neither; `cover` [B, h, w] share of each cell under boxes of what sounds, with `boxed` [B] bool: rows
    without boxes hold anything.
    """

    relation: Tensor | None = None
    cover: Tensor | None = None
    boxed: Tensor | None = None


class EZVSL(nn.Module):
    """The two-stream network and its contrastive loss.

    Args:
        config: trunks, width of the common space and temperature.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.tau = config.tau
        self.imgnet, vision_width = build_trunk(config.vision_trunk)
        self.vision_features = vision_width - class_channels(config.vision_trunk)
        self.frozen = False
        self.img_proj = nn.Conv2d(vision_width, config.dim, kernel_size=1)
        self.audnet, audio_width = build_trunk(config.audio_trunk, channels=1)
        self.aud_proj = nn.Linear(audio_width, config.dim)
        for part in (self.audnet, self.img_proj, self.aud_proj):
            init_from_scratch(part)

    def freeze_trunks(self) -> None:
        """Let only the projections learn. The trunks stay in evaluation mode, their statistics as they are."""
        self.frozen = True
        self.imgnet.requires_grad_(requires_grad=False)
        self.audnet.requires_grad_(requires_grad=False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As every module, except for frozen trunks."""
        super().train(mode)
        if self.frozen:
            self.imgnet.eval()
            self.audnet.eval()
        return self

    def encode_image(self, frames_B3HW: Tensor) -> Tensor:
        """Unit features [B, D, H/32, W/32] of normalised frames."""
        return self.see(frames_B3HW)[0]

    def see(self, frames_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """`encode_image`, and the `activation` of `Embeddings`, in one pass through the trunk."""
        seen: Tensor = self.imgnet(frames_B3HW)
        cells: Tensor = self.img_proj(seen)
        activation = seen.detach()[:, : self.vision_features].float().abs().mean(1)
        return F.normalize(cells.float(), dim=1), activation

    def encode_audio(self, spectrograms_B1FT: Tensor) -> Tensor:
        """Unit vectors [B, D] of log-spectrograms or log-mel bands of any width."""
        pooled = self.audnet(spectrograms_B1FT).amax((2, 3))
        vector: Tensor = self.aud_proj(pooled)
        return F.normalize(vector.float(), dim=1)

    def losses(
        self,
        embeddings: Embeddings,
        hints: HintBatch,  # noqa: ARG002
        weights: LossWeights,
        truth: Supervision | None = None,
        peers: Peers = ALONE,
    ) -> dict[str, Tensor]:
        """Named loss terms, before their weights. EZ-VSL has one, takes no hints and learns boxes only if asked to.

        Where `peers` share the batch, their mean is the term (`avloc.losses`).
        """
        image, audio, truth = embeddings.image, embeddings.audio, truth or Supervision()
        masked = truth.relation if weights.same_class == "masked" else None
        terms = {"contrastive": losses.contrastive(image, audio, self.tau, masked, peers)}
        if truth.relation is not None and truth.cover is not None and truth.boxed is not None:
            taught = (truth.relation, truth.cover, truth.boxed)
            found = {
                "box": losses.box(image, audio, *taught, peers) if weights.box else None,
                "peak": losses.peak(image, audio, *taught, self.tau, peers) if weights.peak else None,
            }
            terms |= {name: term for name, term in found.items() if term is not None}
        return terms

    @staticmethod
    def similarity(embeddings: Embeddings) -> Tensor:
        """Similarity maps [B, h, w]: cosine of every cell with its own sound, in [-1, 1]."""
        return torch.einsum("bdhw,bd->bhw", embeddings.image, embeddings.audio)
