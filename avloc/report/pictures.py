"""Pictures of the gallery: a frame, its ground truth and the heat maps of the models."""

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
    """One clip of the gallery. Image bytes are embedded unchanged."""

    id: str
    jpeg: bytes = field(repr=False)
    """The frame, JPEG or PNG."""
    size: tuple[int, int]
    """Width and height of the frame as displayed, in pixels."""
    boxes: NDArray[np.float64]
    """[n, 4] x0, y0, x1, y1 in fractions of the frame; clipped to it, empty boxes are dropped."""
    mask_png: bytes = field(default=b"", repr=False)
    """Ground-truth mask, inside where not black; empty if the truth is boxes."""
    heats: Mapping[str, Mapping[str, NDArray[np.uint8 | np.uint16]]] = field(default_factory=dict, repr=False)
    """Model -> kind of map -> [h, w] heat, scaled to the range of its dtype; 56 x 56 suffices. Use uint16 for maps that
    are almost 0 almost everywhere, such as DETR's: uint8 loses their median."""

    def as_json(self) -> dict[str, Any]:
        """Data for the page. Mappings become lists of pairs, since JavaScript reorders integer-like keys."""
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
        raise ValueError(f"heat maps of the report must be uint8 or uint16 [h, w], not {heat.dtype} {heat.shape}")
    height, width = heat.shape
    levels = heat.astype(heat.dtype.newbyteorder("<")).tobytes()
    return {"width": width, "height": height, "bytes": heat.itemsize, "levels": b64encode(levels).decode()}
