"""Labels and boxes of a batch to supervision: relations between clips, and the covered share of each cell."""

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
"""x0, y0, x1, y1 of the part of the picture under the grid, in fractions of the picture."""


def supervise(
    batch: Batch,
    weights: LossWeights,
    crops: Crops | None = None,
    grid_hw: tuple[int, int] = (0, 0),
    peers: Peers = ALONE,
) -> Supervision:
    """Relations between clips if `same_class` is `masked`, and cells inside boxes if boxes have a loss weight.

    All are on the CPU, where losses count their rows (`avloc.losses`).

    Args:
        batch: labels, boxes and masks of the clips.
        weights: `same_class` and the weight of boxes.
        crops: of the frames; None leaves boxes out.
        grid_hw: rows and columns of cells in a crop.
        peers: processes with the rest of the batch; relations are of all clips.
    """
    masked = weights.same_class == "masked"
    if not masked and (crops is None or not weights.boxes):
        return Supervision()
    labels = [label for part in peers.objects(batch.labels) for label in part]
    relation = torch.from_numpy(relations(labels)) if masked else 2 * torch.eye(len(labels), dtype=torch.int8) - 1
    if crops is None or not weights.boxes:
        return Supervision(relation=relation)
    covers, boxed = box_cells(batch, crops, grid_hw)
    return Supervision(relation=relation, cover=covers, boxed=boxed)


def box_cells(batch: Batch, crops: Crops, grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Share of each cell of each crop that the clip's mask covers, or its boxes if it has no mask.

    Returns:
        [B, h, w] float32, flipped with its picture; and [B] bool, False for clips with neither.
    """
    covers: list[NDArray[np.float32]] = []
    for row, (boxes, png) in enumerate(zip(batch.boxes, batch.masks, strict=True)):
        left, top = float(crops.left[row]), float(crops.top[row])
        window = left, top, left + float(crops.width[row]), top + float(crops.height[row])
        cover = mask_cover(decode_mask(png), window, grid_hw) if png else box_cover(boxes, window, grid_hw)
        covers.append(cover[:, ::-1] if crops.flip[row] else cover)
    boxed = [bool(len(boxes) or png) for boxes, png in zip(batch.boxes, batch.masks, strict=True)]
    return torch.from_numpy(np.stack(covers)), torch.tensor(boxed)


def box_cover(boxes: NDArray[np.float64], window: Window, grid_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Share [h, w] of each cell of a window that the union of boxes covers.

    Args:
        boxes: [n, 4] x0, y0, x1, y1 in fractions of the picture; clipped to it, empty ones are ignored.
        window: part of the picture under the grid.
        grid_hw: rows and columns of cells in the window.
    """
    boxes = np.clip(boxes, 0, 1)
    columns, rows = (np.unique(np.append(boxes[:, axis::2], [0.0, 1.0])) for axis in (0, 1))
    inside = np.zeros((len(rows) - 1, len(columns) - 1), np.bool_)
    for x0, y0, x1, y1 in boxes:  # no edge of a box lies between neighbouring edges
        inside |= np.outer((rows[:-1] >= y0) & (rows[1:] <= y1), (columns[:-1] >= x0) & (columns[1:] <= x1))
    return _shares(inside, rows, columns, window, grid_hw)


def mask_cover(mask: NDArray[np.bool_], window: Window, grid_hw: tuple[int, int]) -> NDArray[np.float32]:
    """`box_cover` for a mask [H, W] of the whole picture."""
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
    """[cells, pieces] share of each cell of a line that lies in each piece; both are given by their edges."""
    start = np.maximum(cells[:-1, None], pieces[None, :-1])
    end = np.minimum(cells[1:, None], pieces[None, 1:])
    shares: NDArray[np.float64] = np.maximum(end - start, 0) / np.diff(cells)[:, None]
    return shares
