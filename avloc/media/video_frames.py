"""Read single frames of a video, with the audio around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from avloc.errors import InputError
from avloc.media.audio import FULL_DECODE_S, SoundWindow, read_window
from avloc.media.containers import MediaSource, can_rewind, open_container
from avloc.media.frame_decoder import TIMESTAMP_TOLERANCE_S, DecodedFrame, frames_at, needed_frames
from avloc.media.layout import Layout
from avloc.media.probing import header_layout, probe, scan_packets

_STILL_LEVELS = 4
"""Largest change of a thumbnail in grey levels that counts as still; above compression noise."""
_STILL_GRID = (32, 32)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A video frame with the audio around it."""

    picture: NDArray[np.uint8]
    """[H, W, 3] RGB with rotation and pixel aspect applied."""
    time_s: float
    """Presentation time of the frame on the file's timeline, in seconds."""
    still: bool
    """The picture does not change during the audio window."""
    sound: SoundWindow
    other_tracks: str = ""
    """Message about audio tracks that are not used; '' if there are none."""


def read_moment(
    source: MediaSource, *, seconds: float, rate: int = 0, at: float | None = None, track: int | None = None
) -> Moment:
    """Read the frame displayed at a time and the audio around it.

    Args:
        source: any video.
        seconds: length of the audio window; see `read_sound`.
        rate: sample rate of the audio in Hz; 0 keeps the source's.
        at: time of the frame in seconds; None is the middle of the video.
        track: audio track, counted from 1; None is the main one.

    Raises:
        InputError: no video, no audio, a time past the end, or the file cannot be decoded.
    """
    with open_container(source) as container:
        layout = header_layout(container, track)
        if layout is not None and isinstance(source, Path) and can_rewind(container):
            return _read_moment(source, container, layout, _checked_time(layout, at), seconds, rate)
    layout = layout or scan_packets(source, track)
    return _read_moment(source, source, layout, _checked_time(layout, at), seconds, rate)


def _read_moment(
    source: MediaSource, opened: MediaSource, layout: Layout, time_s: float, seconds: float, rate: int
) -> Moment:
    """See `read_moment`; `opened` is the source, or the same file already open."""
    is_decoded_once = layout.end_s <= FULL_DECODE_S  # longer sound may be tried from two places
    sound = read_window(opened if is_decoded_once else source, layout, seconds=seconds, rate=rate, centre_s=time_s)
    ends = (sound.start_s, sound.start_s + seconds)
    needed = needed_frames(opened, layout, time_s, since_s=ends[0])
    compared: Iterator[DecodedFrame]
    if needed:
        first, middle = needed
        others = ((needed_frames(opened, layout, end, end) or tuple(frames_at(source, layout, [end]))) for end in ends)
        compared = chain([first], (frames[-1] for frames in others))
    else:
        around = sorted([time_s, *ends])
        pictures = frames_at(source, layout, around)
        shown = list(islice(pictures, around.index(time_s) + 1))
        middle, compared = shown[-1], chain(shown, pictures)
    return Moment(
        picture=middle.picture(),
        time_s=middle.start_s,
        still=all(_alike(one.frame, middle.frame) for one in compared),  # decodes up to the first that differs
        sound=sound,
        other_tracks=layout.other_tracks,
    )


def read_frame(source: MediaSource, *, at: float | None = None) -> tuple[NDArray[np.uint8], float]:
    """The frame [H, W, 3] RGB displayed at a time (None: the middle of the video) and its time stamp in seconds.

    Raises:
        InputError: no video, a time past the end, or the file cannot be decoded.
    """
    layout = probe(source)
    shown = next(frames_at(source, layout, [_checked_time(layout, at)]))
    return shown.picture(), shown.start_s


def read_frames(source: MediaSource, times: list[float]) -> Iterator[NDArray[np.uint8]]:
    """The frames [H, W, 3] RGB displayed at ascending times in seconds; past the end, the last frame.

    Raises:
        InputError: no video, or the file cannot be decoded.
    """
    reformatter = VideoReformatter()
    for shown in frames_at(source, probe(source), times):
        yield shown.picture(reformatter)


def _checked_time(layout: Layout, at: float | None) -> float:
    """`at`, or the middle of the video; raises InputError if the video does not reach it."""
    start, end = layout.picture_extent
    if at is None:
        time_s = (start + (layout.declared_end_s or end)) / 2
        if layout.cut_off and (time_s > end or not layout.declared_end_s):
            raise InputError(layout.cut_off)
        return time_s
    if at >= end + TIMESTAMP_TOLERANCE_S:
        raise InputError(f"has no picture at {at:g} s: the video ends at {end:.3f} s")
    return at


def _alike(one: VideoFrame, other: VideoFrame) -> bool:
    if one is other:
        return True
    return int(np.abs(_thumbnail(one) - _thumbnail(other)).max()) <= _STILL_LEVELS


def _thumbnail(frame: VideoFrame) -> NDArray[np.int16]:
    grey = Image.fromarray(frame.to_ndarray(format="gray"))
    return np.asarray(grey.resize(_STILL_GRID, Image.Resampling.BOX), np.int16)
