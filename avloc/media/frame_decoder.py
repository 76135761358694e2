"""Decoded pictures in the order they are shown, each with the time it appears."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from heapq import heappop, heappush
from typing import Any

import numpy as np
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from avloc.errors import InputError
from avloc.media.colours import rgb_shown
from avloc.media.containers import MediaSource, picture_stream, reason_of
from avloc.media.layout import Layout
from avloc.media.packets import clock_of, entered

STAMP_S = 1e-4
"""Time stamps closer than this are one."""
_USUAL_RATE = Fraction(25)
_ASPECTS = (Fraction(1, 4), Fraction(4))
"""Width over height of a pixel; what lies outside is damage."""
_PALETTE = "pal8"
"""Pictures of this format have their colours from the start of the file, which a seek would leave out."""
_WITHOUT_TIMES = frozenset({"avi"})
"""FFmpeg's names of formats that do not say when a picture is shown; what FFmpeg says in their place can be wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A decoded picture and the time it appears; it may outlive the file it came from."""

    frame: VideoFrame
    tick: int
    """When it appears on the file's timeline, in units of `clock`."""
    clock: Fraction
    """The time base of the video, in seconds."""
    rate: Fraction
    """Pictures per second, on average."""
    aspect: Fraction | None
    """Width over height of a pixel."""
    damaged: bool = False
    """Pictures between the one before and this one cannot be decoded."""

    @property
    def start_s(self) -> float:
        """When it appears, in seconds."""
        return float(self.tick * self.clock)

    @property
    def end_s(self) -> float:
        """When it goes, in seconds: by its declared duration, else by the rate."""
        return (
            float((self.tick + self.frame.duration) * self.clock)
            if self.frame.duration
            else self.start_s + float(1 / self.rate)
        )

    def picture(self, reformatter: VideoReformatter | None = None) -> NDArray[np.uint8]:
        """RGB [H, W, 3] as shown; see `as_shown`."""
        return as_shown(self.frame, self.aspect, reformatter)


def shown_at(source: MediaSource, layout: Layout, times: list[float]) -> Iterator[Shown]:
    """The picture on screen at each of `times` (ascending), in one pass; before the first picture, the first.

    Raises:
        InputError: there is no picture, or it cannot be decoded.
    """
    pictures = pictures_from(source, layout, times[0])
    current = next(pictures)
    following = next(pictures, None)
    for time_s in times:
        while following is not None and following.start_s <= time_s + STAMP_S:
            current, following = following, next(pictures, None)
        if following is not None and following.damaged and time_s + STAMP_S >= current.end_s:
            raise InputError(f"cannot be decoded: its picture at {time_s:g} s is damaged")
        yield current


def pictures_from(source: MediaSource, layout: Layout, time_s: float, *, threaded: bool = False) -> Generator[Shown]:
    """Pictures in the order they are shown: first one that is on screen at `time_s` or earlier, if there is one.

    Args:
        source: the file.
        layout: its layout.
        time_s: where to begin, in seconds.
        threaded: decode several pictures at once.

    Raises:
        InputError: there is no picture, or it cannot be decoded.
    """
    for entry in (time_s, None) if time_s > layout.picture_extent[0] else (None,):
        with entered(source, picture_stream, layout.clock, entry) as (stream, packets):
            if entry is not None and stream.codec_context.pix_fmt == _PALETTE:
                continue
            if threaded and layout.clock.untimed_from is None and stream.container.format.name not in _WITHOUT_TIMES:
                stream.thread_type = "AUTO"
            pictures = _decoded(stream, packets)
            first = next(pictures, None)
            # A seek that landed too late is of no use: then from the start of the file.
            if first is not None and (entry is None or first.start_s <= time_s + STAMP_S):
                yield first
                yield from pictures
                return
    raise InputError("has no picture that can be decoded")


def _decoded(stream: VideoStream, packets: Iterator[Packet[VideoStream]]) -> Iterator[Shown]:
    """Pictures in the order they are shown. Damage lasts to the next key frame; at the end of the file it is raised."""
    order, aspect, tick, begun = _Order(stream), _Aspect(stream), 0, False
    damage: FFmpegError | None = None
    rate = stream.average_rate or stream.guessed_rate or _USUAL_RATE
    shown = partial(Shown, clock=clock_of(stream), rate=rate)
    since_s = 0.0
    for packet in packets:
        order.take(packet)
        frames, error = _pictures_of(packet, stream.codec_context, begun=begun)
        over = error is not None or not packet.size
        for left, frame in enumerate(frames, 1 - len(frames)):
            begun = True
            tick = order.tick(frame, left=-left, over=over)
            if damage is None or frame.key_frame:
                yield shown(frame=frame, tick=tick, aspect=aspect.now(), damaged=damage is not None)
                damage, since_s = None, float(tick * clock_of(stream) + 1 / rate)
        damage = damage or error
    if damage is not None:
        raise InputError(f"cannot be decoded from {since_s:.3f} s on ({reason_of(damage)})") from damage


def _pictures_of(
    packet: Packet[VideoStream], context: VideoCodecContext, *, begun: bool
) -> tuple[list[VideoFrame], FFmpegError | None]:
    """What comes out of a decoder for a packet, and why the packet itself is lost, if it is."""
    try:
        return packet.decode(), None
    except FFmpegError as error:
        if not begun:
            if isinstance(error, InvalidDataError):
                return [], None  # a stream that was cut out of a longer one may begin in the middle of a picture
            raise
        inside = _inside(context)
        context.flush_buffers()
        return inside, error


def _inside(context: VideoCodecContext) -> list[VideoFrame]:
    """The pictures that a decoder still holds, which come from before the damage, as far as they are whole."""
    try:
        return context.decode(None)
    except FFmpegError:  # one more of those that are damaged
        return []


class _Aspect:
    """Width over height of a pixel: the container's, until the pictures themselves name another."""

    def __init__(self, stream: VideoStream) -> None:
        self._context = stream.codec_context
        self._named, self._first = stream.sample_aspect_ratio, self._context.sample_aspect_ratio

    def now(self) -> Fraction | None:
        """Of the picture decoded last; None where it makes no sense."""
        own = self._context.sample_aspect_ratio
        aspect = self._named if own == self._first else own
        return aspect if aspect and _ASPECTS[0] <= aspect <= _ASPECTS[1] else None


class _Order:
    """When pictures are shown, also where the file says only when they are decoded.

    Pictures leave a decoder in the order they are shown, so the earliest decoding time of those inside belongs to the
    next one out. How many stay inside is the stream's own depth of reordering; more were lost on the way.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._context = stream.codec_context
        self._by_order = stream.container.format.name in _WITHOUT_TIMES
        self._inside: list[int] = []

    def take(self, packet: Packet[VideoStream]) -> None:
        """A packet goes into the decoder."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is not None:
            heappush(self._inside, stamp)

    def tick(self, frame: VideoFrame, *, left: int, over: bool) -> int:
        """The tick at which a picture appears.

        Args:
            frame: the next one out.
            left: so many more come out with it.
            over: the decoder gives out all that is inside.
        """
        stamp = heappop(self._inside) if self._inside else 0
        while not over and len(self._inside) > self._context.reorder_depth + left:
            stamp = heappop(self._inside)
        return stamp if self._by_order or frame.pts is None else frame.pts


def as_shown(
    frame: VideoFrame, aspect: Fraction | None, reformatter: VideoReformatter | None = None
) -> NDArray[np.uint8]:
    """RGB [H, W, 3] with pixel aspect and display matrix applied; a reformatter is worth keeping for the next frame."""
    rgb = rgb_shown(frame, reformatter or VideoReformatter())
    if aspect and aspect != 1:
        size = (max(1, round(frame.width * float(aspect))), frame.height)
        rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
    return np.ascontiguousarray(_turned(rgb, frame))


def _turned(rgb: NDArray[np.uint8], frame: VideoFrame) -> NDArray[np.uint8]:
    """A picture turned by quarters and mirrored as its display matrix says: x' = a x + c y, y' = b x + d y."""
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return rgb
    a, b, _, c, d, *_ = struct.unpack("=9i", side_data)
    if abs(a) >= abs(b):
        return rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return rgb.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]
