"""What labels and boxes say of a batch, on the grid of cells that the student sees."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avloc.annotations import Window, box_cover, mask_cover, relations
from avloc.config import LossWeights
from avloc.dataset import Batch
from avloc.media import decode_mask
from avloc.methods import Supervision
from avloc.parallel import ALONE, Peers
from avloc.transforms import Crops


def supervise(
    batch: Batch,
    weights: LossWeights,
    device: torch.device,
    crops: Crops | None = None,
    grid_hw: tuple[int, int] = (0, 0),
    peers: Peers = ALONE,
) -> Supervision:
    """Which pairs are wrong and which cells lie in boxes, as far as the settings ask for it.

    Args:
        batch: labels, boxes and masks of the clips.
        weights: `same_class`, and whether boxes teach.
        device: where the tensors go.
        crops: what was cut out of the frames; None leaves boxes out.
        grid_hw: rows and columns of cells in a crop.
        peers: who has the rest of the batch; relations are of all clips.
    """
    with_boxes = bool(weights.boxes) and crops is not None
    relation = None
    if weights.same_class == "masked":
        relation = torch.from_numpy(relations(_all_labels(batch, peers))).to(device)
    elif with_boxes:
        whole = len(_all_labels(batch, peers))
        relation = 2 * torch.eye(whole, dtype=torch.int8, device=device) - 1
    if crops is None or not with_boxes:
        return Supervision(relation=relation)
    covers, boxed = box_cells(batch, crops, grid_hw)
    return Supervision(relation=relation, cover=covers.to(device), boxed=boxed.to(device))


def _all_labels(batch: Batch, peers: Peers) -> list[str]:
    return [label for part in peers.objects(batch.labels) for label in part]


def box_cells(batch: Batch, crops: Crops, grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The share of each cell of each crop under the clip's mask, or under its boxes where there is none.

    Returns:
        [B, h, w] float32, flipped with its picture; and [B] bool, False for clips with neither.
    """
    covers: list[NDArray[np.float32]] = []
    for row, (boxes, png) in enumerate(zip(batch.boxes, batch.masks, strict=True)):
        window = _window(crops, row)
        cover = mask_cover(decode_mask(png), window, grid_hw) if png else box_cover(boxes, window, grid_hw)
        covers.append(cover[:, ::-1] if crops.flip[row] else cover)
    boxed = [bool(len(boxes) or png) for boxes, png in zip(batch.boxes, batch.masks, strict=True)]
    return torch.from_numpy(np.stack(covers)), torch.tensor(boxed)


def _window(crops: Crops, row: int) -> Window:
    left, top = float(crops.left[row]), float(crops.top[row])
    return left, top, left + float(crops.width[row]), top + float(crops.height[row])
