"""Batch normalisation as part of the convolution before it: half the passes over the activations at test time."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(module: nn.Module) -> None:
    """Put every batch normalisation that follows a convolution into it, in place; for evaluation only.

    The outcome is the same up to rounding. What follows what is read off the order in which the parts were made, which
    is that of their use in every trunk here (a test holds it).
    """
    for part in module.children():
        fold_batch_norms(part)
    for (name, conv), (next_name, norm) in pairwise(list(module.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, next_name, nn.Identity())
