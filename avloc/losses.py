"""The loss terms of the published systems, as functions of embeddings and hints.

Shape letters: B batch, D embedding, H W cells. "Unit" means L2-normalised over D.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive(image_BDHW: Tensor, audio_BD: Tensor, tau: float) -> Tensor:
    """Multiple-instance contrastive loss: the best cell of picture n should match sound n better than any other.

    Args:
        image_BDHW: unit features of every cell.
        audio_BD: unit audio vectors.
        tau: temperature.

    Returns:
        Scalar: cross-entropy over sounds plus cross-entropy over pictures, each a batch mean, summed (not halved).

    Source: EZ-VSL, equation 3; AVC, equation 1, batch-averaged as in its code.
    """
    best_BB = torch.einsum("ndhw,md->nmhw", image_BDHW, audio_BD).flatten(2).amax(2) / tau
    target = torch.arange(len(best_BB), device=best_BB.device)
    return F.cross_entropy(best_BB, target) + F.cross_entropy(best_BB.T, target)


def audio_hint(audio_BD: Tensor, hint_BD: Tensor) -> Tensor:
    """Mean squared error between the student's unit audio vector and the sound teacher's embedding.

    Source: AVC, equation 3; the mean runs over all elements, as in its code, to which the weight 1000 is tuned.
    """
    return F.mse_loss(audio_BD, hint_BD)


def visual_hint(image_BDHW: Tensor, hint_BHW: Tensor, present_B: Tensor) -> Tensor | None:
    """Mean squared error between the channel mean of the student's unit features and the object teacher's map.

    Args:
        image_BDHW: unit features of every cell, on the student's grid.
        hint_BHW: teacher maps on their own grid (25x25), to which the student's is resized (bilinear, half-pixel).
        present_B: bool; rows without a hint are left out, whatever they hold.

    Returns:
        Scalar mean over the kept rows, or None if there are none: the reference takes the mean of nothing there and
        poisons its weights with NaN.

    Source: AVC's code; its equation 2 speaks of embeddings, the code compares single-channel maps.
    """
    if not bool(present_B.any()):
        return None
    student = image_BDHW[present_B].mean(1, keepdim=True)
    resized = F.interpolate(student, size=hint_BHW.shape[1:], mode="bilinear", align_corners=False)
    return F.mse_loss(resized.squeeze(1), hint_BHW[present_B])
