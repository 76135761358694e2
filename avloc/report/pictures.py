"""The pictures of the page: a frame, its truth and the heat maps that models drew on it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportPicture:
    """One clip of the gallery. The bytes go into the page as they are."""

    id: str
    jpeg: bytes = field(repr=False)
    """The frame; a PNG is fine too."""
    size: tuple[int, int]
    """Width and height of the frame as shown, in pixels."""
    boxes: NDArray[np.float64]
    """[n, 4] x0, y0, x1, y1 in fractions; clipped to the picture, boxes without an area are left out."""
    mask_png: bytes = field(default=b"", repr=False)
    """The truth where it is a mask: whatever is not black is inside. Empty where there are boxes."""
    heats: Mapping[str, Mapping[str, NDArray[np.uint8 | np.uint16]]] = field(default_factory=dict, repr=False)
    """Model -> kind of map -> [h, w] heat, from 0 to the largest value of its type; 56 x 56 is plenty. 256 levels lose
    the median of a map that is nearly 0 almost everywhere, as DETR's often is; 65536 keep it."""

    def as_json(self) -> dict[str, Any]:
        """What the page reads. Mappings become lists of pairs, whose order and keys are safe in a browser."""
        return {
            "frame": _data_url(self.jpeg),
            "boxes": _drawable(self.boxes),
            "mask": _data_url(self.mask_png) if self.mask_png else "",
            "heats": [
                [model, [[kind, _heat(heat)] for kind, heat in maps.items()]] for model, maps in self.heats.items()
            ],
        }


def _data_url(image: bytes) -> str:
    kind = "png" if image.startswith(_PNG) else "jpeg"
    return f"data:image/{kind};base64,{b64encode(image).decode()}"


def _drawable(boxes: NDArray[np.float64]) -> list[list[float]]:
    clipped = np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0, 1)
    return [box for box in clipped.round(5).tolist() if box[2] > box[0] and box[3] > box[1]]


def _heat(heat: NDArray[np.uint8 | np.uint16]) -> dict[str, Any]:
    if heat.dtype not in (np.uint8, np.uint16) or heat.ndim != 2:
        raise ValueError(f"a heat map of the report is uint8 or uint16 [h, w], not {heat.dtype} {heat.shape}")
    height, width = heat.shape
    levels = heat.astype(heat.dtype.newbyteorder("<")).tobytes()
    return {"width": width, "height": height, "bytes": heat.itemsize, "levels": b64encode(levels).decode()}
