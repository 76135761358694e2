"""The events of one video, second by second, and how they are shown: as JSON, a picture or a video.

Shape letters: T seconds, K classes, background last.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.localize.outputs import new_file, write_picture
from avloc.localize.overlay import draw_overlay, draw_silent
from avloc.localize.result import heat_of
from avloc.localize.style import Style
from avloc.localize.verdict import Verdict
from avloc.localize.video import EncodedVideo, encode_video, warn_codec
from avloc.media.video_stream import TimedFrame, stream_frames
from avloc.progress import Listener, Progress, silent

_STYLE = Style(box=False, peak=False, legend=False, contour=0.0)
_VIDEO_STYLE = Style(box=False, peak=False, contour=0.0)
STRIP = 20
"""Maximum number of frames in the strip; those of longer videos are evenly spaced."""
_ROWS = 6
"""Least number of classes with a bar, if there are as many: the predicted ones, then the most probable others."""
_DOTS_PER_INCH = 110
_WIDEST, _WIDEST_TILE, _LEAST = 9.4, 1.7, 3.4
"""Inches: largest width of all seconds and of one frame, smallest width of all seconds."""
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP, _BAR = 1.7, 0.9, 0.35, 0.5, 0.12, 0.34
"""Inches around strip and bars, between them, and of one bar."""
_NARROWEST = 0.4
"""Limit of the ratio of width to height, and of height to width; beyond it, frames are drawn distorted."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Consecutive seconds with the same event."""

    event: str
    start: int
    end: int
    """The second after the last."""
    confidence: float
    """Mean probability of the event in its seconds."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Predicted events and attention of every second of a video."""

    classes: tuple[str, ...]
    """Background last."""
    probabilities: NDArray[np.float32]
    """[T, K]."""
    attention: NDArray[np.float32]
    """[T, 7, 7]; the weights of a second sum to 1."""
    pictures: NDArray[np.uint8]
    """[T, 112, 112, 3] frames from the middle of each second, stretched to a square."""
    aspect: float
    """Width of the video divided by its height."""
    silent: NDArray[np.bool_]
    """[T] seconds of digital silence, or after the end of the audio."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """[T] the most probable class of each second; background where it is silent."""
        background = len(self.classes) - 1
        return np.where(self.silent, background, self.probabilities.argmax(1))

    @property
    def spans(self) -> list[Span]:
        """The events in order, without background."""
        out, start = [], 0
        for number, run in groupby(self.predicted.tolist()):
            end = start + len(list(run))
            if number != len(self.classes) - 1:
                mean = float(self.probabilities[start:end, number].mean())
                out.append(Span(event=self.classes[number], start=start, end=end, confidence=round(mean, 4)))
            start = end
        return out

    def as_json(self) -> dict[str, Any]:
        """Events and seconds for a line of JSON; times in seconds, places in fractions of the frame."""
        per_second = [
            {
                "second": second,
                "event": self.classes[number],
                "silent": bool(quiet),
                "probability": None if quiet else round(float(self.probabilities[second, number]), 4),
                "attention_peak_xy": None if quiet else _peak(self.attention[second]),
            }
            for second, (number, quiet) in enumerate(zip(self.predicted.tolist(), self.silent, strict=True))
        ]
        return {"seconds": len(per_second), "events": [vars(span) for span in self.spans], "per_second": per_second}


def _peak(attention: NDArray[np.float32]) -> list[float]:
    row, column = np.unravel_index(attention.argmax(), attention.shape)
    height, width = attention.shape
    return [round((int(column) + 0.5) / width, 4), round((int(row) + 0.5) / height, 4)]


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


def write_timeline_video(source: Path, out: Path, timeline: Timeline, listener: Listener = silent) -> EncodedVideo:
    """Write an MP4 of `source` with its timeline; all frames, time stamps and the audio are kept.

    The overlay is the attention of the frame's second, min-max normalised. Silent seconds, and frames after the last
    whole second, have no overlay.

    Raises:
        InputError: it cannot be decoded; nothing is written.
    """
    warn_codec(out, listener)
    seconds = len(timeline.probabilities)

    @lru_cache(maxsize=1)
    def heat(second: int, height: int, width: int) -> NDArray[np.float32]:
        return attention_map(timeline.attention[second], (height, width))

    def drawn(shown: TimedFrame) -> NDArray[np.uint8]:
        picture, second = shown.picture(), max(0, int(shown.start))
        listener(Progress(task="frames", done=min(second, seconds), total=seconds, detail=source.name))
        if second >= seconds:
            return draw_silent(picture, style=_VIDEO_STYLE, caption="")
        if timeline.silent[second]:
            return draw_silent(picture, style=_VIDEO_STYLE, caption=Verdict.SILENT.sentence)
        number = int(timeline.predicted[second])
        caption = f"{timeline.classes[number]} {100 * timeline.probabilities[second, number]:.0f} %"
        overlay = heat(second, picture.shape[0], picture.shape[1])
        return draw_overlay(picture, overlay, style=_VIDEO_STYLE, caption=caption)

    with new_file(out) as part, closing(stream_frames(source)) as pictures:
        return encode_video(part, pictures, drawn, sound=source)


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
    return heat_of(attention, "bilinear-halfpixel", *size)


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
