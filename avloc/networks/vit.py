"""A vision transformer as a backbone: one cell for each 16 x 16 patch of a 224 x 224 image.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. The network and its key names are torchvision's.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

from avloc.errors import UsageError
from avloc.networks.backbones import BackboneName
from avloc.networks.base import Backbone, BackboneOutput

SIDE = 224
"""Side of an image in pixels, fixed by the position embeddings."""


class ViTBackbone(Backbone):
    """Features are the encoder's output tokens of the patches, after the last normalisation, [B, 768, 14, 14].

    The class token takes part in attention and is dropped from the output.
    """

    class_token: nn.Parameter
    conv_proj: nn.Module
    encoder: nn.Module

    def __init__(self, name: BackboneName) -> None:
        whole = torchvision.models.get_model(name.network, weights=None)
        super().__init__(name, 3, {"conv_proj": whole.conv_proj, "encoder": whole.encoder})
        self.class_token = whole.class_token

    def forward(self, inputs_BCHW: Tensor) -> BackboneOutput:
        """Encode images.

        Raises:
            UsageError: images of another size.
        """
        self._check_size(*inputs_BCHW.shape[2:])
        patches = self.conv_proj(inputs_BCHW)
        tokens = patches.flatten(2).transpose(1, 2)
        encoded: Tensor = self.encoder(torch.cat((self.class_token.expand(len(tokens), -1, -1), tokens), 1))
        features = encoded[:, 1:].transpose(1, 2).reshape(*encoded.shape[:1], -1, *patches.shape[2:])
        return BackboneOutput(features, prior_features=features)

    def width(self) -> int:
        """Size of a token."""
        return self.class_token.size(-1)

    def check_frame(self, side: int) -> None:
        """Raise UsageError for another side than 224 pixels."""
        self._check_size(side, side)

    def _check_size(self, height: int, width: int) -> None:
        if (height, width) != (SIDE, SIDE):
            reason = f"a vision transformer takes {SIDE} x {SIDE} pixels, not {width} x {height}"
            raise UsageError(reason, hint=f"--set model.frame={SIDE}")
