"""Regions of a picture that belong together by their colour alone."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from avloc.errors import UsageError
from avloc.media.pictures import square

SIDE = 256
"""Pixels of the square on which regions are found, as SACL's frames are stored."""
_SCALE, _SIGMA, _LEAST = 1_000, 0.5, 1_000


def check_segments() -> None:
    """Raise UsageError where scikit-image is not installed."""
    if find_spec("skimage") is None:
        hint = "Install it with: pip install 'avloc[sacl]'; or take rectangles, as with --set sacl.grid=4."
        raise UsageError("regions are found with scikit-image, which is not installed", hint=hint)


def segments(rgb: NDArray[np.uint8], grid: int = 0) -> NDArray[np.uint8]:
    """Felzenszwalb and Huttenlocher's regions of a picture stretched to 256 x 256 pixels, as SACL finds them.

    Args:
        rgb: [H, W, 3].
        grid: rows and columns of equal rectangles to take in their place; 0 for none.

    Returns:
        [256, 256] labels from 0; 65 at most, since none has less than a thousand pixels.

    Raises:
        ImportError: scikit-image is not installed (`check_segments`).
    """
    if grid:
        rows = np.arange(SIDE) * grid // SIDE
        return (rows[:, None] * grid + rows).astype(np.uint8)
    from skimage.segmentation import felzenszwalb

    labels = felzenszwalb(square(rgb, SIDE), scale=_SCALE, sigma=_SIGMA, min_size=_LEAST)
    return np.asarray(labels, np.uint8)
