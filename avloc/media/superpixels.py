"""Superpixels: segment a picture by colour."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from avloc.errors import UsageError
from avloc.media.pictures import square

_SIDE = 256
"""Side in pixels of the square that is segmented, as SACL stores its frames."""
_SCALE, _SIGMA, _MIN_SIZE = 1_000, 0.5, 1_000


def check_segments() -> None:
    """Raise UsageError where scikit-image is not installed."""
    if find_spec("skimage") is None:
        hint = "Install it with: pip install scikit-image; or use rectangles, as with --set sacl.grid=4."
        raise UsageError("regions are computed with scikit-image, which is not installed", hint=hint)


def segments(rgb: NDArray[np.uint8], grid: int = 0) -> NDArray[np.uint8]:
    """Felzenszwalb-Huttenlocher regions of a picture stretched to 256 x 256 pixels, with SACL's settings.

    Args:
        rgb: [H, W, 3].
        grid: use this many rows and columns of equal rectangles instead; 0 for regions.

    Returns:
        [256, 256] labels from 0; at most 65, since regions have at least 1000 pixels.

    Raises:
        ImportError: scikit-image is not installed (`check_segments`).
    """
    if grid:
        rows = np.arange(_SIDE) * grid // _SIDE
        return (rows[:, None] * grid + rows).astype(np.uint8)
    from skimage.segmentation import felzenszwalb

    labels = felzenszwalb(square(rgb, _SIDE), scale=_SCALE, sigma=_SIGMA, min_size=_MIN_SIZE)
    return np.asarray(labels, np.uint8)
