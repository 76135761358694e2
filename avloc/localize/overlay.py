"""A heat map laid over its frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

COLOUR_MAP = "inferno"  # perceptually uniform: equal steps of heat look like equal steps
OPACITY = 0.75
SILENT_CAPTION = "silent: no source"


def draw_overlay(rgb: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Blend colours over the frame, the more opaque the hotter, so that cold places stay as they were.

    Args:
        rgb: [H, W, 3] the frame as shown.
        heat: [H, W] in [0, 1].

    Returns:
        [H, W, 3] uint8, the same size.
    """
    import matplotlib as mpl

    colours = mpl.colormaps[COLOUR_MAP](heat)[..., :3].astype(np.float32)
    alpha = (OPACITY * heat)[..., None]
    blend = (1 - alpha) * rgb.astype(np.float32) + alpha * 255 * colours
    return np.round(blend).astype(np.uint8)


def draw_caption(rgb: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """The frame with a line of text on a dark strip at its lower edge, sized to the frame."""
    image = Image.fromarray(rgb)
    height = max(12, image.height // 14)
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rectangle((0, image.height - height, image.width, image.height), fill=(0, 0, 0, 170))
    font = ImageFont.load_default(size=max(8, int(height * 0.7)))
    draw.text((height // 3, image.height - height // 2), text, fill=(255, 255, 255), font=font, anchor="lm")
    return np.asarray(image)
