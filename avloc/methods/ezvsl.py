"""EZ-VSL: two trunks, a common space, the best cell against the sound.

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
from avloc.networks.lite0 import BESIDE_PUBLISHED
from avloc.networks.trunks import (
    SOUND_TRUNKS,
    build_trunk,
    check_frame,
    class_channels,
    family,
    heard_by,
    init_from_scratch,
    published_channels,
)

AVC_DIM = 2_048


class EZVSL(Method):
    """The two-stream network and its contrastive loss.

    Args:
        config: trunks, width of the common space and temperature.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tau = config.tau
        check_frame(config.vision_trunk, config.frame)
        self._heard = heard_by(config.audio_trunk, config.rate)
        self.imgnet, vision_width = build_trunk(config.vision_trunk)
        self._published = published_channels(config.vision_trunk)
        self._projected = vision_width - self._published
        self.vision_features = self._projected - class_channels(config.vision_trunk)
        self.audnet, audio_width = build_trunk(config.audio_trunk, channels=1)
        self.img_proj, self.aud_proj = self.projections(self._projected, audio_width)
        for part in (self.audnet, self.img_proj, self.aud_proj):
            init_from_scratch(part)

    def projections(self, vision_width: int, audio_width: int) -> tuple[nn.Module, nn.Module]:
        """What leads from the trunks' channels into the common space, for cells and for sounds."""
        dim = self.config.dim
        return nn.Conv2d(vision_width, dim, kernel_size=1), nn.Linear(audio_width, dim)

    def freeze_trunks(self) -> None:
        """Let only the projections learn."""
        self.freeze(self.imgnet, self.audnet)

    def may_learn(self, name: str) -> bool:
        """A published end stays what it is, and so does all that it stands on."""
        part = name.removeprefix("imgnet.")
        return not self._published or not name.startswith("imgnet") or f"{part}.".startswith(BESIDE_PUBLISHED)

    def hear(self, sound_BN: Tensor, rate: int) -> Tensor:
        """Log-spectrograms [B, 1, 257, T], or log-mel bands [B, 1, 64, T] (`avloc.networks.trunks.heard_by`)."""
        return self._heard(sound_BN, rate)

    def see(self, frames_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features [B, D, h, w] of normalised frames, and their `activation`, in one pass.

        Where the trunk has its published end beside the one that learns, the activation is that of the published end.
        """
        seen: Tensor = self.imgnet(frames_B3HW)
        cells: Tensor = self.img_proj(seen[:, : self._projected])
        features = slice(self._projected, None) if self._published else slice(self.vision_features)
        activation = seen.detach()[:, features].float().abs().mean(1)
        return F.normalize(cells.float(), dim=1), activation

    def encode_audio(self, heard: Tensor) -> Tensor:
        """Unit vectors [B, D] of log-spectrograms or log-mel bands of any width."""
        pooled = self.audnet(heard).amax((2, 3))
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
        terms = {"contrastive": self.contrast(embeddings, masked, peers)}
        if truth.relation is not None and truth.cover is not None and truth.boxed is not None:
            taught = (truth.relation, truth.cover, truth.boxed)
            found = {
                "box": losses.box(image, audio, *taught, peers) if weights.box else None,
                "peak": losses.peak(image, audio, *taught, self.tau, peers) if weights.peak else None,
            }
            terms |= {name: term for name, term in found.items() if term is not None}
        return terms

    def contrast(self, embeddings: Embeddings, relation_BB: Tensor | None, peers: Peers) -> Tensor:
        """The contrastive term; `relation_BB` says whose sounds are wrong for a picture (`avloc.losses`)."""
        return losses.contrastive(embeddings.image, embeddings.audio, self.tau, relation_BB, peers)

    def pretrained(self) -> list[tuple[nn.Module, str]]:
        """The trunk that sees; and the one that hears where it was made to hear."""
        trunks: list[tuple[nn.Module, str]] = [(self.imgnet, self.config.vision_trunk)]
        if family(self.config.audio_trunk) in SOUND_TRUNKS:
            trunks.append((self.audnet, self.config.audio_trunk))
        return trunks

    @classmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """Entry `model`, with or without the prefix `module.`; any width but AVC's. It takes each file's own rate."""
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
