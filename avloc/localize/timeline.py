"""A picture of what happens when: events as bars over seconds, and where the sound said to look.

Shape letters: T seconds, K classes, background last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avloc.files import atomic_path
from avloc.localize.overlay import draw_overlay
from avloc.localize.style import Style

if TYPE_CHECKING:
    from avloc.localize.events import Timeline

STRIP = 20
"""Pictures in the strip at most; of longer videos they are spread evenly."""
_ROWS = 6
"""Events shown at most: those that are told, then the next most probable."""
_DOTS_PER_INCH = 110
_STYLE = Style(box=False, peak=False, legend=False)


def write_timeline(path: Path, timeline: Timeline) -> None:
    """Draw a timeline, by the ending of `path`, atomically."""
    from matplotlib.figure import Figure

    seconds = len(timeline.probabilities)
    columns = min(seconds, STRIP)
    rows = shown_classes(timeline)
    tall = 8 / columns / timeline.aspect if columns > 4 else 2.0
    figure = Figure(figsize=(11, 1.4 + 0.32 * len(rows) + max(0.6, tall)), layout="constrained")
    strip, bars = figure.subplots(2, 1, height_ratios=(max(0.6, tall), 0.7 + 0.32 * len(rows)))
    _draw_strip(strip, timeline, columns)
    _draw_bars(bars, timeline, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        figure.savefig(part, format=path.suffix.lstrip(".").lower().replace("jpg", "jpeg"), dpi=_DOTS_PER_INCH)


def shown_classes(timeline: Timeline) -> list[int]:
    """The classes that get a bar: all that are told, by their first second, then the most probable others."""
    told = list(dict.fromkeys(timeline.told.tolist()))
    others = np.argsort(-timeline.probabilities.max(0), kind="stable").tolist()
    return list(dict.fromkeys([*told, *others]))[: max(len(told), min(_ROWS, len(timeline.classes)))]


def attended(picture: NDArray[np.uint8], attention: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture [S, S, 3] under its attention [7, 7]; the most attended cell is hottest, the least is cold."""
    low, high = attention.min(), attention.max()
    level = (attention - low) / (high - low) if high > low else np.zeros_like(attention)
    side = picture.shape[0]
    heat = np.asarray(Image.fromarray(level.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR))
    return draw_overlay(picture, heat.clip(0, 1), style=_STYLE)


def _draw_strip(axis: Any, timeline: Timeline, columns: int) -> None:
    seconds = len(timeline.pictures)
    chosen = np.linspace(0, seconds - 1, columns).round().astype(int) if columns < seconds else np.arange(seconds)
    side = timeline.pictures.shape[1]
    width = round(side * timeline.aspect)
    tiles = [
        Image.fromarray(attended(timeline.pictures[t], timeline.attention[t])).resize((width, side)) for t in chosen
    ]
    axis.imshow(np.concatenate([np.asarray(tile) for tile in tiles], axis=1))
    axis.set_xticks(
        [(place + 0.5) * width for place in range(columns)], [f"{second} s" for second in chosen], fontsize=7
    )
    axis.set_yticks([])
    axis.set_title("where the sound says to look, from the middle of each second", fontsize=9, loc="left")


def _draw_bars(axis: Any, timeline: Timeline, rows: Sequence[int]) -> None:
    seconds = len(timeline.probabilities)
    shown = timeline.probabilities[:, rows].T
    image = axis.imshow(
        shown, aspect="auto", cmap="viridis", vmin=0, vmax=1, extent=(0, seconds, len(rows), 0), interpolation="nearest"
    )
    for second, number in enumerate(timeline.told.tolist()):
        row = rows.index(number)
        axis.plot([second, second + 1], [row + 0.5, row + 0.5], color="white", linewidth=2.5)
    axis.set_yticks([row + 0.5 for row in range(len(rows))], [timeline.classes[number] for number in rows], fontsize=8)
    axis.set_xlabel("seconds; white: the most probable class of the second", fontsize=8)
    axis.figure.colorbar(image, ax=axis, label="probability", pad=0.01)
