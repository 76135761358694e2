"""A vision transformer as a trunk that sees: one cell for each patch of the picture.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. The network and its key names are torchvision's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avloc.errors import UsageError

SIDE = 224
"""Pixels across a picture: the embeddings of places are made for no other. A patch has 16."""
WIDTHS = {"vit_b_16": 768}
"""Channels of each of these networks of torchvision."""


class PatchTokens(nn.Module):
    """Cells [B, width, 14, 14] of pictures of 224 x 224 pixels: the normalised last tokens of the patches.

    The class token runs along, since the patches look at it, and stays inside.

    Args:
        name: one of `WIDTHS`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        import torchvision

        whole = torchvision.models.get_model(name, weights=None)
        self.class_token, self.conv_proj, self.encoder = whole.class_token, whole.conv_proj, whole.encoder

    def forward(self, frames_B3HW: Tensor) -> Tensor:
        """As said above.

        Raises:
            UsageError: pictures of another size.
        """
        check_side(*frames_B3HW.shape[2:])
        patches = self.conv_proj(frames_B3HW)
        tokens = patches.flatten(2).transpose(1, 2)
        seen: Tensor = self.encoder(torch.cat((self.class_token.expand(len(tokens), -1, -1), tokens), 1))
        return seen[:, 1:].transpose(1, 2).reshape(*seen.shape[:1], -1, *patches.shape[2:])


def check_side(height: int, width: int) -> None:
    """Raise UsageError where a picture has another size than the embeddings of places."""
    if (height, width) != (SIDE, SIDE):
        reason = f"a vision transformer sees {SIDE} x {SIDE} pixels, not {width} x {height}"
        raise UsageError(reason, hint=f"--set model.frame={SIDE}")
