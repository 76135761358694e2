"""LVS: two backbones with a fine grid, no projections, and negatives within the image.

Chen, Xie, Afouras, Nagrani, Vedaldi and Zisserman, "Localizing Visual Sounds the Hard Way", CVPR 2021. Two ResNet18
whose last layer keeps its resolution: cells of 16 pixels. Background cells are negatives for the image's own sound;
cells between the thresholds of source and background are ignored. The authors released the networks and the forward
pass of the loss; training follows their paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avloc import losses
from avloc.config import ModelConfig
from avloc.distributed import Peers
from avloc.errors import UsageError
from avloc.methods.base import Embeddings, Published, tensors_of
from avloc.methods.ezvsl import EZVSL
from avloc.registry import METHOD_SPECS
from avloc.transforms import on_device

_STEMS = {"imgnet": "conv1", "audnet": "conv1_a"}
"""Each published backbone has a stem for images, one for audio and one for optical flow."""


class LVS(EZVSL):
    """EZ-VSL's forerunner: the 512 channels of the backbones are the common space.

    Raises:
        UsageError: backbones of another width, or without a `layer4` that can keep its resolution.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.imgnet.keep_resolution()
        self.audnet.keep_resolution()

    def projections(self, vision_width: int, audio_width: int) -> tuple[nn.Module, nn.Module]:
        """None: the outputs of the backbones are compared directly."""
        if {vision_width, audio_width} != {self.config.dim}:
            raise UsageError(
                f"model.dim = {self.config.dim} is impossible for LVS, which has no projections; "
                f"valid: the width of both backbones, here {vision_width} and {audio_width}"
            )
        return nn.Identity(), nn.Identity()

    def contrast(self, embeddings: Embeddings, relation_BB: Tensor | None, peers: Peers) -> Tensor:
        """The tri-map loss."""
        own = self.config.own
        logits = losses.trimap_logits(
            embeddings.image,
            embeddings.audio,
            positive=own["positive"],
            negative=own["negative"] if own["trimap"] else own["positive"],
            tau=self.tau,
            temperature=own["temperature"],
            legacy_diagonal=own["legacy_diagonal"],
            relation_BB=relation_BB,
            peers=peers,
        )
        if relation_BB is not None:
            rows = losses.rows_of(relation_BB.diagonal()[peers.rows] > 0)
            logits = logits[on_device(rows, logits.device)]
        first = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        return losses.row_cross_entropy(logits, first, peers)

    def freeze_backbones(self) -> None:
        """Refused: there are no other parameters."""
        raise UsageError("freeze = true leaves LVS no trainable parameters: it has no projections; valid: false")

    @classmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """Entry `model_state_dict`, prefix `module.`; unused stems and `fc` are dropped."""
        if len(files) != 1:
            return None
        (content,) = files.values()
        state = tensors_of(content, "model_state_dict")
        if not all(f"{backbone}.{stem}.weight" in state for backbone, stem in _STEMS.items()):
            return None
        kept = {}
        for key, value in state.items():
            backbone, _, place = key.partition(".")
            part = place.partition(".")[0]
            if part == _STEMS.get(backbone):
                kept[f"{backbone}.conv1.weight"] = value
            elif not part.startswith(("conv1", "fc")):
                kept[key] = value
        return ModelConfig(**METHOD_SPECS["lvs"].settings["model"]), kept
