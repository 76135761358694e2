"""Draw a heat map over its frame: colours, contour, peak, box, caption, legend and strip.

Line widths and text sizes scale with the frame. Pictures and video frames share this code; heat is quantised to 256
levels and drawn through lookup tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from avloc.localize.style import COLOUR_MAPS, DEFAULT_STYLE, Style

_LEVELS = 256
_WHITE, _BLACK, _CYAN = (255, 255, 255), (0, 0, 0), (110, 225, 255)
_SUPERSAMPLING = 4  # of rings, for anti-aliasing
_CURVE = 1.5
"""Opacity is proportional to this power of the heat, so that medium heat leaves the frame visible."""
_SMALLEST_TEXT = 8
_HALO = 0.55
"""Opacity of the dark outline of white lines."""


def draw_overlay(
    frame: NDArray[np.uint8],
    heat: NDArray[np.float32],
    *,
    style: Style = DEFAULT_STYLE,
    box_xyxy: Sequence[int] | None = None,
    peak_xy: Sequence[int] | None = None,
    caption: str = "",
) -> NDArray[np.uint8]:
    """Blend the colour map over a frame [H, W, 3], with opacity increasing with heat [H, W] in [0, 1].

    The half-open box, the peak and the caption are drawn if the style has them.

    Returns:
        [H', W', 3] uint8: the frame's size plus legend and strip.
    """
    levels = np.asarray(heat * np.float32(_LEVELS - 1) + np.float32(0.5)).astype(np.uint8)
    mask, colours = _colourise(levels, style)
    canvas = Image.fromarray(frame)
    canvas.paste(colours, mask=mask)
    rgb = np.array(canvas)
    if style.contour:
        _draw_contour(rgb, heat, style.contour)
    if style.box and box_xyxy is not None:
        _draw_box(rgb, box_xyxy)
    if style.peak and peak_xy is not None:
        ring = _ring(max(4, round(min(heat.shape) / 45)), _line_width(*heat.shape))
        _paste(rgb, ring, peak_xy[0] - ring.width // 2, peak_xy[1] - ring.height // 2)
    return _add_margins(rgb, frame, colours, style, caption)


def draw_silent(frame: NDArray[np.uint8], *, style: Style = DEFAULT_STYLE, caption: str) -> NDArray[np.uint8]:
    """The plain frame [H, W, 3] with a caption, of the same size as `draw_overlay` with this style."""
    _, cold = _colourise(np.zeros(frame.shape[:2], np.uint8), style)
    return _add_margins(frame.copy(), frame, cold, style, caption)


@lru_cache
def _lookup_tables(style: Style) -> tuple[list[int], bytes]:
    """Opacity 0..255 and RGB of the 256 levels of heat."""
    levels = np.linspace(0, 1, _LEVELS)
    opacity = np.round(style.opacity * 255 * levels**_CURVE).astype(int).tolist()
    row = COLOUR_MAPS.index(style.colours)
    with files("avloc.localize").joinpath("data", "colours.png").open("rb") as file:
        return opacity, Image.open(file).crop((0, row, _LEVELS, row + 1)).tobytes()


def _colourise(levels: NDArray[np.uint8], style: Style) -> tuple[Image.Image, Image.Image]:
    """Opacity mask and RGB image of quantised heat [H, W]."""
    opacity, palette = _lookup_tables(style)
    image = Image.fromarray(levels)
    mask = image.point(opacity)
    image.putpalette(palette)
    return mask, image.convert("RGB")


def _line_width(height: int, width: int) -> int:
    return max(1, round(min(height, width) / 300))


def _draw_contour(rgb: NDArray[np.uint8], heat: NDArray[np.float32], level: float) -> None:
    """An anti-aliased white line with a dark outline where the heat equals `level`."""
    half = max(1.2, _line_width(*heat.shape)) / 2
    rim = 2 * half + 0.5
    y, x = np.divmod(np.flatnonzero(_near_edges(heat >= level, math.ceil(rim + 0.5))), heat.shape[1])
    distance = np.abs(heat[y, x] - np.float32(level)) / np.maximum(_gradient_norm(heat, y, x), np.float32(1e-6))
    pixels = rgb[y, x].astype(np.float32)
    for colour, reach, opacity in ((0, rim, _HALO), (255, half, 1)):
        cover = np.float32(opacity) * np.clip(np.float32(reach + 0.5) - distance, 0, 1)[:, None]
        pixels += cover * (np.float32(colour) - pixels)
    rgb[y, x] = np.round(pixels)


def _near_edges(inside: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Pixels up to `reach` pixels, along rows and columns, from the boundary of a mask."""
    near = np.zeros_like(inside)
    near[:, 1:] = inside[:, 1:] != inside[:, :-1]
    near[1:] |= inside[1:] != inside[:-1]
    spread = 0
    while spread < reach:
        step = min(spread + 1, reach - spread)
        near[:, step:] |= near[:, :-step]
        near[:, :-step] |= near[:, step:]
        near[step:] |= near[:-step]
        near[:-step] |= near[step:]
        spread += step
    return near


def _gradient_norm(heat: NDArray[np.float32], y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.float32]:
    """Norm of the gradient per pixel at some places, from central differences."""
    above, below = np.maximum(y - 1, 0), np.minimum(y + 1, heat.shape[0] - 1)
    left, right = np.maximum(x - 1, 0), np.minimum(x + 1, heat.shape[1] - 1)
    down = (heat[below, x] - heat[above, x]) / np.maximum(below - above, 1).astype(np.float32)
    across = (heat[y, right] - heat[y, left]) / np.maximum(right - left, 1).astype(np.float32)
    slope: NDArray[np.float32] = np.sqrt(down**2 + across**2)
    return slope


def _draw_box(rgb: NDArray[np.uint8], box_xyxy: Sequence[int]) -> None:
    """A line along the inner edge of the box, between two dark ones."""
    x0, y0, x1, y1 = box_xyxy
    width = _line_width(*rgb.shape[:2])
    for inset, colour in ((-width, _BLACK), (width, _BLACK), (0, _CYAN)):
        left, top, right, bottom = x0 + inset, y0 + inset, x1 - inset, y1 - inset
        for rows, columns in (
            ((top, top + width), (left, right)),
            ((bottom - width, bottom), (left, right)),
            ((top, bottom), (left, left + width)),
            ((top, bottom), (right - width, right)),
        ):
            rgb[_span(*rows), _span(*columns)] = colour


def _span(start: int, stop: int) -> slice:
    """Slice of an axis, clipped at 0."""
    return slice(max(0, start), max(0, stop))


def _paste(rgb: NDArray[np.uint8], patch: Image.Image, x: int, y: int) -> None:
    """Paste an RGBA image on `rgb` in place, with its upper left corner at (x, y), which may be outside."""
    part = rgb[_span(y, y + patch.height), _span(x, x + patch.width)]
    under = Image.fromarray(part)
    under.paste(patch, (min(x, 0), min(y, 0)), mask=patch)
    part[:] = np.asarray(under)


@lru_cache
def _ring(radius: int, width: int) -> Image.Image:
    """A white ring with a dark outline and a central dot, on a transparent background."""
    side = 2 * (radius + 2 * width) + 1
    large = Image.new("RGBA", (side * _SUPERSAMPLING, side * _SUPERSAMPLING))
    draw, centre = ImageDraw.Draw(large), (side * _SUPERSAMPLING / 2,) * 2
    for reach, thickness, colour in (
        (radius + width, 3 * width, (*_BLACK, 140)),
        (radius, width, (*_WHITE, 255)),
        (1.5 * width, 2 * width, (*_WHITE, 255)),
    ):
        draw.circle(centre, reach * _SUPERSAMPLING, outline=colour, width=thickness * _SUPERSAMPLING)
    return large.resize((side, side), Image.Resampling.BOX)


def _add_margins(
    rgb: NDArray[np.uint8], frame: NDArray[np.uint8], heat: Image.Image, style: Style, caption: str
) -> NDArray[np.uint8]:
    """Add caption, strip and legend."""
    height, width = frame.shape[:2]
    if style.caption and caption:
        band = _caption(caption, width, height)
        _paste(rgb, band, 0, height - band.height)
    if style.strip:
        gap = np.full((height, max(2, width // 100), 3), 255, np.uint8)
        rgb = np.hstack([frame, gap, rgb, gap, np.asarray(heat)])
    if style.legend:
        rgb = np.vstack([rgb, np.asarray(_legend(rgb.shape[1], _text_size(height, width), style))])
    return rgb


def _text_size(height: int, width: int) -> int:
    """Font size in pixels that is legible when the frame fills a screen."""
    return max(10, round(min(height, width) / 24))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib; Pillow's own font loses its spaces at small sizes."""
    spec = find_spec("matplotlib")  # importing it takes longer than drawing
    assert spec is not None
    assert spec.origin is not None
    return ImageFont.truetype(Path(spec.origin).with_name("mpl-data") / "fonts" / "ttf" / "DejaVuSans.ttf", size)


@lru_cache
def _caption(text: str, width: int, height: int) -> Image.Image:
    """Text wrapped on a dark band, shrunk until it takes at most half of the frame's height."""
    size = _text_size(height, width)
    while True:
        pad = max(2, size // 2)
        lines = _wrap(text, _font(size), width - 2 * pad)
        line_height = round(size * 1.3)
        band_height = line_height * len(lines) + pad
        if size <= _SMALLEST_TEXT or band_height <= height / 2:
            break
        size -= 1
    band = Image.new("RGBA", (width, min(band_height, height)), (*_BLACK, 190))
    draw = ImageDraw.Draw(band)
    for number, line in enumerate(lines):
        middle = pad / 2 + (number + 0.5) * line_height
        draw.text((pad, middle), line, fill=(*_WHITE, 255), font=_font(size), anchor="lm")
    return band


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@lru_cache
def _legend(width: int, size: int, style: Style) -> Image.Image:
    """A band `width` pixels wide: the colour map from cold to hot, with the contour's level marked."""
    height, pad = round(size * 1.8), size // 2
    band = Image.new("RGB", (width, height), (24, 24, 24))
    draw = ImageDraw.Draw(band)
    font = _font(size)
    cold, hot = "cold 0", "1 hot"
    left, right = pad + round(font.getlength(cold)) + pad, width - 2 * pad - round(font.getlength(hot))
    right = min(right, left + 16 * size)
    draw.text((pad, height / 2), cold, fill=_WHITE, font=font, anchor="lm")
    if right > left:
        ramp = np.linspace(0, _LEVELS - 1, right - left).astype(np.uint8)[None].repeat(size, axis=0)
        band.paste(_colourise(ramp, style)[1], (left, (height - size) // 2))
        if style.contour:
            x = left + round(style.contour * (right - left - 1))
            draw.line((x, (height - size) // 2, x, (height + size) // 2 - 1), fill=_WHITE, width=max(1, size // 8))
    draw.text((max(left, right) + pad, height / 2), hot, fill=_WHITE, font=font, anchor="lm")
    return band
