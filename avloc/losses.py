"""The loss terms of the published systems, as functions of embeddings and hints.

Shape letters: B batch, D embedding, H W cells. "Unit" means L2-normalised over D.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BOX_MIDDLE, BOX_SLOPE = 0.3, 10.0
"""The cosine at which a cell is as likely inside a box as not, and how steeply that turns."""
_COVERED = 0.2
"""A cell counts as covered where boxes cover more than this share of it."""


def contrastive(image_BDHW: Tensor, audio_BD: Tensor, tau: float, relation_BB: Tensor | None = None) -> Tensor:
    """Multiple-instance contrastive loss: the best cell of picture n should match sound n better than any other.

    Args:
        image_BDHW: unit features of every cell.
        audio_BD: unit audio vectors.
        tau: temperature.
        relation_BB: int8, picture first: 1 own sound, -1 a wrong one, 0 left out. A clip whose own sound is wrong asks
            for nothing itself. None: all sounds but its own are wrong for a picture, as published.

    Returns:
        Scalar: cross-entropy over sounds plus cross-entropy over pictures, each a mean over the clips that have a right
        pair, summed (not halved); 0 if there are none.

    Source: EZ-VSL, equation 3; AVC, equation 1, batch-averaged as in its code.
    """
    best_BB = torch.einsum("ndhw,md->nmhw", image_BDHW, audio_BD).flatten(2).amax(2) / tau
    target = torch.arange(len(best_BB), device=best_BB.device)
    if relation_BB is None:
        return F.cross_entropy(best_BB, target) + F.cross_entropy(best_BB.T, target)
    asks = relation_BB.diagonal() > 0
    if not bool(asks.any()):
        return best_BB.sum() * 0
    best_BB = best_BB.masked_fill(relation_BB == 0, float("-inf"))
    return F.cross_entropy(best_BB[asks], target[asks]) + F.cross_entropy(best_BB.T[asks], target[asks])


def box(image_BDHW: Tensor, audio_BD: Tensor, relation_BB: Tensor, cover_BHW: Tensor, boxed_B: Tensor) -> Tensor | None:
    """Cross-entropy of every cell's similarity with what boxes say: in a box of the sounding object, or not.

    A cell is inside with probability sigmoid(10 (cosine - 0.3)); the target is the share of it that boxes cover. Cells
    of a wrong pair have target 0, whatever picture and sound it is of. A right pair without boxes is left out.

    Args:
        image_BDHW: unit features of every cell.
        audio_BD: unit audio vectors.
        relation_BB: int8, picture first: 1 own sound, -1 a wrong one, 0 left out.
        cover_BHW: share of each cell under boxes of the clip's sounding object.
        boxed_B: bool; rows without boxes hold anything.

    Returns:
        Scalar: the mean over covered cells plus the mean over the others, each over the whole batch, so that the few
        covered ones weigh as much; or None if no pair counts.
    """
    own_BB = torch.diag((relation_BB.diagonal() > 0) & boxed_B)
    counts_BB = own_BB | (relation_BB < 0)
    if not bool(counts_BB.any()):
        return None
    cosine_BBHW = torch.einsum("ndhw,md->nmhw", image_BDHW, audio_BD)
    target_BBHW = torch.where(own_BB[:, :, None, None], cover_BHW[:, None].to(cosine_BBHW), 0.0)
    cosine, target = cosine_BBHW[counts_BB], target_BBHW[counts_BB]
    errors = F.binary_cross_entropy_with_logits(BOX_SLOPE * (cosine - BOX_MIDDLE), target, reduction="none")
    parts = [errors[kind] for kind in (target > _COVERED, target <= _COVERED)]
    return torch.stack([part.mean() for part in parts if part.numel()]).sum()


def peak(
    image_BDHW: Tensor, audio_BD: Tensor, relation_BB: Tensor, cover_BHW: Tensor, boxed_B: Tensor, tau: float
) -> Tensor | None:
    """How little of a clip's similarity lies in its boxes: minus the logarithm of the share of the softmax over cells.

    It is about the order of the cells of one picture, and so about where the peak is, not about how high.

    Args:
        image_BDHW: unit features of every cell.
        audio_BD: unit audio vectors.
        relation_BB: int8, picture first; clips whose own sound is not right, 1 on the diagonal, are left out.
        cover_BHW: share of each cell under boxes of the clip's sounding object; cells count by it beside each other,
            and a single covered cell counts fully, however little of it is covered.
        boxed_B: bool; rows without boxes hold anything. Clips whose boxes were cropped away are left out.
        tau: temperature.

    Returns:
        Scalar, 0 where boxes cover everything: the mean over clips; or None if no clip counts.
    """
    taught_B = (relation_BB.diagonal() > 0) & boxed_B
    taught_B = taught_B & (torch.where(taught_B[:, None, None], cover_BHW, 0.0) > 0).flatten(1).any(1)
    if not bool(taught_B.any()):
        return None
    image, audio, cover = image_BDHW[taught_B], audio_BD[taught_B], cover_BHW[taught_B]
    sharp = torch.einsum("ndhw,nd->nhw", image, audio).flatten(1) / tau
    inside = torch.logsumexp(sharp + cover.flatten(1).to(sharp).log(), 1)
    return (torch.logsumexp(sharp, 1) - inside).mean()


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


def visual_hint_vectors(image_BDHW: Tensor, hint_BDHW: Tensor, present_B: Tensor) -> Tensor | None:
    """Mean squared error between the student's unit features and a seeing teacher's vectors, cell by cell.

    Args:
        image_BDHW: unit features of every cell, on the student's grid.
        hint_BDHW: the teacher's unit vectors on its own grid, resized to the student's (bilinear, half-pixel). Where
            neighbours differ, vectors between them come out shorter than 1, and there the hint weighs less.
        present_B: bool; rows without a hint are left out, whatever they hold.

    Returns:
        Scalar mean over all elements of the kept rows, or None if there are none.

    Source: AVC, equation 2 as printed, which compares embeddings.
    """
    if not bool(present_B.any()):
        return None
    hint = hint_BDHW[present_B]
    if hint.shape[2:] != image_BDHW.shape[2:]:
        hint = F.interpolate(hint, size=image_BDHW.shape[2:], mode="bilinear", align_corners=False)
    return F.mse_loss(image_BDHW[present_B], hint)
