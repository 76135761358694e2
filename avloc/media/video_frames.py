"""A moment of a video: the picture shown at a time, and the sound around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from avloc.errors import InputError
from avloc.media.audio import SoundWindow, read_sound
from avloc.media.containers import MediaSource
from avloc.media.frame_decoder import STAMP_S, shown_at
from avloc.media.layout import Layout
from avloc.media.probing import layout_of

_STILL_LEVELS = 4
"""Grey levels by which no cell of a still picture changes; compression noise stays below."""
_STILL_GRID = (32, 32)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A picture out of a video with the sound around it."""

    picture: NDArray[np.uint8]
    """[H, W, 3] RGB as shown: rotation and pixel aspect applied."""
    time_s: float
    """When the picture appears, on the file's timeline, in seconds."""
    still: bool
    """The picture does not change from the beginning of the sound window to its end."""
    sound: SoundWindow


def read_moment(
    source: MediaSource, *, seconds: float, rate: int = 0, at: float | None = None, track: int | None = None
) -> Moment:
    """The picture shown at a time and the sound around it.

    Args:
        source: any video.
        seconds: length of the sound window; see `read_sound`.
        rate: sample rate of the sound in Hz; 0 keeps the file's own.
        at: time of the picture in seconds; None is the middle of the video.
        track: which sound track, counted from 1; None is the main one.

    Raises:
        InputError: no picture, no sound, a time past the end, or the file cannot be decoded.
    """
    layout = layout_of(source, track)
    time_s = _checked_time(layout, at)
    sound = read_sound(source, seconds=seconds, rate=rate, centre_s=time_s, track=track)
    around = sorted([time_s, sound.start_s, sound.start_s + seconds])
    pictures = shown_at(source, layout, around)
    shown = list(islice(pictures, around.index(time_s) + 1))
    middle = shown[-1]
    # Where the picture has moved already, the rest of the window is not decoded.
    still = all(_alike(one.frame, middle.frame) for one in chain(shown, pictures))
    return Moment(picture=middle.picture(), time_s=middle.start_s, still=still, sound=sound)


def read_frame(source: MediaSource, *, at: float | None = None) -> tuple[NDArray[np.uint8], float]:
    """The picture [H, W, 3] RGB shown at a time (None: the middle of the video) and when it appears, in seconds.

    Raises:
        InputError: no picture, a time past the end, or the file cannot be decoded.
    """
    layout = layout_of(source)
    shown = next(shown_at(source, layout, [_checked_time(layout, at)]))
    return shown.picture(), shown.start_s


LATE_S = 0.5
"""What may be missing of the last second of a video that is told second by second: AVE's are not cut to the frame."""


def picture_seconds(source: MediaSource) -> float:
    """When the last picture of a video ends, in seconds, by its packets; nothing is decoded.

    Raises:
        InputError: there are no pictures, or the file cannot be read.
    """
    return layout_of(source).picture_extent[1]


def read_frames(source: MediaSource, times: list[float]) -> Iterator[NDArray[np.uint8]]:
    """The pictures [H, W, 3] RGB shown at ascending times in seconds, one after another; past the end, the last one.

    Raises:
        InputError: no picture, or the file cannot be decoded.
    """
    reformatter = VideoReformatter()
    for shown in shown_at(source, layout_of(source), times):
        yield shown.picture(reformatter)


def _checked_time(layout: Layout, at: float | None) -> float:
    """The time asked for, or the middle of the whole video, once it is sure that the pictures reach it."""
    start, end = layout.picture_extent
    if at is None:
        time_s = (start + (layout.promised_s or end)) / 2
        if layout.cut_off and (time_s > end or not layout.promised_s):
            raise InputError(layout.cut_off)
        return time_s
    if at >= end + STAMP_S:
        raise InputError(f"has no picture at {at:g} s: the video ends at {end:.3f} s")
    return at


def _alike(one: VideoFrame, other: VideoFrame) -> bool:
    if one is other:
        return True
    return int(np.abs(_thumbnail(one) - _thumbnail(other)).max()) <= _STILL_LEVELS


def _thumbnail(frame: VideoFrame) -> NDArray[np.int16]:
    grey = Image.fromarray(frame.to_ndarray(format="gray"))
    return np.asarray(grey.resize(_STILL_GRID, Image.Resampling.BOX), np.int16)
