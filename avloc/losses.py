"""The loss terms of the published systems, as functions of embeddings and hints.

Where processes share a batch, each gives its own rows, and the mean over the processes of what they get is the term of
the whole batch (`avloc.distributed`). What relates all clips to all, `relation_BB`, everybody has whole.

Shape letters: B batch, n its rows that this process has (alone: all), D embedding, H W cells. "Unit" means
L2-normalised over D.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avloc.distributed import ALONE, Peers

BOX_MIDDLE, BOX_SLOPE = 0.3, 10.0
"""The cosine at which a cell is as likely inside a box as not, and how steeply that turns."""
_COVERED = 0.2
"""A cell counts as covered where boxes cover more than this share of it."""
_AT_ONCE = 1 << 24
"""Cosines that are held at once while the best of each pair is looked for: 64 MB of them, more than allocators keep."""


class _BestCells(torch.autograd.Function):
    """The largest cosine of any cell of each picture with each sound, [n, B].

    A batch has B^2 H W cosines, of which B^2 matter. They are computed for some pictures at a time, and only which cell
    was the best is kept for the gradient. Of equal cells the first one learns.
    """

    @staticmethod
    def forward(ctx: Any, image_nDP: Tensor, audio_BD: Tensor) -> Tensor:
        best, cells = [], []
        for image_cDP in _some(image_nDP, len(audio_BD)):
            found = torch.einsum("cdp,bd->cbp", image_cDP, audio_BD).max(2)
            best.append(found.values)
            cells.append(found.indices.int())
        ctx.save_for_backward(image_nDP, audio_BD, torch.cat(cells))
        return torch.cat(best)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        image_nDP, audio_BD, cells_nB = ctx.saved_tensors
        of_image, of_audio = torch.empty_like(image_nDP), torch.zeros_like(audio_BD)
        first = 0
        for image_cDP in _some(image_nDP, len(audio_BD)):
            rows = slice(first, first := first + len(image_cDP))
            shape = (len(image_cDP), len(audio_BD), image_cDP.shape[2])
            spread_cBP = grads[0].new_zeros(shape).scatter_(2, cells_nB[rows, :, None].long(), grads[0][rows, :, None])
            of_image[rows] = torch.einsum("cbp,bd->cdp", spread_cBP, audio_BD)
            of_audio += torch.einsum("cbp,cdp->bd", spread_cBP, image_cDP)
        return of_image, of_audio


def _some(image_nDP: Tensor, sounds: int) -> tuple[Tensor, ...]:
    at_once = max(1, _AT_ONCE // (sounds * image_nDP.shape[2]))
    return torch.split(image_nDP, at_once)


def best_cells(image_nDHW: Tensor, audio_BD: Tensor) -> Tensor:
    """The largest cosine of any cell of each picture with each sound, [n, B], of unit features and vectors."""
    best: Tensor = _BestCells.apply(image_nDHW.flatten(2), audio_BD)
    return best


def contrastive(
    image_nDHW: Tensor, audio_nD: Tensor, tau: float, relation_BB: Tensor | None = None, peers: Peers = ALONE
) -> Tensor:
    """Multiple-instance contrastive loss: the best cell of picture n should match sound n better than any other.

    Args:
        image_nDHW: unit features of every cell.
        audio_nD: unit audio vectors.
        tau: temperature.
        relation_BB: int8, picture first: 1 own sound, -1 a wrong one, 0 left out. A clip whose own sound is wrong asks
            for nothing itself. None: all sounds but its own are wrong for a picture, as published.
        peers: who has the other rows.

    Returns:
        Scalar: cross-entropy over sounds plus cross-entropy over pictures, each a mean over the clips that have a right
        pair, summed (not halved); 0 if there are none.

    Source: EZ-VSL, equation 3; AVC, equation 1, batch-averaged as in its code.
    """
    best_BB = peers.gather(best_cells(image_nDHW, peers.gather(audio_nD))) / tau
    target = torch.arange(len(best_BB), device=best_BB.device)
    if relation_BB is None:
        return F.cross_entropy(best_BB, target) + F.cross_entropy(best_BB.T, target)
    asks = relation_BB.diagonal() > 0
    if not bool(asks.any()):
        return best_BB.sum() * 0
    best_BB = best_BB.masked_fill(relation_BB == 0, float("-inf"))
    return F.cross_entropy(best_BB[asks], target[asks]) + F.cross_entropy(best_BB.T[asks], target[asks])


def box(
    image_nDHW: Tensor,
    audio_nD: Tensor,
    relation_BB: Tensor,
    cover_nHW: Tensor,
    boxed_n: Tensor,
    peers: Peers = ALONE,
) -> Tensor | None:
    """Cross-entropy of every cell's similarity with what boxes say: in a box of the sounding object, or not.

    A cell is inside with probability sigmoid(10 (cosine - 0.3)); the target is the share of it that boxes cover. Cells
    of a wrong pair have target 0, whatever picture and sound it is of. A right pair without boxes is left out.

    Args:
        image_nDHW: unit features of every cell.
        audio_nD: unit audio vectors.
        relation_BB: int8, picture first: 1 own sound, -1 a wrong one, 0 left out.
        cover_nHW: share of each cell under boxes of the clip's sounding object.
        boxed_n: bool; rows without boxes hold anything.
        peers: who has the other rows.

    Returns:
        Scalar: the mean over covered cells plus the mean over the others, each over the whole batch, so that the few
        covered ones weigh as much; or None if no pair counts.
    """
    relation_nB, own_nB = _rows(relation_BB, peers)
    own_nB = own_nB & (relation_nB > 0) & boxed_n[:, None]
    counts_nB = own_nB | (relation_nB < 0)
    cosine_nBHW = torch.einsum("ndhw,bd->nbhw", image_nDHW, peers.gather(audio_nD))
    target_nBHW = torch.where(own_nB[:, :, None, None], cover_nHW[:, None].to(cosine_nBHW), 0.0)
    cosine, target = cosine_nBHW[counts_nB], target_nBHW[counts_nB]
    errors = F.binary_cross_entropy_with_logits(BOX_SLOPE * (cosine - BOX_MIDDLE), target, reduction="none")
    means = [peers.mean(errors[kind]) for kind in (target > _COVERED, target <= _COVERED)]
    parts = [mean for mean in means if mean is not None]
    return torch.stack(parts).sum() if parts else None


def _rows(relation_BB: Tensor, peers: Peers) -> tuple[Tensor, Tensor]:
    """This process's rows [n, B] of the relation, and where in them its own pairs lie."""
    own_BB = torch.eye(len(relation_BB), dtype=torch.bool, device=relation_BB.device)
    return relation_BB[peers.rows], own_BB[peers.rows]


def peak(
    image_nDHW: Tensor,
    audio_nD: Tensor,
    relation_BB: Tensor,
    cover_nHW: Tensor,
    boxed_n: Tensor,
    tau: float,
    peers: Peers = ALONE,
) -> Tensor | None:
    """How little of a clip's similarity lies in its boxes: minus the logarithm of the share of the softmax over cells.

    It is about the order of the cells of one picture, and so about where the peak is, not about how high.

    Args:
        image_nDHW: unit features of every cell.
        audio_nD: unit audio vectors.
        relation_BB: int8, picture first; clips whose own sound is not right, 1 on the diagonal, are left out.
        cover_nHW: share of each cell under boxes of the clip's sounding object; cells count by it beside each other,
            and a single covered cell counts fully, however little of it is covered.
        boxed_n: bool; rows without boxes hold anything. Clips whose boxes were cropped away are left out.
        tau: temperature.
        peers: who has the other rows.

    Returns:
        Scalar, 0 where boxes cover everything: the mean over clips; or None if no clip counts.
    """
    taught_n = (relation_BB.diagonal()[peers.rows] > 0) & boxed_n
    taught_n = taught_n & (torch.where(taught_n[:, None, None], cover_nHW, 0.0) > 0).flatten(1).any(1)
    image, audio, cover = image_nDHW[taught_n], audio_nD[taught_n], cover_nHW[taught_n]
    sharp = torch.einsum("ndhw,nd->nhw", image, audio).flatten(1) / tau
    inside = torch.logsumexp(sharp + cover.flatten(1).to(sharp).log(), 1)
    return peers.mean(torch.logsumexp(sharp, 1) - inside)


def audio_hint(audio_nD: Tensor, hint_nD: Tensor, peers: Peers = ALONE) -> Tensor | None:
    """Mean squared error between the student's unit audio vector and the sound teacher's embedding; None of no clip.

    Source: AVC, equation 3; the mean runs over all elements, as in its code, to which the weight 1000 is tuned.
    """
    return peers.mean(F.mse_loss(audio_nD, hint_nD, reduction="none"))


def visual_hint(image_nDHW: Tensor, hint_nHW: Tensor, present_n: Tensor, peers: Peers = ALONE) -> Tensor | None:
    """Mean squared error between the channel mean of the student's unit features and the object teacher's map.

    Args:
        image_nDHW: unit features of every cell, on the student's grid.
        hint_nHW: teacher maps on their own grid (25x25), to which the student's is resized (bilinear, half-pixel).
        present_n: bool; rows without a hint are left out, whatever they hold.
        peers: who has the other rows.

    Returns:
        Scalar mean over the kept rows, or None if there are none: the reference takes the mean of nothing there and
        poisons its weights with NaN.

    Source: AVC's code; its equation 2 speaks of embeddings, the code compares single-channel maps.
    """
    image, hint = image_nDHW[present_n], hint_nHW[present_n]
    if not len(image):
        return peers.mean(image)  # nothing of its own, but others may have
    student = F.interpolate(image.mean(1, keepdim=True), size=hint.shape[1:], mode="bilinear", align_corners=False)
    return peers.mean(F.mse_loss(student.squeeze(1), hint, reduction="none"))


def visual_hint_vectors(
    image_nDHW: Tensor, hint_nDHW: Tensor, present_n: Tensor, peers: Peers = ALONE
) -> Tensor | None:
    """Mean squared error between the student's unit features and a seeing teacher's vectors, cell by cell.

    Args:
        image_nDHW: unit features of every cell, on the student's grid.
        hint_nDHW: the teacher's unit vectors on its own grid, resized to the student's (bilinear, half-pixel). Where
            neighbours differ, vectors between them come out shorter than 1, and there the hint weighs less.
        present_n: bool; rows without a hint are left out, whatever they hold.
        peers: who has the other rows.

    Returns:
        Scalar mean over all elements of the kept rows, or None if there are none.

    Source: AVC, equation 2 as printed, which compares embeddings.
    """
    image, hint = image_nDHW[present_n], hint_nDHW[present_n]
    if not len(image):
        return peers.mean(image)  # nothing of its own, but others may have
    if hint.shape[2:] != image.shape[2:]:
        hint = F.interpolate(hint, size=image.shape[2:], mode="bilinear", align_corners=False)
    return peers.mean(F.mse_loss(image, hint, reduction="none"))


def trimap_logits(
    image_nDHW: Tensor,
    audio_nD: Tensor,
    *,
    positive: float,
    negative: float,
    tau: float,
    temperature: float,
    legacy_diagonal: bool = False,
    relation_BB: Tensor | None = None,
    peers: Peers = ALONE,
) -> Tensor:
    """LVS's logits [n, 1 + B + 1]: a picture's own source, the other sounds in it, its own background.

    A cell is the source as far as its cosine exceeds `positive`, and background as far as it stays below `negative`
    (sigmoids of slope 1/tau); each logit is a mean cosine over cells weighed by that, over the temperature.

    Args:
        image_nDHW: unit features of every cell.
        audio_nD: unit audio vectors.
        positive: the upper threshold (0.65).
        negative: the lower one (0.4); the upper one again is LVS without its tri-map.
        tau: softness of both (0.03).
        temperature: of the logits (0.07).
        legacy_diagonal: the published code multiplies a picture's own sound among the others by -99 instead of leaving
            it out, which makes it a huge logit where that mean cosine is negative.
        relation_BB: int8, picture first; pairs of 0 are left out.
        peers: who has the other rows.

    Source: LVS, equations 3 to 6, and `model.py`.
    """
    cosine_nBHW = torch.einsum("ndhw,bd->nbhw", image_nDHW, peers.gather(audio_nD))
    source_nBHW = soft_above(cosine_nBHW, positive, tau)
    others_nB = (source_nBHW * cosine_nBHW).sum((2, 3)) / source_nBHW.sum((2, 3))
    rows = torch.arange(len(image_nDHW), device=image_nDHW.device)
    columns = rows + (peers.rows.start or 0)
    own_nHW = cosine_nBHW[rows, columns]
    background_nHW = 1 - soft_above(own_nHW, negative, tau)
    hard_n1 = ((background_nHW * own_nHW).sum((1, 2)) / background_nHW.sum((1, 2)))[:, None]
    own_n1 = others_nB[rows, columns][:, None]
    diagonal_nB = torch.zeros_like(others_nB, dtype=torch.bool)
    diagonal_nB[rows, columns] = True
    if legacy_diagonal:
        out_nB = torch.where(diagonal_nB, -99 * others_nB, others_nB)
    else:
        out_nB = others_nB.masked_fill(diagonal_nB, float("-inf"))
    if relation_BB is not None:
        out_nB = out_nB.masked_fill((relation_BB[peers.rows] == 0) & ~diagonal_nB, float("-inf"))
    return torch.cat((own_n1, out_nB, hard_n1), 1) / temperature


def own_of(logits_nB: Tensor, peers: Peers = ALONE) -> Tensor:
    """Cross-entropy of each row's own column among all of them, the mean over all rows."""
    target = torch.arange(len(logits_nB), device=logits_nB.device) + (peers.rows.start or 0)
    mean = peers.mean(F.cross_entropy(logits_nB, target, reduction="none"))
    assert mean is not None, "a batch has rows"
    return mean


def soft_above(cosine: Tensor, threshold: float, tau: float) -> Tensor:
    """How surely each cosine exceeds a threshold, in [0, 1] (LVS, equation 4)."""
    return torch.sigmoid((cosine - threshold) / tau)


def first_of(logits_nK: Tensor, peers: Peers = ALONE) -> Tensor:
    """Cross-entropy of the first of each row's logits, the mean over all rows; 0 of none."""
    each = F.cross_entropy(logits_nK, logits_nK.new_zeros(len(logits_nK), dtype=torch.long), reduction="none")
    mean = peers.mean(each)
    return each.sum() if mean is None else mean
