"""Find the extents of the streams of a file: by its header if the last packets confirm it, else by all packets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from avloc.errors import InputError
from avloc.media.containers import MediaSource, error_text, open_container
from avloc.media.layout import SHORTFALL_S, Layout, Streams
from avloc.media.packets import Clock, has_jumps, seek_before, segment_of, start_time_of, time_base_of

_GENERIC_INDEX = 0x0100
"""FFmpeg's AVFMT_GENERIC_INDEX: the format has no index; durations are estimated from the bit rate."""
_ESTIMATED = frozenset({"asf"})
"""Formats whose duration FFmpeg estimates if the file lacks it, as recorded streams do."""
_BACK_S, _AHEAD_S = Fraction(1, 10), 10
"""Larger steps of the decoding time are a jump, as in the ffmpeg program."""


def probe(source: MediaSource, track: int | None = None) -> Layout:
    """Find the stream extents of a file without decoding.

    A file without a duration, or whose time stamps may jump, is read to its end; otherwise only its end is read.

    Args:
        source: any file with video or audio. The result for a path is cached until the file changes.
        track: the audio track, counted from 1; None is the main one.

    Raises:
        InputError: it cannot be read, has neither video nor audio, or no such track.
    """
    if not isinstance(source, Path):
        return _probe(source, track)
    try:
        state = source.stat()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    return _cached(source, track, (state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=64)
def _cached(path: Path, track: int | None, _state: tuple[int, int, int]) -> Layout:
    return _probe(path, track)


def _probe(source: MediaSource, track: int | None) -> Layout:
    with open_container(source) as container:
        layout = header_layout(container, track)
    return layout or scan_packets(source, track)


def header_layout(container: InputContainer, track: int | None) -> Layout | None:
    """Find the stream extents by the header; None if it is not reliable. Raises as `probe`."""
    streams = Streams.of(container, track)
    unreliable = not container.duration or (container.start_time or 0) < 0 or _is_estimated(container, streams)
    return None if unreliable else _from_header(container, streams)


def scan_packets(source: MediaSource, track: int | None = None) -> Layout:
    """Find the stream extents by reading all packets, ignoring the header; nothing is decoded.

    Raises:
        InputError: as `probe`, or there are no packets.
    """
    with open_container(source) as container:
        streams = Streams.of(container, track)
        every = [stream for stream in container.streams if stream.time_base]
        found = {stream.index: _Extent() for stream in every}
        media = [stream.index for stream in every if stream.type in ("video", "audio")]
        jumps, read_error = _JumpDetector() if has_jumps(container) else None, list[str]()
        for packet in _complete_packets(container.demux(*every), read_error):
            found[packet.stream.index].add(packet, jumps if packet.stream.index in media else None)
        used = {stream.index: found[stream.index] for stream in streams}
        if not any(extent.segments or extent.untimed for extent in used.values()):
            raise InputError("is empty: its streams have no packets")
        positions = tuple(jumps.positions) if jumps else ()
        clock = Clock(
            origin=start_time_of(container), jumps=positions, shifts=_shifts([found[index] for index in media])
        )
        extents = {index: extent.total(clock) for index, extent in used.items()}
        pictures = None
        if streams.pictures is not None:
            pictures, clock = extents[streams.pictures.index], found[streams.pictures.index].with_first_time(clock)
        last_s = max(extent[1] for one in found.values() if (extent := one.total(clock)))
        return Layout(
            pictures=pictures,
            no_pictures=streams.no_pictures,
            declared_end_s=_declared_end_s(container, streams, extents, last_s),
            sound=None if streams.sound is None else extents[streams.sound.index],
            no_sound=streams.no_sound,
            end_s=max(extent[1] for extent in extents.values() if extent),
            read_error=read_error[0] if read_error else "",
            clock=clock,
            tracks=streams.tracks,
            track=streams.track,
        )


# --- by the header ----------------------------------------------------------------------------------------------


def _is_estimated(container: InputContainer, streams: Streams) -> bool:
    """Whether FFmpeg may have estimated the duration, for instance from the bit rate."""
    if has_jumps(container) or container.format.name in _ESTIMATED:
        return True
    if streams.pictures is not None or streams.sound is None or streams.sound.codec_context.name.startswith("pcm"):
        return False
    return bool(container.format.flags & _GENERIC_INDEX)


def _from_header(container: InputContainer, streams: Streams) -> Layout | None:
    """Extents by the header, or None if the last packets do not confirm them."""
    origin, duration = start_time_of(container), _duration_s(container)
    pictures = None if streams.pictures is None else _verified_extent(container, streams.pictures)
    sound = None if streams.sound is None else _declared_extent(streams.sound, origin)
    if streams.sound is not None and (sound is None or streams.pictures is None):
        sound = _verified_extent(container, streams.sound)
    if (pictures is None) != (streams.pictures is None) or (sound is None) != (streams.sound is None):
        return None
    ends = [extent[1] for extent in (pictures, sound) if extent]
    if _ends_early(max(ends), duration, origin):
        return None
    return Layout(
        pictures=pictures,
        no_pictures=streams.no_pictures,
        sound=sound,
        no_sound=streams.no_sound,
        end_s=max(duration, *ends),
        clock=Clock(origin=origin),
        tracks=streams.tracks,
        track=streams.track,
    )


def _verified_extent(container: InputContainer, stream: VideoStream | AudioStream) -> tuple[float, float] | None:
    """Extent of a stream by the header, or None if its last packets do not confirm it."""
    origin = start_time_of(container)
    declared = _declared_extent(stream, origin)
    if declared is None and stream.start_time is None:
        return None
    start, end = declared or (_start_s(stream, origin), _duration_s(container))
    last = _last_end_s(container, stream, origin, end)
    if last is None or (declared is not None and _ends_early(last, end, origin)):
        return None
    return declared if declared and last >= end - SHORTFALL_S else (start, last)


def _duration_s(container: InputContainer) -> float:
    """Declared duration of the file; 0 if absent."""
    return (container.duration or 0) / av.time_base


def _declared_extent(stream: VideoStream | AudioStream, origin: Fraction) -> tuple[float, float] | None:
    if not stream.duration or stream.time_base is None:
        return None
    start = _start_s(stream, origin)
    return start, start + float(stream.duration * stream.time_base)


def _start_s(stream: VideoStream | AudioStream, origin: Fraction) -> float:
    return float((stream.start_time or 0) * time_base_of(stream) - origin)


def _last_end_s(
    container: InputContainer, stream: VideoStream | AudioStream, origin: Fraction, end_s: float
) -> float | None:
    """End of the packets from the last key frame on; None if seeking or reading fails."""
    if not seek_before(container, stream, origin + Fraction(end_s)):
        return None
    read_error = list[str]()
    packets = _complete_packets(container.demux(stream), read_error)
    stamps = [(packet.dts if packet.pts is None else packet.pts, packet.duration or 0) for packet in packets]
    ends = [stamp + length for stamp, length in stamps if stamp is not None]
    return float(max(ends) * time_base_of(stream) - origin) if ends and not read_error else None


# --- by the packets ---------------------------------------------------------------------------------------------


class _JumpDetector:
    """Finds the byte positions at which the time stamps of all streams jump."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self._last: dict[int, tuple[int, Fraction]] = {}
        self._latest = [Fraction(0)]

    def segment(self, packet: Packet[Any]) -> int:
        """The number of jumps before a packet; packets come in the order of the file."""
        stamp = _stamp(packet)
        before, last = self._last.get(packet.stream.index, (0, None))
        segment = segment_of(packet, self.positions, before)
        # A step back, or further ahead than every stream so far: a pause of one stream is no jump.
        if last is not None and segment == before and not last - _BACK_S <= stamp <= self._latest[before] + _AHEAD_S:
            # Replaces the position if a packet of another stream found the same jump earlier.
            self.positions[before : before + 1] = [packet.pos or 0]
            segment += 1
        if segment == len(self._latest):
            self._latest.append(stamp)
        self._latest[segment] = max(self._latest[segment], stamp) if self._last else stamp
        self._last[packet.stream.index] = (segment, stamp)
        return segment


def _stamp(packet: Packet[Any]) -> Fraction:
    stamp = packet.pts if packet.dts is None else packet.dts
    return (stamp or 0) * (packet.time_base or Fraction(0))


class _Extent:
    """Start and end of a stream within each segment between jumps."""

    def __init__(self) -> None:
        self.segments: dict[int, tuple[Fraction, Fraction]] = {}
        self.untimed = Fraction(0)
        """Total duration of the packets without a time stamp."""
        self._first_decoded: Fraction | None = None

    def add(self, packet: Packet[Any], jumps: _JumpDetector | None) -> None:
        """Add a packet; packets come in the order of the file."""
        clock = packet.time_base
        length = (packet.duration or 0) * clock
        if packet.pts is None and packet.dts is None:
            self.untimed += length
            return
        if self._first_decoded is None:
            self._first_decoded = _stamp(packet) - self.untimed
        start = _stamp(packet) if packet.pts is None else packet.pts * clock
        segment = 0 if jumps is None else jumps.segment(packet)
        low, high = self.segments.get(segment, (start, start))
        self.segments[segment] = min(low, start), max(high, start + length)

    def total(self, clock: Clock) -> tuple[float, float] | None:
        """Start and end in seconds from the start of the file; None without packets."""
        offsets = [shift - clock.origin for shift in clock.shifts]
        moved = [(start + offsets[i], end + offsets[i]) for i, (start, end) in self.segments.items()]
        if not moved:
            return (0.0, float(self.untimed)) if self.untimed else None
        return float(min(start for start, _ in moved)), float(max(end for _, end in moved))

    def with_first_time(self, clock: Clock) -> Clock:
        """`clock` with the time of this stream's first packet, if that has no time stamp."""
        if not self.untimed:
            return clock
        first = clock.origin if self._first_decoded is None else self._first_decoded
        return replace(clock, first_untimed_s=first - clock.origin)


def _complete_packets(packets: Iterator[Packet[Any]], read_error: list[str]) -> Iterator[Packet[Any]]:
    """Complete packets up to the end or a read error; the reason for an early end is appended to `read_error`."""
    held: Packet[Any] | None = None
    try:
        for packet in packets:
            if not packet.size:  # flush packet
                continue
            if held is not None:
                yield held
            held = packet
    except FFmpegError as error:
        read_error.append(error_text(error))
    if held is not None and held.is_corrupt:
        read_error.append("its last packet is incomplete")
    elif held is not None:
        yield held


def _declared_end_s(
    container: InputContainer, streams: Streams, extents: Mapping[int, tuple[float, float] | None], last_s: float
) -> float:
    """Declared end of the video, or else audio, if it ends earlier; else 0."""
    main = next(iter(streams))
    extent = extents[main.index]
    if _is_estimated(container, streams) or extent is None:
        return 0.0
    origin, duration = start_time_of(container), _duration_s(container)
    if (declared := _declared_extent(main, origin)) is not None:
        return declared[1] if _ends_early(extent[1], declared[1], origin) else 0.0
    return duration if _ends_early(last_s, duration, origin) else 0.0


def _ends_early(end_s: float, declared_end_s: float, origin: Fraction) -> bool:
    """Whether a file ends before its declared end, which counts from its start or, in MP4 fragments, from zero."""
    return end_s + max(0.0, float(origin)) < declared_end_s - SHORTFALL_S


def _shifts(extents: Collection[_Extent]) -> tuple[Fraction, ...]:
    """Seconds that move each segment between jumps to the end of the one before it."""
    shifts, end = [Fraction(0)], Fraction(0)
    for i in range(1 + max((i for extent in extents for i in extent.segments), default=0)):
        found = [extent.segments[i] for extent in extents if i in extent.segments]
        if i:
            shifts.append(end - min((start for start, _ in found), default=end))
        end = max((stop + shifts[i] for _, stop in found), default=end)
    return tuple(shifts)
