"""LVS: two trunks on a fine grid, without projections, and negatives inside the picture itself.

Chen, Xie, Afouras, Nagrani, Vedaldi and Zisserman, "Localizing Visual Sounds the Hard Way", CVPR 2021. Two ResNet18
whose last part keeps its resolution: cells of 16 pixels. What is surely background of a picture is a negative for its
own sound, what is neither surely background nor surely the source counts for nothing. The authors released the networks
and the forward pass of the loss; how it is trained here follows their paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from avloc import losses
from avloc.config import ModelConfig
from avloc.distributed import Peers
from avloc.errors import UsageError
from avloc.methods.base import Embeddings, Published, tensors_of
from avloc.methods.ezvsl import EZVSL
from avloc.networks.trunks import keep_resolution
from avloc.registry import METHOD_SPECS

_STEMS = {"imgnet": "conv1", "audnet": "conv1_a"}
"""Each published trunk has a stem for pictures, one for sound and one for optical flow."""


class LVS(EZVSL):
    """EZ-VSL's forerunner: the trunks' own 512 channels are the common space.

    Args:
        config: trunks, temperatures and thresholds; `dim` is the trunks' width.

    Raises:
        UsageError: trunks of another width, or of a kind whose resolution is not kept in its last part.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        for trunk, name in ((self.imgnet, config.vision_trunk), (self.audnet, config.audio_trunk)):
            keep_resolution(trunk, name)

    def projections(self, vision_width: int, audio_width: int) -> tuple[nn.Module, nn.Module]:
        """None: what the trunks give is compared."""
        if {vision_width, audio_width} != {self.config.dim}:
            raise UsageError(
                f"model.dim = {self.config.dim} is impossible for LVS, which has no projections; "
                f"valid: the width of both trunks, here {vision_width} and {audio_width}"
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
            logits = logits[relation_BB.diagonal()[peers.rows] > 0]
        return losses.first_cross_entropy(logits, peers)

    def freeze_trunks(self) -> None:
        """Impossible: there is nothing else."""
        raise UsageError("freeze = true leaves LVS nothing to learn: it has no projections; valid: false")

    @classmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """Entry `model_state_dict`, prefix `module.`; stems that a trunk does not use, and its `fc`, stay behind."""
        if len(files) != 1:
            return None
        (content,) = files.values()
        state = tensors_of(content, "model_state_dict")
        if not all(f"{trunk}.{stem}.weight" in state for trunk, stem in _STEMS.items()):
            return None
        kept = {}
        for key, value in state.items():
            trunk, _, place = key.partition(".")
            part = place.partition(".")[0]
            if part == _STEMS.get(trunk):
                kept[f"{trunk}.conv1.weight"] = value
            elif not part.startswith(("conv1", "fc")):
                kept[key] = value
        return ModelConfig(**METHOD_SPECS["lvs"].settings["model"]), kept
