"""Convolutions that pad as TensorFlow does, for weights that were trained there."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SameConv2d(nn.Conv2d):
    """A convolution whose output has `ceil(input / stride)` cells, TensorFlow's "SAME".

    The padding follows the size of the input, and where its sum is odd, the end gets the larger part: a symmetric
    padding would look half a pixel aside. Dilation is not provided for.
    """

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)]."""
        size, sides = features_BCHW.shape[-2:], zip(self.kernel_size, self.stride, strict=True)
        down, across = (
            max((-(-length // stride) - 1) * stride + kernel - length, 0)
            for length, (kernel, stride) in zip(size, sides, strict=True)
        )
        if down % 2 or across % 2:
            pads = (across // 2, across - across // 2, down // 2, down - down // 2)
            features_BCHW, down, across = F.pad(features_BCHW, pads), 0, 0
        half = (down // 2, across // 2)
        return F.conv2d(features_BCHW, self.weight, self.bias, self.stride, half, groups=self.groups)
