"""A moment of a video: the picture shown at a time, and the sound heard around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice

import numpy as np
from av.container import InputContainer
from av.error import InvalidDataError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from avloc.errors import InputError
from avloc.media.colours import rgb_shown
from avloc.media.containers import (
    MediaSource,
    end_s,
    opened,
    origin_s,
    picture_stream,
    scanned_extent_s,
    sound_stream,
    stream_extent_s,
)
from avloc.media.sounds import SoundWindow, read_sound

_STILL_LEVELS = 4
"""Grey levels by which no cell of a still picture changes; compression noise stays below."""
_STILL_GRID = (32, 32)
STAMP_S = 1e-4
"""Time stamps closer than this are one."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A picture out of a video with the sound around it."""

    picture: NDArray[np.uint8]
    """[H, W, 3] RGB as shown: rotation and pixel aspect applied."""
    time_s: float
    """When the picture appears, on the container's timeline, in seconds."""
    still: bool
    """The picture does not change from the beginning of the sound window to its end."""
    sound: SoundWindow


def read_moment(source: MediaSource, *, seconds: float, rate: int = 0, at: float | None = None) -> Moment:
    """The picture shown at a time and the sound heard around it.

    Args:
        source: any video.
        seconds: length of the sound window; see `read_sound`.
        rate: sample rate of the sound in Hz; 0 keeps the file's own.
        at: time of the picture in seconds; None is the middle of the video.

    Raises:
        InputError: no picture, no sound, a time past the end, or the file cannot be decoded.
    """
    with opened(source) as container:
        sound_stream(container)  # say at once what is missing
        time_s = _checked_time(container, picture_stream(container), at)
    sound = read_sound(source, seconds=seconds, rate=rate, centre_s=time_s)
    around = sorted([time_s, sound.start_s, sound.start_s + seconds])
    with opened(source) as container:
        stream = picture_stream(container)
        pictures = _shown_at(container, stream, around)
        shown = list(islice(pictures, around.index(time_s) + 1))
        middle = shown[-1]
        # Where the picture has moved already, the rest of the window is not decoded.
        still = all(_alike(one.frame, middle.frame) for one in chain(shown, pictures))
        return Moment(
            picture=as_shown(middle.frame, stream.sample_aspect_ratio), time_s=middle.start_s, still=still, sound=sound
        )


def read_frame(source: MediaSource, *, at: float | None = None) -> tuple[NDArray[np.uint8], float]:
    """The picture [H, W, 3] RGB shown at a time (None: the middle of the video) and when it appears, in seconds.

    Raises:
        InputError: no picture, a time past the end, or the file cannot be decoded.
    """
    with opened(source) as container:
        stream = picture_stream(container)
        shown = next(_shown_at(container, stream, [_checked_time(container, stream, at)]))
        return as_shown(shown.frame, stream.sample_aspect_ratio), shown.start_s


LATE_S = 0.5
"""What may be missing of the last second of a video that is told second by second: AVE's are not cut to the frame."""


def picture_seconds(source: MediaSource) -> float:
    """When the last picture of a video ends, in seconds, by its packets; nothing is decoded.

    Raises:
        InputError: there are no pictures, or the file cannot be read.
    """
    with opened(source) as container:
        return scanned_extent_s(container, picture_stream(container))[1]


def read_frames(source: MediaSource, times: list[float]) -> Iterator[NDArray[np.uint8]]:
    """The pictures [H, W, 3] RGB shown at ascending times in seconds, one after another; past the end, the last one.

    Raises:
        InputError: no picture, or the file cannot be decoded.
    """
    with opened(source) as container:
        stream, reformatter = picture_stream(container), VideoReformatter()
        for shown in _shown_at(container, stream, times):
            yield as_shown(shown.frame, stream.sample_aspect_ratio, reformatter)


@dataclass(frozen=True)
class Shown:
    """A decoded picture and the time it appears."""

    frame: VideoFrame
    start_s: float
    ticks: int
    """How long it stays by its own word, in units of the stream's time base; 0 where it does not say."""


def _checked_time(container: InputContainer, stream: VideoStream, at: float | None) -> float:
    """The time asked for, or the middle, once it is sure that the video reaches it.

    Declared lengths are taken at their word only as far as the packets bear them out.
    """
    declared = stream_extent_s(container, stream)
    start, end = declared or (0.0, end_s(container))
    time_s = (start + end) / 2 if at is None else at
    if not _reaches(container, stream, time_s):
        start, last = scanned_extent_s(container, stream)
        if at is not None:
            raise InputError(f"has no picture at {at:g} s: the video ends at {last:.3f} s")
        if declared is not None:
            raise InputError(f"is cut off: it should have pictures until {end:.3f} s, but they end at {last:.3f} s")
        time_s = (start + last) / 2
    return time_s


def _reaches(container: InputContainer, stream: VideoStream, time_s: float) -> bool:
    """Whether a packet of `stream` is shown at `time_s` or later; decodes nothing."""
    _seek(container, stream, time_s)
    return any(
        float((packet.pts + (packet.duration or 0)) * packet.time_base) - origin_s(container) > time_s - STAMP_S
        for packet in container.demux(stream)
        if packet.pts is not None and packet.time_base is not None
    )


def _seek(container: InputContainer, stream: VideoStream, time_s: float) -> None:
    if time_s <= 0 or stream.time_base is None:
        container.seek(0, backward=True)
    else:
        container.seek(int((time_s + origin_s(container)) / stream.time_base), stream=stream, backward=True)


def _shown_at(container: InputContainer, stream: VideoStream, times: list[float]) -> Iterator[Shown]:
    """The picture on screen at each of `times` (ascending), in one pass; before the first picture, the first."""
    pictures = pictures_from(container, stream, times[0])
    current = next(pictures)
    following = next(pictures, None)
    for time_s in times:
        while following is not None and following.start_s <= time_s + STAMP_S:
            current, following = following, next(pictures, None)
        yield current


def pictures_from(container: InputContainer, stream: VideoStream, time_s: float) -> Iterator[Shown]:
    """Pictures in the order they are shown: first one that is on screen at `time_s` or earlier, if there is one.

    Raises:
        InputError: there is no picture at all.
    """
    _seek(container, stream, time_s)
    pictures = _pictures(container, stream)
    first = next(pictures, None)
    if first is None or first.start_s > time_s + STAMP_S:  # the seek landed too late: go from the start
        _seek(container, stream, 0.0)
        pictures = _pictures(container, stream)
        first = next(pictures, None)
    if first is None:
        raise InputError("has no picture that can be decoded")
    yield first
    yield from pictures


def _pictures(container: InputContainer, stream: VideoStream) -> Iterator[Shown]:
    """Pictures in the order they are shown, from where the container stands."""
    begun = False
    last_s = 0.0
    ticks: dict[int | None, int] = {}
    for packet in container.demux(stream):
        ticks[packet.pts] = packet.duration or 0
        try:
            frames = packet.decode()
        except InvalidDataError:
            if begun:
                raise
            continue  # a stream that was cut out of a longer one may begin in the middle of a picture
        for frame in frames:
            begun = True
            last_s = last_s if frame.time is None else frame.time - origin_s(container)
            yield Shown(frame, last_s, ticks.pop(frame.pts, 0))


def as_shown(
    frame: VideoFrame, aspect: Fraction | None, reformatter: VideoReformatter | None = None
) -> NDArray[np.uint8]:
    """RGB [H, W, 3] with pixel aspect and rotation applied; a reformatter is worth keeping for the next frame."""
    rgb = rgb_shown(frame, reformatter or VideoReformatter())
    if aspect and aspect != 1:
        size = (max(1, round(frame.width * float(aspect))), frame.height)
        rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))


def _alike(one: VideoFrame, other: VideoFrame) -> bool:
    if one is other:
        return True
    return int(np.abs(_thumbnail(one) - _thumbnail(other)).max()) <= _STILL_LEVELS


def _thumbnail(frame: VideoFrame) -> NDArray[np.int16]:
    grey = Image.fromarray(frame.to_ndarray(format="gray"))
    return np.asarray(grey.resize(_STILL_GRID, Image.Resampling.BOX), np.int16)
