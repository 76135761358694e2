"""Demux the packets of one stream, with time stamps relative to the start of the file.

In files with time stamp jumps (concatenated MPEG-TS recordings) each segment is shifted to follow the one before it.
A packet without a time stamp follows the previous packet. `avloc.media.frame_decoder` corrects the times of decoded
frames, where a codec states them wrongly.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import Container, InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from avloc.media.containers import MediaSource, Stream, open_container

_DISCONTINUOUS = 0x0200
"""FFmpeg's AVFMT_TS_DISCONT: time stamps of the format may jump."""
_DEFAULT_TIME_BASE = Fraction(1, 90_000)
_START = -(1 << 50)
"""Ticks before the start of any stream."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Maps time stamps to seconds from the start of the file."""

    origin: Fraction = Fraction(0)
    """Time stamp of the start of the file, in seconds."""
    jumps: tuple[int, ...] = ()
    """Byte positions in the file at which time stamps jump."""
    shifts: tuple[Fraction, ...] = (Fraction(0),)
    """Seconds added to the time stamps of each segment: before the first jump, after it, and so on."""
    first_untimed_s: Fraction | None = None
    """Decoding time of the first picture if it has no time stamp, in seconds from the start of the file."""

    @property
    def seekable(self) -> bool:
        """Whether time stamps are unique, so that seeking works."""
        return not self.jumps and self.first_untimed_s is None


def has_jumps(container: Container) -> bool:
    """Whether the format allows time stamp jumps; FFmpeg's durations of such files are estimates."""
    return bool(container.format.flags & _DISCONTINUOUS)


def time_base_of(stream: AudioStream | VideoStream) -> Fraction:
    """Time base of the stream, in seconds."""
    return stream.time_base or _DEFAULT_TIME_BASE


def start_time_of(container: InputContainer) -> Fraction:
    """Time stamp of the start of the container, in seconds."""
    return Fraction(container.start_time or 0, av.time_base)


def to_ticks(seconds: Fraction, clock: Fraction) -> int:
    """Round to the nearest tick."""
    return floor(seconds / clock + Fraction(1, 2))


@contextmanager
def open_stream(
    source: MediaSource,
    select: Callable[[InputContainer], Stream],
    clock: Clock,
    at_s: float | None = None,
) -> Iterator[tuple[Stream, Iterator[Packet[Stream]]]]:
    """Open the stream that `select` returns; yields it and its packets, with ticks counted from the start of the file.

    With `at_s` the packets start at the last key frame before that time; there are none if the seek fails. A stream of
    an open file must not have been decoded before: decoders keep some of their state.
    """
    with open_container(source) as container:
        stream = select(container)
        if at_s is None:
            found = container is not source or _seek(container, stream, _START)
        else:
            found = clock.seekable and seek_before(container, stream, clock.origin + Fraction(at_s))
        yield stream, _timed(container, stream, clock) if found else iter(())


def seek_before(container: InputContainer, stream: AudioStream | VideoStream, stamp_s: Fraction) -> bool:
    """Seek to the last key frame before a time stamp in seconds; False on failure."""
    return _seek(container, stream, floor(stamp_s / time_base_of(stream)))


def _seek(container: InputContainer, stream: AudioStream | VideoStream, tick: int) -> bool:
    try:
        container.seek(tick, stream=stream, backward=True)
    except FFmpegError:
        return False
    return True


def _timed(container: InputContainer, stream: Stream, clock: Clock) -> Iterator[Packet[Stream]]:
    base = time_base_of(stream)
    segment = 0
    offsets = [to_ticks(shift - clock.origin, base) for shift in clock.shifts]
    following = to_ticks(clock.first_untimed_s or Fraction(0), base)
    for packet in container.demux(stream):
        if packet.size:
            if clock.jumps:
                segment = segment_of(packet, clock.jumps, segment)
            if packet.pts is not None:
                packet.pts += offsets[segment]
            if packet.dts is not None:
                packet.dts += offsets[segment]
            stamp = packet.pts if packet.dts is None else packet.dts
            if stamp is None:
                stamp = packet.dts = following
            following = stamp + (packet.duration or 0)
        yield packet


def segment_of(packet: Packet[Any], jumps: Sequence[int], last: int) -> int:
    """Segment between jumps that a packet is in; `last` if its byte position is unknown."""
    return last if packet.pos is None or packet.pos < 0 else bisect_right(jumps, packet.pos)
