"""What labels and boxes say of a batch, on the grid of cells that the student sees."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avloc.annotations.labels import relations
from avloc.config import LossWeights
from avloc.dataset import Batch
from avloc.distributed import ALONE, Peers
from avloc.media.pictures import decode_mask
from avloc.methods import Supervision
from avloc.transforms import Crops

Window = tuple[float, float, float, float]
"""x0, y0, x1, y1 of the part of the picture that the grid covers, in fractions of the picture."""


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


def box_cover(boxes: NDArray[np.float64], window: Window, grid_hw: tuple[int, int]) -> NDArray[np.float32]:
    """The share of each cell that the union of boxes covers.

    Args:
        boxes: [n, 4] x0, y0, x1, y1 in fractions of the picture; clipped to it, empty ones count for nothing.
        window: what part of the picture is seen.
        grid_hw: rows and columns of cells in the window.

    Returns:
        [h, w] in [0, 1].
    """
    boxes = np.clip(boxes, 0, 1)
    columns, rows = (np.unique(np.append(boxes[:, axis::2], [0.0, 1.0])) for axis in (0, 1))
    inside = np.zeros((len(rows) - 1, len(columns) - 1), np.bool_)
    for x0, y0, x1, y1 in boxes:  # between neighbouring edges of any boxes all points are alike
        inside |= np.outer((rows[:-1] >= y0) & (rows[1:] <= y1), (columns[:-1] >= x0) & (columns[1:] <= x1))
    return _shares(inside, rows, columns, window, grid_hw)


def mask_cover(mask: NDArray[np.bool_], window: Window, grid_hw: tuple[int, int]) -> NDArray[np.float32]:
    """The share of each cell that a mask [H, W] of the whole picture covers; else as `box_cover`."""
    rows, columns = (np.linspace(0, 1, length + 1) for length in mask.shape)
    return _shares(mask, rows, columns, window, grid_hw)


def _shares(
    inside: NDArray[np.bool_],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    window: Window,
    grid_hw: tuple[int, int],
) -> NDArray[np.float32]:
    x0, y0, x1, y1 = window
    down = _overlap(np.linspace(y0, y1, grid_hw[0] + 1), rows)
    across = _overlap(np.linspace(x0, x1, grid_hw[1] + 1), columns)
    shares: NDArray[np.float32] = np.clip(down @ inside @ across.T, 0, 1).astype(np.float32)
    return shares


def _overlap(cells: NDArray[np.float64], pieces: NDArray[np.float64]) -> NDArray[np.float64]:
    """[cells, pieces]: the share of each cell that lies in each piece of a line; both are given by their edges."""
    start = np.maximum(cells[:-1, None], pieces[None, :-1])
    end = np.minimum(cells[1:, None], pieces[None, 1:])
    shares: NDArray[np.float64] = np.maximum(end - start, 0) / np.diff(cells)[:, None]
    return shares
