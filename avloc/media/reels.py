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
from math import floor, inf
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avloc.errors import InputError
from avloc.media.containers import end_s, opened, picture_stream, sound_stream, stream_extent_s
from avloc.media.sounds import (
    AROUND_S,
    WHOLE_S,
    Piece,
    SoundWindow,
    Track,
    declared_extent_s,
    decode_track,
    joined,
    sound_from,
    window_of,
    window_start,
)
from avloc.media.videos import STAMP_S, Shown, as_shown, pictures_from

_STAMP = Fraction(STAMP_S)
_SHORTFALL_S = 0.5
"""Pictures that end this much before their declared end are cut off."""
_USUAL_RATE, _USUAL_CLOCK = Fraction(25), Fraction(1, 90_000)


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
    """Where the longest stream of the file ends by its own word; 0 where it does not say."""
    frame: VideoFrame
    """As decoded."""
    aspect: Fraction | None
    """Width over height of a pixel."""
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
    with opened(source) as container:
        stream = picture_stream(container)
        stream.thread_type = "AUTO"
        shown, size = None, None
        for shown in _timed(container, stream, start_s or 0.0):
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
        _check_end(container, stream, float(shown.end), start_s)


def _timed(container: InputContainer, stream: VideoStream, start_s: float) -> Iterator[OnScreen]:
    """Pictures with the time until the next one; the last one stays as long as it says, or as the one before."""
    time_base = stream.time_base or _USUAL_CLOCK
    rate = stream.average_rate or stream.guessed_rate or _USUAL_RATE
    reformatter = VideoReformatter()
    origin = floor(Fraction(container.start_time or 0, av.time_base) / time_base + Fraction(1, 2))

    def on_screen(shown: Shown, start: int, end: int) -> OnScreen:
        return OnScreen(
            start=start * time_base,
            end=end * time_base,
            time_base=time_base,
            rate=rate,
            clip_end_s=end_s(container),
            frame=shown.frame,
            aspect=stream.sample_aspect_ratio,
            reformatter=reformatter,
        )

    pictures = pictures_from(container, stream, start_s)
    current = next(pictures)
    tick, step = (current.frame.pts or origin) - origin, max(1, round(1 / rate / time_base))
    for following in pictures:
        stamp = tick + step if following.frame.pts is None else following.frame.pts - origin
        step = max(1, stamp - tick)  # two pictures cannot appear at one time
        yield on_screen(current, tick, tick + step)
        current, tick = following, tick + step
    yield on_screen(current, tick, tick + (current.ticks or step))


def _check_end(container: InputContainer, stream: VideoStream, last_s: float, start_s: float | None) -> None:
    declared = stream_extent_s(container, stream)
    if declared is not None and last_s < declared[1] - _SHORTFALL_S:
        raise InputError(
            f"is cut off: it should have pictures until {declared[1]:.3f} s, but they end at {last_s:.3f} s"
        )
    if start_s is not None and last_s <= start_s + STAMP_S:
        raise InputError(f"has no picture at {start_s:g} s: the video ends at {last_s:.3f} s")


def play_sound(
    source: Path, centres_s: Iterable[float], *, seconds: float, rate: int = 0, clip_end_s: float = 0.0
) -> Generator[SoundWindow]:
    """The windows that `read_sound` gives with each of these centres, decoded in one pass.

    A sound of up to a minute is held whole, of a longer one only what a window needs.

    Args:
        source: any file with an audio stream.
        centres_s: ascending; asked for one at a time.
        seconds: length of a window.
        rate: sample rate of the result in Hz; 0 keeps the file's own.
        clip_end_s: the clip reaches at least this far, for a sound that belongs to a longer video.

    Raises:
        InputError: no sound stream, nothing in it, or it cannot be decoded.
    """
    with opened(source) as container:
        stream = sound_stream(container)
        extent = declared_extent_s(container, stream)
        clip_end_s = max(end_s(container), extent[1], clip_end_s)
        if max(end_s(container), extent[1]) <= WHOLE_S:
            track = decode_track(container, stream, 0.0, inf)
            tracks: Iterator[tuple[float, Track]] = ((centre, track) for centre in centres_s)
            extent = track.extent_s
        else:
            starts = ((centre, window_start(extent, seconds, centre, clip_end_s)) for centre in centres_s)
            tracks = _stretches(container, stream, starts, seconds)
        for centre, track in tracks:
            yield window_of(track, extent, seconds=seconds, rate=rate, centre_s=centre, clip_end_s=clip_end_s)


def play_seconds(source: Path, count: int, rate: int) -> Generator[SoundWindow]:
    """Each of the first `count` seconds of a clip, one after another; zeros where there is no sound, nothing repeated.

    Raises:
        InputError: there is no second of sound, or it cannot be decoded.
    """
    centres = (second + 0.5 for second in range(count))
    with closing(play_sound(source, centres, seconds=1.0, rate=rate, clip_end_s=float(count))) as windows:
        for window in windows:
            if window.short:
                raise InputError("has less than a second of sound")
            yield window


def _stretches(
    container: InputContainer, stream: AudioStream, starts: Iterator[tuple[float, float]], seconds: float
) -> Iterator[tuple[float, Track]]:
    """Each centre with the sound around the window that starts at the time beside it."""
    first = next(starts, None)
    if first is None:
        return
    losses: list[int] = []
    supply = sound_from(container, stream, first[1], losses)
    held: deque[Piece] = deque()
    for centre, start in chain([first], starts):
        while not held or held[-1].stop < (start + seconds + AROUND_S) * held[-1].rate:
            piece = next(supply, None)
            if piece is None:
                break
            held.append(piece)
            while len(held) > 1 and held[0].stop < (start - AROUND_S) * held[0].rate:
                held.popleft()
        yield centre, joined(held, losses)
