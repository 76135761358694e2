"""Reads a video second by second, for labels per second: audio, frames, and both for the clip of a store."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avloc.errors import InputError
from avloc.media.audio import SoundWindow
from avloc.media.containers import MediaSource
from avloc.media.pictures import square
from avloc.media.probing import probe
from avloc.media.video_frames import Moment, read_frame, read_frames
from avloc.media.video_stream import stream_sound

FRAMES_PER_SECOND = 16
"""Frames of a second whose features are averaged (Tian et al., 2018)."""
FRAME_SIDE = 224
"""Side in pixels of the square that frames are stretched to."""
LATE_S = 0.5
"""Tolerated shortfall of the last second of a video: AVE's clips are not cut to the frame."""


def read_first_seconds(
    source: Path, *, seconds: float, rate: int, at: float | None = None, track: int | None = None
) -> Moment:
    """The frame and the audio of the first seconds of a video, with the arguments of `read_moment`.

    The audio is zero-padded; `still` is not determined.

    Raises:
        InputError: the video is shorter, has less than a second of audio, or cannot be decoded.
    """
    layout = probe(source, track)
    length_s = layout.picture_extent[1]
    if length_s < seconds - LATE_S:
        raise InputError(f"lasts {length_s:.1f} s; events are labelled for {seconds:g} s")
    windows = list(sound_by_second(source, int(seconds), rate, track))
    waveform = np.concatenate([window.waveform for window in windows])
    picture, time_s = read_frame(source, at=at)
    sound = replace(windows[0], waveform=waveform, end_s=seconds)
    others = layout.other_tracks
    return Moment(picture=picture, time_s=time_s, still=False, sound=sound, other_tracks=others)


def sound_by_second(source: Path, count: int, rate: int, track: int | None = None) -> Generator[SoundWindow]:
    """The first `count` seconds of a clip as windows of one second, zero-padded.

    Raises:
        InputError: less than a second of audio, or it cannot be decoded.
    """
    start_s, end_s = probe(source, track).sound_extent
    if end_s - start_s < 1:
        raise InputError("has less than a second of sound")
    centres = (second + 0.5 for second in range(count))
    return stream_sound(source, centres, seconds=1.0, rate=rate, clip_end_s=float(count), track=track)


def frames_by_second(source: MediaSource, start_s: float, count: int) -> Iterator[NDArray[np.uint8]]:
    """16 frames of each second [224, 224, 3], from the middles of its sixteenths, stretched to a square.

    Raises:
        InputError: the video cannot be decoded.
    """
    times = [start_s + (number + 0.5) / FRAMES_PER_SECOND for number in range(count * FRAMES_PER_SECOND)]
    return (square(picture, FRAME_SIDE) for picture in read_frames(source, times))
