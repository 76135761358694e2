"""A video played forward: every picture and every sound window in turn, in memory that does not grow with its length.

Both are generators, so that an error of the file is told from an error of whoever uses them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from math import inf
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from avloc.errors import InputError
from avloc.media.audio import WHOLE_S, SoundWindow, window_of, window_start
from avloc.media.audio_decoder import AROUND_S, Losses, Piece, Track, decode_track, joined, sound_from
from avloc.media.frame_decoder import STAMP_S, Shown, as_shown, pictures_from
from avloc.media.layout import Layout
from avloc.media.probing import layout_of

_STAMP = Fraction(STAMP_S)


@dataclass(frozen=True, kw_only=True, eq=False)
class OnScreen:
    """One picture of a video and the time for which it is shown; it may outlive the file it came from."""

    start: Fraction
    """When it appears, in seconds on the container's timeline."""
    end: Fraction
    """When it goes."""
    time_base: Fraction
    """The clock of the video, in seconds."""
    rate: Fraction
    """Pictures per second, on average."""
    clip_end_s: float
    """Where the longest stream of the file ends, in seconds."""
    frame: VideoFrame
    """As decoded."""
    aspect: Fraction | None
    """Width over height of a pixel."""
    damaged: bool
    """Pictures between the one before and this one cannot be decoded."""
    reformatter: VideoReformatter
    """One for all pictures: it keeps what it has worked out."""

    def picture(self) -> NDArray[np.uint8]:
        """RGB [H, W, 3] as shown: rotation and pixel aspect applied."""
        return as_shown(self.frame, self.aspect, self.reformatter)


def play(source: Path, *, start_s: float | None = None, stop_s: float | None = None) -> Generator[OnScreen]:
    """The pictures of a video in the order they are shown.

    Args:
        source: any video.
        start_s: leave out what is gone by then, and cut the picture shown then; None: from the first one.
        stop_s: leave out what comes later, and cut the picture shown then; None: to the last one.

    Raises:
        InputError: no picture, none at `start_s`, cut off, or it cannot be decoded.
    """
    start = None if start_s is None else Fraction(start_s)
    stop = None if stop_s is None else Fraction(stop_s)
    shown, size = None, None
    for shown in _timed(source, start_s or 0.0):
        size = size or (shown.frame.width, shown.frame.height)
        if size != (shown.frame.width, shown.frame.height):
            raise InputError("cannot be used: the size of its picture changes on the way")
        if stop is not None and shown.start > stop - _STAMP:
            return
        if start is None or shown.end > start + _STAMP:
            yield replace(
                shown,
                start=shown.start if start is None else max(shown.start, start),
                end=shown.end if stop is None else min(shown.end, stop),
            )
    assert shown is not None
    if start is not None and shown.end <= start + _STAMP:
        raise InputError(f"has no picture at {start_s:g} s: the video ends at {float(shown.end):.3f} s")


def _timed(source: Path, start_s: float) -> Iterator[OnScreen]:
    """Pictures with the time until the next one; the last one stays as long as it says, or as the one before."""
    reformatter, layout = VideoReformatter(), layout_of(source)
    pictures = pictures_from(source, layout, start_s, threaded=True)
    current = next(pictures)
    tick, step = current.tick, max(1, round(1 / current.rate / current.clock))
    for following in pictures:
        step = max(1, following.tick - tick)  # two pictures cannot appear at one time
        yield _on_screen(current, tick, tick + step, layout, reformatter)
        current, tick = following, tick + step
    yield _on_screen(current, tick, tick + (current.frame.duration or step), layout, reformatter)


def _on_screen(shown: Shown, start: int, end: int, layout: Layout, reformatter: VideoReformatter) -> OnScreen:
    return OnScreen(
        start=start * shown.clock,
        end=end * shown.clock,
        time_base=shown.clock,
        rate=shown.rate,
        clip_end_s=layout.end_s,
        frame=shown.frame,
        aspect=shown.aspect,
        damaged=shown.damaged,
        reformatter=reformatter,
    )


def play_sound(
    source: Path,
    centres_s: Iterable[float],
    *,
    seconds: float,
    rate: int = 0,
    clip_end_s: float = 0.0,
    track: int | None = None,
) -> Generator[SoundWindow]:
    """The windows that `read_sound` gives with each of these centres, decoded in one pass.

    A sound of up to a minute is held whole, of a longer one only what a window needs.

    Args:
        source: any file with an audio stream.
        centres_s: ascending; asked for one at a time.
        seconds: length of a window.
        rate: sample rate of the result in Hz; 0 keeps the file's own.
        clip_end_s: the clip reaches at least this far, for a sound that belongs to a longer video.
        track: which sound track, counted from 1; None is the main one.

    Raises:
        InputError: no sound stream, nothing in it, or it cannot be decoded.
    """
    layout = layout_of(source, track)
    extent = layout.sound_extent
    clip_end_s = max(layout.end_s, clip_end_s)
    if layout.end_s <= WHOLE_S:
        whole = decode_track(source, layout, 0.0, inf)
        tracks: Iterator[tuple[float, Track]] = ((centre, whole) for centre in centres_s)
        extent = whole.extent_s
    else:
        starts = ((centre, window_start(extent, seconds, centre, clip_end_s)) for centre in centres_s)
        tracks = _stretches(source, layout, starts, seconds)
    for centre, track_around in tracks:
        yield window_of(track_around, extent, seconds=seconds, rate=rate, centre_s=centre, clip_end_s=clip_end_s)


def play_seconds(source: Path, count: int, rate: int) -> Generator[SoundWindow]:
    """Each of the first `count` seconds of a clip, one after another; zeros where there is no sound, nothing repeated.

    Raises:
        InputError: there is no second of sound, or it cannot be decoded.
    """
    start_s, end_s = layout_of(source).sound_extent
    if end_s - start_s < 1:
        raise InputError("has less than a second of sound")
    centres = (second + 0.5 for second in range(count))
    with closing(play_sound(source, centres, seconds=1.0, rate=rate, clip_end_s=float(count))) as windows:
        yield from windows


def _stretches(
    source: Path, layout: Layout, starts: Iterator[tuple[float, float]], seconds: float
) -> Iterator[tuple[float, Track]]:
    """Each centre with the sound around the window that starts at the time beside it."""
    first = next(starts, None)
    if first is None:
        return
    losses: Losses = []
    supply = sound_from(source, layout, first[1], losses)
    held: deque[Piece] = deque()
    for centre, start in chain([first], starts):
        while not held or held[-1].stop < (start + seconds + AROUND_S) * held[-1].rate:
            piece = next(supply, None)
            if piece is None:
                break
            held.append(piece)
            while len(held) > 1 and held[0].stop < (start - AROUND_S) * held[0].rate:
                held.popleft()
        near = [piece for piece in held if piece.first < (start + seconds + AROUND_S) * piece.rate]
        yield centre, joined(near or list(held)[:1], losses)  # what lies behind a gap is not joined to what is before
