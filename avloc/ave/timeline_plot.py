"""Plots a timeline: probabilities of events over seconds, below a strip of frames with their attention.

Shape letters: T seconds, K classes, background last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.ave.timeline import Timeline
from avloc.heatmap import heat_maps
from avloc.localize.outputs import write_picture
from avloc.localize.overlay import draw_overlay
from avloc.localize.style import Style

STRIP = 20
"""Most frames in the strip; those of longer videos are spread evenly."""
_ROWS = 6
"""Most events shown: the predicted ones, then the next most probable."""
_DOTS_PER_INCH = 110
_WIDEST, _WIDEST_TILE, _LEAST = 9.4, 1.7, 3.4
"""Inches: largest width of all seconds, of one frame, and smallest width of all seconds."""
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP, _BAR = 1.7, 0.9, 0.35, 0.5, 0.12, 0.34
"""Inches around strip and bars, between them, and of one bar."""
_NARROWEST = 0.4
"""Smallest ratio of width to height, and of height to width, that is drawn undistorted."""
_STYLE = Style(box=False, peak=False, legend=False, contour=0.0)


def write_timeline(path: Path, timeline: Timeline) -> None:
    """Write a timeline as a picture, atomically. A second is as wide in the strip as in the bars."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns, rows = min(len(timeline.probabilities), STRIP), shown_classes(timeline)
    inner = max(_LEAST, min(_WIDEST, columns * _WIDEST_TILE))
    tall = inner / columns / min(max(timeline.aspect, _NARROWEST), 1 / _NARROWEST)
    bars = _BAR * len(rows)
    width, height = _LEFT + inner + _RIGHT, _BOTTOM + bars + _GAP + tall + _TOP
    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH)

    def axes(left: float, bottom: float, wide: float, high: float) -> Any:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    _draw_strip(axes(_LEFT, _BOTTOM + bars + _GAP, inner, tall), timeline, columns)
    image = _draw_bars(axes(_LEFT, _BOTTOM, inner, bars), timeline, rows)
    figure.colorbar(image, cax=axes(_LEFT + inner + 0.15, _BOTTOM, 0.15, bars)).set_label("probability", fontsize=8)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    write_picture(path, np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def shown_classes(timeline: Timeline) -> list[int]:
    """The classes with a bar: the predicted ones by first second, the most probable others, background."""
    background = len(timeline.classes) - 1
    predicted = dict.fromkeys(timeline.predicted.tolist())
    others = np.argsort(-timeline.probabilities.max(0), kind="stable").tolist()
    events = [number for number in dict.fromkeys([*predicted, *others]) if number != background]
    return [*events[: max(len(predicted), _ROWS - 1)], background]


def attention_overlay(picture: NDArray[np.uint8], attention: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A frame [S, S, 3] with its min-max normalised attention [7, 7] as an overlay."""
    return draw_overlay(picture, attention_map(attention, (picture.shape[0], picture.shape[1])), style=_STYLE)


def attention_map(attention: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Attention [7, 7] resized and min-max normalised: heat [H, W] in [0, 1]."""
    import torch

    heat: NDArray[np.float32] = heat_maps(torch.from_numpy(attention)[None], size, "bilinear-halfpixel")[0].numpy()
    return heat


def _draw_strip(axis: Any, timeline: Timeline, columns: int) -> None:
    seconds = len(timeline.pictures)
    chosen = ((np.arange(columns) + 0.5) * seconds / columns).astype(int)
    tiles = [
        timeline.pictures[second]
        if timeline.silent[second]
        else attention_overlay(timeline.pictures[second], timeline.attention[second])
        for second in chosen
    ]
    axis.imshow(np.concatenate(tiles, axis=1), aspect="auto", extent=(0, seconds, 1, 0))
    axis.set_xticks([])
    axis.set_yticks([])
    without = f"; {timeline.silent.sum()} of {seconds} seconds are silent" if timeline.silent.any() else ""
    axis.set_title(f"visual attention, guided by the audio{without}", fontsize=9, loc="left")


def _draw_bars(axis: Any, timeline: Timeline, rows: Sequence[int]) -> Any:
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    seconds = len(timeline.probabilities)
    image = axis.imshow(
        timeline.probabilities[:, rows].T,
        aspect="auto",
        cmap="Blues",
        vmin=0,
        vmax=1,
        extent=(0, seconds, len(rows), 0),
        interpolation="nearest",
    )
    for second, number in enumerate(timeline.predicted.tolist()):
        if timeline.silent[second]:
            axis.axvspan(second, second + 1, facecolor="none", edgecolor="#999999", hatch="///", linewidth=0)
        place = (second, rows.index(number))
        axis.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor="#d1495b", linewidth=1.5, clip_on=False))
    axis.set_yticks([row + 0.5 for row in range(len(rows))], [_short(timeline.classes[k]) for k in rows], fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xlabel("seconds; framed: the most probable class of each; hatched: silent, and so background", fontsize=8)
    return image


def _short(name: str, most: int = 24) -> str:
    """A name as a label: shortened, without control characters, `$` escaped (matplotlib would parse a formula)."""
    plain = "".join(sign if sign.isprintable() else "?" for sign in name).replace("$", r"\$")
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
