"""The packets of one stream on the file's timeline, from its start or from a seek on.

Files whose clock jumps (MPEG-TS recordings in a row) have their time stamps moved so that each part follows the one
before it. Packets without a time stamp follow the packet before them.
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

from avloc.media.containers import MediaSource, Stream, opened

_DISCONTINUOUS = 0x0200
"""FFmpeg's AVFMT_TS_DISCONT: time stamps of the format may jump."""
_CLOCK = Fraction(1, 90_000)
"""Of a stream that does not name its own."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """How time stamps become times of the file's timeline, whose zero is where the file starts."""

    origin: Fraction = Fraction(0)
    """Time stamp of the file's start, in seconds."""
    seams: tuple[int, ...] = ()
    """Places in the file, in bytes, at which its clock jumps."""
    shifts: tuple[Fraction, ...] = (Fraction(0),)
    """What is added to the time stamps before the first seam, after it, after the second and so on, in seconds."""
    untimed_from: Fraction | None = None
    """Where the first picture is decoded if it has no time stamp, in seconds of the timeline."""

    @property
    def seekable(self) -> bool:
        """Whether each place of the file has a time stamp of its own."""
        return not self.seams and self.untimed_from is None


def may_jump(container: Container) -> bool:
    """Whether the time stamps of the format may jump; FFmpeg's lengths of such files are estimates."""
    return bool(container.format.flags & _DISCONTINUOUS)


def clock_of(stream: AudioStream | VideoStream) -> Fraction:
    """Seconds of a tick of the stream's time stamps."""
    return stream.time_base or _CLOCK


def start_of(container: InputContainer) -> Fraction:
    """Time stamp of the container's start in seconds."""
    return Fraction(container.start_time or 0, av.time_base)


def ticks(seconds: Fraction, clock: Fraction) -> int:
    """The nearest tick."""
    return floor(seconds / clock + Fraction(1, 2))


@contextmanager
def entered(
    source: MediaSource,
    pick: Callable[[InputContainer], Stream],
    clock: Clock,
    at_s: float | None = None,
) -> Iterator[tuple[Stream, Iterator[Packet[Stream]]]]:
    """A stream of `source` and its packets, whose time stamps count ticks from the start of the file.

    Args:
        source: any file.
        pick: chooses the stream.
        clock: of this file.
        at_s: enter at the last key frame before this time; None: at the start of the file. Where the file cannot be
            entered there, there are no packets.

    Raises:
        InputError: it cannot be read, or has no such stream.
    """
    with opened(source) as container:
        stream = pick(container)
        there = at_s is None or (clock.seekable and sought(container, stream, clock.origin + Fraction(at_s)))
        yield stream, _timed(container, stream, clock) if there else iter(())


def sought(container: InputContainer, stream: AudioStream | VideoStream, stamp_s: Fraction) -> bool:
    """Go to the last key frame before a time stamp in seconds; False where the container refuses."""
    try:
        container.seek(floor(stamp_s / clock_of(stream)), stream=stream, backward=True)
    except FFmpegError:
        return False
    return True


def _timed(container: InputContainer, stream: Stream, clock: Clock) -> Iterator[Packet[Stream]]:
    base = clock_of(stream)
    part = 0
    moves = [ticks(shift - clock.origin, base) for shift in clock.shifts]
    following = ticks(clock.untimed_from or Fraction(0), base)
    for packet in container.demux(stream):
        if packet.size:
            part = part_of(packet, clock.seams, part)
            _move(packet, moves[part])
            stamp = packet.pts if packet.dts is None else packet.dts
            if stamp is None:
                stamp = packet.dts = following
            following = stamp + (packet.duration or 0)
        yield packet


def part_of(packet: Packet[Any], seams: Sequence[int], last: int) -> int:
    """Which part of the file a packet lies in; that of the `last` one of its stream where it names no place."""
    return last if packet.pos is None or packet.pos < 0 else bisect_right(seams, packet.pos)


def _move(packet: Packet[Any], move: int) -> None:
    if packet.pts is not None:
        packet.pts += move
    if packet.dts is not None:
        packet.dts += move
