"""A video with heat maps laid over it: streamed from file to file, in memory that does not grow with its length."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain, count, tee
from math import ceil, inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avloc.errors import InputError, UsageError
from avloc.localize.interpolated import AHEAD, Asking, Interpolated, Mapper
from avloc.localize.moments import OWN_SOUND, SoundSource, sounds_at
from avloc.localize.movie import Movie, tell_codec, write_movie
from avloc.localize.outputs import new_file
from avloc.localize.overlay import draw_overlay, draw_silent
from avloc.localize.result import peak_and_box, peak_of
from avloc.localize.style import DEFAULT_STYLE, Style
from avloc.localize.verdict import Verdict
from avloc.media import SoundWindow, TimedFrame, stream_frames
from avloc.progress import Listener, Notice, Progress, silent

_ON_TIME_S = 1e-4
"""A picture that appears this little after a map's time is the one on screen then."""
_HELD_BYTES = 128 << 20
"""Pictures that wait in memory for the map that follows them take no more than this."""
_BYTES_PER_PIXEL = 1.5  # of a decoded picture: most have their colours at half the size


@dataclass(frozen=True, kw_only=True)
class VideoSummary(Movie):
    """What was written."""

    maps: int
    """How often the model was asked."""
    missing: str = ""
    """Why there is no more of it, where its source breaks off."""


def write_video(
    source: Path,
    out: Path,
    mapper: Mapper,
    *,
    every: float = 0.5,
    start: float | None = None,
    end: float | None = None,
    sound: SoundSource = OWN_SOUND,
    style: Style = DEFAULT_STYLE,
    caption: str = "",
    listener: Listener = silent,
) -> VideoSummary:
    """Write an MP4 of `source` with its heat maps, with its own frame rate, time stamps and sound.

    A map is made every `every` seconds from the picture on screen and the sound around that time (see `read_sound`),
    stretched to [0, 1], and between two maps heat goes over from one to the other in a straight line. Silence has no
    heat: half-way to it the picture stands plain, with a caption. The sound is copied bit by bit where an MP4 can hold
    it, else encoded as AAC.

    Args:
        source: any video.
        out: the MP4; replaced only once the new one is complete.
        mapper: the model.
        every: seconds from one map to the next.
        start: where to begin, in seconds; the movie's zero.
        end: where to end, in seconds.
        sound: the sound for the maps and for the movie; one of its own is cut where the pictures end.
        style: see `draw_overlay`.
        caption: stands on every picture with heat.
        listener: hears how many maps are done.

    Raises:
        UsageError: `every`, `start` or `end` cannot be meant.
        InputError: no picture, no sound, or it cannot be decoded from the beginning; nothing is written.
    """
    _check(every, start, end)
    tell_codec(out, listener)
    with ExitStack() as stack:
        stack.enter_context(_torch_on_one_thread())
        part = stack.enter_context(new_file(out))
        missing: list[str] = []
        played = partial(stream_frames, source, start_s=start, stop_s=end)
        pictures, ahead = _twice(lambda: _as_far_as_it_goes(played(), missing), every, stack)
        first = next(pictures)
        total = ceil((min(first.clip_end_s, end or inf) - (start or 0)) / every) if first.clip_end_s else None
        told = _told(f"maps of {source.name}", total, listener)
        askings = _askings(ahead, source, mapper, every, sound, listener)
        heat = stack.enter_context(closing(Interpolated(askings, mapper, told)))
        drawn = partial(_drawn, maps=heat, style=style, caption=caption)
        movie = write_movie(
            part,
            chain([first], pictures),
            drawn,
            sound=sound.of(source),
            track=sound.track,
            whole_sound=end is None and sound.file is None,
            origin=Fraction(start or 0),
        )
        return VideoSummary(**vars(movie), maps=heat.asked, missing="".join(missing[:1]))


@contextmanager
def _torch_on_one_thread() -> Iterator[None]:
    """For the maps of a video: torch's other threads would wait on cores that decoder, drawing and encoder need."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check(every: float, start: float | None, end: float | None) -> None:
    if not every > 0:
        raise UsageError(f"--every {every:g}: valid: more than 0 seconds")
    if start is not None and start < 0:
        raise UsageError(f"--start {start:g}: valid: 0 seconds or later")
    if end is not None and end <= (start or 0):
        raise UsageError(f"--end {end:g}: valid: later than --start {start or 0:g}")


def _twice(
    played: Callable[[], Generator[TimedFrame]], every: float, stack: ExitStack
) -> tuple[Iterator[TimedFrame], Iterator[TimedFrame]]:
    """The pictures for the movie, and for the maps that run ahead of it by some times `every` seconds.

    Decoded once where what lies between fits in memory, else once for each.
    """
    pictures = stack.enter_context(closing(played()))
    first = next(pictures)
    between = (1 + AHEAD) * every * first.rate * first.frame.width * first.frame.height * _BYTES_PER_PIXEL
    if between <= _HELD_BYTES:
        one, other = tee(chain([first], pictures))
        return one, other
    return chain([first], pictures), stack.enter_context(closing(played()))


def _as_far_as_it_goes(pictures: Generator[TimedFrame], missing: list[str]) -> Generator[TimedFrame]:
    """The pictures up to where they break off; `missing` gets the reason, and where some on the way are damaged.

    Raises:
        InputError: not even the first one can be decoded.
    """
    with closing(pictures):
        shown = next(pictures)
        while True:
            if shown.damaged:
                missing.append(f"has pictures before {float(shown.start):.3f} s that cannot be decoded")
            yield shown
            try:
                following = next(pictures, None)
            except InputError as error:
                missing.append(f"breaks off at {float(shown.end):.3f} s: {error}")
                return
            if following is None:
                return
            shown = following


def _told(task: str, total: int | None, listener: Listener) -> Callable[[int], None]:
    return lambda done: listener(Progress(task=task, done=done, total=total))


def _askings(
    pictures: Iterator[TimedFrame], source: Path, mapper: Mapper, every: float, sound: SoundSource, listener: Listener
) -> Generator[Asking]:
    """What the model is asked for every `every` seconds on which there is a picture."""
    windows: Iterator[SoundWindow] | None = None
    for number, (time_s, shown) in enumerate(_each(pictures, every)):
        if windows is None:
            windows = sounds_at(source, map(partial(_time_of, time_s, every), count()), mapper, sound)
        window = next(windows)
        if not number and window.source_rate < window.rate:
            listener(Notice(f"{source.name}: sampled at {window.source_rate} Hz; the model takes {window.rate} Hz"))
        yield Asking(time_s=time_s, picture=shown.picture(), sound=window)


def _each(pictures: Iterator[TimedFrame], every: float) -> Iterator[tuple[float, TimedFrame]]:
    """The first picture's time and every `every` seconds from there, with the picture on screen."""
    first_s, step = None, 0
    for shown in pictures:
        first_s = float(shown.start) if first_s is None else first_s
        while (time_s := _time_of(first_s, every, step)) < float(shown.end) - _ON_TIME_S:
            yield time_s, shown
            step += 1


def _time_of(first_s: float, every: float, step: int) -> float:
    return first_s + step * every


def _drawn(shown: TimedFrame, maps: Interpolated, style: Style, caption: str) -> NDArray[np.uint8]:
    picture = shown.picture()
    heat, left = maps.at(float(shown.start))
    if heat is None:
        return draw_silent(picture, style=style, caption=Verdict.SILENT.sentence)
    peak, box = _top(heat, style)
    heat = heat * np.float32(left)
    return draw_overlay(picture, heat, style=style, box_xyxy=box, peak_xy=peak, caption=caption)


def _top(heat: NDArray[np.float32], style: Style) -> tuple[list[int] | None, list[int] | None]:
    """Peak and box as far as they are drawn; a flat map has none."""
    if not heat.any():
        return None, None
    return peak_and_box(heat) if style.box else (peak_of(heat), None)
