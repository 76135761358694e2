"""Decode video frames in presentation order, with their time stamps."""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from math import floor, inf
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
from avloc.media.colour_space import to_rgb
from avloc.media.containers import MediaSource, error_text, find_video_stream
from avloc.media.layout import Layout
from avloc.media.packets import open_stream, time_base_of

TIMESTAMP_TOLERANCE_S = 1e-4
"""Time stamps closer than this are equal."""
_DEFAULT_RATE = Fraction(25)
_ASPECTS = (Fraction(1, 4), Fraction(4))
"""Valid range of the pixel aspect ratio; other values are damage."""
_PALETTE = "pal8"
"""Pixel format whose palette is at the start of the file, which a seek would skip."""
_MAX_HELD = 1000
"""Most packets held at a time."""
_STRICT_CODEC = "h264"
"""Decoder that skips frames exactly and that reports damage; that of HEVC conceals some."""
_STRICT = {"err_detect": "explode"}
"""Makes decoders raise errors for damage that they would conceal."""
_WITHOUT_TIMES = frozenset({"avi"})
"""Container formats without presentation times; FFmpeg's guesses for them can be wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedFrame:
    """A decoded frame and its presentation time; it stays valid after the file is closed."""

    frame: VideoFrame
    tick: int
    """Presentation time on the file's timeline, in units of `time_base`."""
    time_base: Fraction
    """In seconds."""
    rate: Fraction
    """Average frame rate in Hz."""
    aspect: Fraction | None
    """Pixel aspect ratio: width over height."""
    damaged: bool = False
    """Frames before this one could not be decoded."""

    @property
    def start_s(self) -> float:
        """Presentation time in seconds."""
        return float(self.tick * self.time_base)

    @property
    def end_s(self) -> float:
        """End of presentation in seconds: by its declared duration, else by the rate."""
        if self.frame.duration:
            return float((self.tick + self.frame.duration) * self.time_base)
        return self.start_s + float(1 / self.rate)

    def picture(self, reformatter: VideoReformatter | None = None) -> NDArray[np.uint8]:
        """RGB [H, W, 3]; see `to_display_rgb`."""
        return to_display_rgb(self.frame, self.aspect, reformatter)


def frames_at(source: MediaSource, layout: Layout, times: list[float]) -> Iterator[DecodedFrame]:
    """The frame displayed at each of `times` (ascending), in one pass; before the first frame, the first."""
    pictures = iterate_frames(source, layout, times[0])
    current = next(pictures)
    following = next(pictures, None)
    for time_s in times:
        while following is not None and following.start_s <= time_s + TIMESTAMP_TOLERANCE_S:
            current, following = following, next(pictures, None)
        if following is not None and following.damaged and time_s + TIMESTAMP_TOLERANCE_S >= current.end_s:
            raise InputError(f"cannot be decoded: its picture at {time_s:g} s is damaged")
        yield current


def needed_frames(
    source: MediaSource, layout: Layout, time_s: float, since_s: float
) -> tuple[DecodedFrame, DecodedFrame] | None:
    """The frame displayed at `time_s`, decoded with only those that it is predicted from, in one thread.

    None if the codec is not H.264, or if a seek, the time stamps or damage require `frames_at`.

    Returns:
        The first of these frames from `since_s` on, and the frame itself.
    """
    with open_stream(source, find_video_stream, layout.clock, time_s) as (stream, packets):
        if stream.codec_context.name != _STRICT_CODEC or stream.container.format.name in _WITHOUT_TIMES:
            return None
        base = time_base_of(stream)
        needed = _packets_up_to(packets, floor((time_s + TIMESTAMP_TOLERANCE_S) / base))
        return _decode_needed(stream, needed, floor(since_s / base)) if needed else None


def _packets_up_to(packets: Iterator[Packet[VideoStream]], tick: int) -> list[Packet[VideoStream]]:
    """Packets from a key frame to the frame displayed at `tick`, in decoding order; empty if that is not certain."""
    found: list[Packet[VideoStream]] = []
    count, shown = 0, -inf
    for packet in packets:
        if not packet.size:
            continue
        if packet.pts is None or packet.dts is None or len(found) == _MAX_HELD:
            return []
        if packet.dts > tick:
            break
        if not found and (not packet.is_keyframe or packet.pts > tick):
            return []
        found.append(packet)
        if shown <= packet.pts <= tick:
            count, shown = len(found), packet.pts
    return found[:count]


def _decode_needed(
    stream: VideoStream, needed: list[Packet[VideoStream]], since: int
) -> tuple[DecodedFrame, DecodedFrame] | None:
    """See `needed_frames`; the frame of the last packet is the one displayed."""
    context, describe, kept = stream.codec_context, _describer(stream), list[DecodedFrame]()
    if not context.is_open:
        context.thread_count, context.options = 1, _STRICT
    try:
        for packet in [*needed, None]:
            # Frames that no other refers to are not decoded, apart from the displayed one.
            context.skip_frame = "DEFAULT" if packet is needed[-1] else "NONREF"
            for frame in context.decode(packet):
                if frame.pts is None or frame.is_corrupt or frame.interlaced_frame:
                    return None
                if frame.pts == needed[-1].pts or (not kept and frame.pts >= since):
                    kept.append(describe(frame, frame.pts))
    except FFmpegError:
        return None
    return (kept[0], kept[-1]) if kept and kept[-1].tick == needed[-1].pts else None


def iterate_frames(
    source: MediaSource, layout: Layout, time_s: float, *, threaded: bool = False
) -> Generator[DecodedFrame]:
    """Decode frames in presentation order, starting at or before the one displayed at `time_s` seconds.

    `threaded` enables FFmpeg's frame threading.
    """
    for entry in (time_s, None) if time_s > layout.picture_extent[0] else (None,):
        with open_stream(source, find_video_stream, layout.clock, entry) as (stream, packets):
            if entry is not None and stream.codec_context.pix_fmt == _PALETTE:
                continue
            if threaded and layout.clock.first_untimed_s is None and stream.container.format.name not in _WITHOUT_TIMES:
                stream.thread_type = "AUTO"
            pictures = _decoded(stream, packets)
            first = next(pictures, None)
            # If the seek landed too late, decode from the start of the file.
            if first is not None and (entry is None or first.start_s <= time_s + TIMESTAMP_TOLERANCE_S):
                yield first
                yield from pictures
                return
    raise InputError("has no picture that can be decoded")


def _decoded(stream: VideoStream, packets: Iterator[Packet[VideoStream]]) -> Iterator[DecodedFrame]:
    """Decode packets. After an error, frames are dropped up to the next key frame; without one the error is raised."""
    context, order, describe = stream.codec_context, _DisplayTimes(stream), _describer(stream)
    damage: FFmpegError | None = None
    started, since_s = False, 0.0
    for packet in packets:
        order.push(packet)
        frames, error = _decode_packet(packet, context, started=started)
        flushed = error is not None or not packet.size
        for left, frame in enumerate(frames, 1 - len(frames)):
            started = True
            tick = order.tick(frame, left=-left, flushed=flushed)
            if damage is None or frame.key_frame:
                shown = describe(frame, tick, damaged=damage is not None)
                yield shown
                damage, since_s = None, shown.start_s + float(1 / shown.rate)
        damage = damage or error
    if damage is not None:
        raise InputError(f"cannot be decoded from {since_s:.3f} s on ({error_text(damage)})") from damage


def _describer(stream: VideoStream) -> Callable[..., DecodedFrame]:
    """`DecodedFrame` of the stream's frames and ticks."""
    container_aspect, initial_aspect = stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio
    rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE

    def describe(frame: VideoFrame, tick: int, *, damaged: bool = False) -> DecodedFrame:
        own = stream.codec_context.sample_aspect_ratio  # overrides the container's once it changes
        aspect = _valid_aspect(container_aspect if own == initial_aspect else own)
        base = time_base_of(stream)
        return DecodedFrame(frame=frame, tick=tick, time_base=base, rate=rate, aspect=aspect, damaged=damaged)

    return describe


def _valid_aspect(aspect: Fraction | None) -> Fraction | None:
    return aspect if aspect and _ASPECTS[0] <= aspect <= _ASPECTS[1] else None


def _decode_packet(
    packet: Packet[VideoStream], context: VideoCodecContext, *, started: bool
) -> tuple[list[VideoFrame], FFmpegError | None]:
    """The frames that the decoder returns for a packet, and the error if the packet is lost."""
    try:
        return packet.decode(), None
    except FFmpegError as error:
        if not started:
            if isinstance(error, InvalidDataError):
                return [], None  # a stream cut from a longer one may start in the middle of a frame
            raise
        buffered: list[VideoFrame] = []
        with suppress(FFmpegError):  # frames from before the error that are still in the decoder, unless damaged too
            buffered = context.decode(None)
        context.flush_buffers()
        return buffered, error


class _DisplayTimes:
    """Presentation times, also for files that have only decoding times.

    Decoders return frames in presentation order, so the earliest buffered decoding time belongs to the next frame. The
    buffer holds as many as the stream's reordering depth; any more were lost.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._context = stream.codec_context
        self._by_order = stream.container.format.name in _WITHOUT_TIMES
        self._buffered: list[int] = []

    def push(self, packet: Packet[VideoStream]) -> None:
        """Add a packet that is sent to the decoder."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is not None:
            heappush(self._buffered, stamp)

    def tick(self, frame: VideoFrame, *, left: int, flushed: bool) -> int:
        """Presentation time of the next decoded frame, in ticks.

        `left` frames follow it from the same packet; `flushed` means that the decoder is being flushed.
        """
        stamp = heappop(self._buffered) if self._buffered else 0
        while not flushed and len(self._buffered) > self._context.reorder_depth + left:
            stamp = heappop(self._buffered)
        return stamp if self._by_order or frame.pts is None else frame.pts


def to_display_rgb(
    frame: VideoFrame, aspect: Fraction | None, reformatter: VideoReformatter | None = None
) -> NDArray[np.uint8]:
    """RGB [H, W, 3] with pixel aspect and display matrix applied; reuse a reformatter, which caches its setup."""
    rgb = to_rgb(frame, reformatter or VideoReformatter())
    if aspect and aspect != 1:
        size = (max(1, round(frame.width * float(aspect))), frame.height)
        rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
    return np.ascontiguousarray(_apply_display_matrix(rgb, frame))


def _apply_display_matrix(rgb: NDArray[np.uint8], frame: VideoFrame) -> NDArray[np.uint8]:
    """Rotate by multiples of 90 degrees and mirror by the display matrix: x' = a x + c y, y' = b x + d y."""
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return rgb
    a, b, _, c, d, *_ = struct.unpack("=9i", side_data)
    if abs(a) >= abs(b):
        return rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return rgb.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]
