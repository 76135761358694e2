"""How much of each cell of a grid lies under boxes or a mask: exact areas, no drawing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Window = tuple[float, float, float, float]
"""x0, y0, x1, y1 of the part of the picture that the grid covers, in fractions of the picture."""


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
