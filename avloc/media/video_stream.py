"""Stream all frames or audio windows of a video, in memory independent of its length."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from avloc.errors import InputError
from avloc.media.audio import FULL_DECODE_S, SoundWindow, make_window, window_start
from avloc.media.audio_decoder import MARGIN_S, AudioChunk, AudioSpan, Losses, concatenate, decode_track, iterate_audio
from avloc.media.frame_decoder import TIMESTAMP_TOLERANCE_S, DecodedFrame, iterate_frames
from avloc.media.layout import Layout
from avloc.media.probing import probe

_TOLERANCE = Fraction(TIMESTAMP_TOLERANCE_S)


@dataclass(frozen=True, kw_only=True, eq=False)
class TimedFrame:
    """A video frame with start and end of its presentation, in seconds on the container's timeline."""

    start: Fraction
    end: Fraction
    clip_end_s: float
    """End of the longest stream of the file, in seconds."""
    decoded: DecodedFrame
    reformatter: VideoReformatter
    """Shared by all frames, since it caches its setup."""

    def picture(self) -> NDArray[np.uint8]:
        """RGB [H, W, 3] with rotation and pixel aspect applied."""
        return self.decoded.picture(self.reformatter)


def stream_frames(source: Path, *, start_s: float | None = None, stop_s: float | None = None) -> Generator[TimedFrame]:
    """Frames of a video in presentation order.

    Args:
        source: any video.
        start_s: first time; the frame displayed then is clipped to start there. None: the first frame.
        stop_s: end time; the frame displayed then is clipped to end there. None: the end of the video.

    Raises:
        InputError: no video, none at `start_s`, or it cannot be decoded.
    """
    start = None if start_s is None else Fraction(start_s)
    stop = None if stop_s is None else Fraction(stop_s)
    shown, first_size = None, None
    for shown in _timed(source, start_s or 0.0):
        size = (shown.decoded.frame.width, shown.decoded.frame.height)
        first_size = first_size or size
        if size != first_size:
            raise InputError("cannot be used: its frame size changes within the stream")
        if stop is not None and shown.start > stop - _TOLERANCE:
            return
        if start is None or shown.end > start + _TOLERANCE:
            yield replace(
                shown,
                start=shown.start if start is None else max(shown.start, start),
                end=shown.end if stop is None else min(shown.end, stop),
            )
    assert shown is not None
    if start is not None and shown.end <= start + _TOLERANCE:
        raise InputError(f"has no picture at {start_s:g} s: the video ends at {float(shown.end):.3f} s")


def _timed(source: Path, start_s: float) -> Iterator[TimedFrame]:
    """Frames that each last until the next one; the last one for its own duration, or as long as the one before."""
    reformatter, layout = VideoReformatter(), probe(source)
    pictures = iterate_frames(source, layout, start_s, threaded=True)
    current = next(pictures)
    tick, step = current.tick, max(1, round(1 / current.rate / current.time_base))
    for following in chain(pictures, [None]):
        step = max(1, following.tick - tick) if following else step  # time stamps can be equal
        end = tick + (step if following else current.frame.duration or step)
        yield TimedFrame(
            start=tick * current.time_base,
            end=end * current.time_base,
            clip_end_s=layout.end_s,
            decoded=current,
            reformatter=reformatter,
        )
        current, tick = following or current, end


def stream_sound(
    source: Path,
    centres_s: Iterable[float],
    *,
    seconds: float,
    rate: int = 0,
    clip_end_s: float = 0.0,
    track: int | None = None,
) -> Generator[SoundWindow]:
    """The windows of `read_sound` at several centres, decoded in one pass.

    Audio of up to a minute is held whole, of longer audio only what a window needs.

    Args:
        source: any file with an audio stream.
        centres_s: ascending times, consumed lazily.
        seconds: length of a window.
        rate: sample rate of the result in Hz; 0 keeps the source's.
        clip_end_s: minimum end of the clip, for audio of a longer video.
        track: audio track, counted from 1; None is the main one.

    Raises:
        InputError: no audio stream, an empty one, or it cannot be decoded.
    """
    layout = probe(source, track)
    extent = layout.sound_extent
    clip_end_s = max(layout.end_s, clip_end_s)
    if layout.end_s <= FULL_DECODE_S:
        whole = decode_track(source, layout)
        tracks: Iterator[tuple[float, AudioSpan]] = ((centre, whole) for centre in centres_s)
        extent = whole.extent_s
    else:
        starts = ((centre, window_start(extent, seconds, centre, clip_end_s)) for centre in centres_s)
        tracks = _stretches(source, layout, starts, seconds)
    for centre, track_around in tracks:
        yield make_window(track_around, extent, seconds=seconds, rate=rate, centre_s=centre, clip_end_s=clip_end_s)


def _stretches(
    source: Path, layout: Layout, starts: Iterator[tuple[float, float]], seconds: float
) -> Iterator[tuple[float, AudioSpan]]:
    """Each centre of `starts` (centre and start of a window) with the audio around its window."""
    first = next(starts, None)
    if first is None:
        return
    losses: Losses = []
    supply = iterate_audio(source, layout, first[1], losses)
    held: deque[AudioChunk] = deque()
    for centre, start in chain([first], starts):
        while not held or held[-1].stop < (start + seconds + MARGIN_S) * held[-1].rate:
            chunk = next(supply, None)
            if chunk is None:
                break
            held.append(chunk)
            while len(held) > 1 and held[0].stop < (start - MARGIN_S) * held[0].rate:
                held.popleft()
        near = [chunk for chunk in held if chunk.first < (start + seconds + MARGIN_S) * chunk.rate]
        yield centre, concatenate(near or list(held)[:1], losses)  # without audio beyond a gap
