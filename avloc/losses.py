"""The loss terms of the published systems, as functions of embeddings and hints.

Arguments that several terms share:
    image_nDHW: unit features of every cell.
    audio_nD: unit audio vectors.
    relation_BB: int8, picture first: 1 positive pair, -1 negative pair, 0 ignored.
    cover_nHW: share of each cell under boxes of the clip's sounding object; ignored where `boxed_n` is false.
    boxed_n: bool, whether the clip has boxes.
    present_n: bool, whether the clip has a hint.
        Relations, covers and these flags are on the CPU: numbers of rows are known without waiting for the device.
    peers: the processes that share the batch (`avloc.distributed`).

A new term has its formula here, its weight in `avloc.config.LossWeights` and its call in `losses()` of a method.

Processes that share a batch pass their own rows each; the mean of their results is the term of the whole batch.
`relation_BB` covers the whole batch in every process.

Shape letters: B batch, n the rows of this process (all of them in a single process), D embedding, H W cells, P cells
in one axis. "Unit" means L2-normalised over D.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avloc.distributed import ALONE, Peers
from avloc.transforms import on_device

BOX_MIDDLE, BOX_SLOPE = 0.3, 10.0
"""Midpoint and slope of the logistic curve from a cell's cosine to the probability of lying in a box."""
_COVERED = 0.2
"""A cell is covered if boxes cover more than this share of it."""
_AT_ONCE = 1 << 24
"""Cosines held at once in the search for the best cell of each pair: 64 MB."""


class _BestCells(torch.autograd.Function):
    """The largest cosine of any cell of each picture with each sound, [n, B].

    A batch has B^2 H W cosines, of which B^2 are needed. They are computed in chunks of pictures, and only the index of
    the best cell is kept for the gradient. Of equal cells the first one gets it.
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
    """Multiple-instance contrastive loss: the best cell of picture n should match sound n better than other sounds.

    Cross-entropy over sounds plus cross-entropy over pictures, each a mean over the anchors, summed (not halved), with
    temperature `tau`; 0 without anchors. With `relation_BB`, a clip whose own pair is not positive is no anchor;
    without, every other sound is a negative, as published.

    Source: EZ-VSL, equation 3; AVC, equation 1, batch-averaged as in its code.
    """
    best_BB = peers.gather(best_cells(image_nDHW, peers.gather(audio_nD))) / tau
    if relation_BB is None:
        target = torch.arange(len(best_BB), device=best_BB.device)
        return F.cross_entropy(best_BB, target) + F.cross_entropy(best_BB.T, target)
    anchors = on_device(rows_of(relation_BB.diagonal() > 0), best_BB.device)
    if not len(anchors):
        return best_BB.sum() * 0
    best_BB = best_BB.masked_fill(on_device(relation_BB == 0, best_BB.device), float("-inf"))
    return F.cross_entropy(best_BB[anchors], anchors) + F.cross_entropy(best_BB.T[anchors], anchors)


def rows_of(kept_n: Tensor) -> Tensor:
    """Numbers of the rows that are True, of a mask on the CPU. Unlike with the mask, the device need not count them."""
    return kept_n.nonzero()[:, 0]


def box(
    image_nDHW: Tensor,
    audio_nD: Tensor,
    relation_BB: Tensor,
    cover_nHW: Tensor,
    boxed_n: Tensor,
    peers: Peers = ALONE,
) -> Tensor | None:
    """Cross-entropy between each cell's similarity and whether it lies in a box of the sounding object.

    The predicted probability is sigmoid(10 (cosine - 0.3)); the target is the share of the cell under boxes, and 0 for
    all cells of a negative pair. Positive pairs without boxes are left out.

    Returns:
        The mean over covered cells plus the mean over the others, each over the whole batch, which gives the few
        covered cells the same weight; or None without pairs.
    """
    cosine_nBHW = torch.einsum("ndhw,bd->nbhw", image_nDHW, peers.gather(audio_nD))
    relation_nB, cover_nHW = relation_BB[peers.rows], cover_nHW.to(cosine_nBHW.dtype)
    own_nB = torch.eye(len(relation_BB), dtype=torch.bool)[peers.rows] & (relation_nB > 0) & boxed_n[:, None]
    pairs_nB = own_nB.to(torch.int8) - (relation_nB < 0).to(torch.int8)
    n_covered = int((cover_nHW[rows_of(own_nB.any(1))] > _COVERED).sum())
    n_cells = int(pairs_nB.count_nonzero()) * cover_nHW.shape[1:].numel()
    pairs, cover = (on_device(each, cosine_nBHW.device) for each in (pairs_nB[:, :, None, None], cover_nHW[:, None]))
    target = torch.where(pairs > 0, cover, 0.0)
    errors = F.binary_cross_entropy_with_logits(BOX_SLOPE * (cosine_nBHW - BOX_MIDDLE), target, reduction="none")
    kinds = ((target > _COVERED, n_covered), ((pairs != 0) & (target <= _COVERED), n_cells - n_covered))
    means = [peers.mean(torch.where(kind, errors, 0.0), count) for kind, count in kinds]
    parts = [mean for mean in means if mean is not None]
    return torch.stack(parts).sum() if parts else None


def peak(
    image_nDHW: Tensor,
    audio_nD: Tensor,
    relation_BB: Tensor,
    cover_nHW: Tensor,
    boxed_n: Tensor,
    tau: float,
    peers: Peers = ALONE,
) -> Tensor | None:
    """Minus the logarithm of the share of the softmax over cells that lies in the clip's boxes.

    It moves the peak and does not fix its height, since it depends on differences between the cells of one picture
    only. The share of a cell is its weight in the sum; `tau` is the temperature. Clips whose own pair is not positive,
    and clips without boxes or whose boxes were cropped away, are left out.

    Returns:
        The mean over clips, 0 where boxes cover everything; or None without clips.
    """
    kept_n = (relation_BB.diagonal()[peers.rows] > 0) & boxed_n
    kept_n = kept_n & (torch.where(kept_n[:, None, None], cover_nHW, 0.0) > 0).flatten(1).any(1)
    rows = rows_of(kept_n)
    cosine_nP = torch.einsum("ndhw,nd->nhw", image_nDHW, audio_nD).flatten(1)
    cover = on_device(cover_nHW[rows].flatten(1).to(cosine_nP.dtype), cosine_nP.device)
    sharp = cosine_nP[on_device(rows, cosine_nP.device)] / tau
    inside = torch.logsumexp(sharp + cover.log(), 1)
    return peers.mean(torch.logsumexp(sharp, 1) - inside)


def audio_hint(audio_nD: Tensor, hint_nD: Tensor, peers: Peers = ALONE) -> Tensor | None:
    """Mean squared error between the student's unit audio vector and the audio teacher's embedding; None without clips.

    Source: AVC, equation 3; the mean runs over all elements, as in its code, to which the weight 1000 is tuned.
    """
    return peers.mean(F.mse_loss(audio_nD, hint_nD, reduction="none"))


def visual_hint(image_nDHW: Tensor, hint: Tensor, present_n: Tensor, peers: Peers = ALONE) -> Tensor | None:
    """Mean squared error between the student's unit features and the visual teacher's maps or vectors.

    Resizing is bilinear, half-pixel. Vectors interpolated between different neighbours are shorter than 1, which gives
    the hint less weight there.

    Args:
        image_nDHW: unit features of every cell, on the student's grid.
        hint: maps [n, h, w], compared with the channel mean of the features, which is resized to their grid (25x25); or
            unit vectors [n, D, h, w], resized to the student's grid and compared cell by cell.
        present_n: bool; rows without a hint are left out.
        peers: the processes that share the batch.

    Returns:
        The mean over all elements of the kept rows; or None without rows (the reference takes the mean of nothing
        there: NaN).

    Source: AVC's equation 2 compares embeddings, as here with vectors; its code compares single-channel maps.
    """
    image, rows, one_number = image_nDHW, rows_of(present_n), hint.dim() == 3
    if one_number:
        image, hint = image.mean(1, keepdim=True), hint[:, None]
    if len(rows) < len(image):
        rows = on_device(rows, image.device)
        image, hint = image[rows], hint[rows]
    if not len(rows):
        return peers.mean(image)  # other processes may have rows
    if one_number:
        image = F.interpolate(image, size=hint.shape[2:], mode="bilinear", align_corners=False)
    elif hint.shape[2:] != image.shape[2:]:
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
    """LVS's logits [n, 1 + B + 1]: a picture's own source, its response to other sounds, its own background.

    The source weight of a cell rises where its cosine exceeds `positive`, the background weight where it stays below
    `negative` (sigmoids of slope 1/tau); each logit is a weighted mean cosine over cells, over the temperature.

    The published values are 0.65, 0.4, tau 0.03 and temperature 0.07; LVS without its tri-map has equal thresholds.
    With `legacy_diagonal`, as in the published code, the logit of a picture's own sound among the others is multiplied
    by -99 instead of masked, which makes it a huge logit where that mean cosine is negative. With `relation_BB`, pairs
    of 0 are left out.

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
        ignored_nB = on_device(relation_BB[peers.rows] == 0, out_nB.device)
        out_nB = out_nB.masked_fill(ignored_nB & ~diagonal_nB, float("-inf"))
    return torch.cat((own_n1, out_nB, hard_n1), 1) / temperature


def soft_above(cosine: Tensor, threshold: float, tau: float) -> Tensor:
    """Soft threshold of each cosine, in [0, 1] (LVS, equation 4)."""
    return torch.sigmoid((cosine - threshold) / tau)


def row_cross_entropy(logits_nK: Tensor, target_n: Tensor, peers: Peers = ALONE) -> Tensor:
    """Cross-entropy of each row against its target column, the mean over all rows of the batch; 0 without rows."""
    each = F.cross_entropy(logits_nK, target_n, reduction="none")
    mean = peers.mean(each)
    return each.sum() if mean is None else mean
