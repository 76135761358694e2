"""Finding out where the streams of a file lie: by the word of the file as far as its packets bear it out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
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
from avloc.media.containers import MediaSource, opened, reason_of
from avloc.media.layout import SHORTFALL_S, Layout, Streams
from avloc.media.packets import Clock, Jumps, clock_of, may_jump, sought, start_of

_GENERIC_INDEX = 0x0100
"""FFmpeg's AVFMT_GENERIC_INDEX: the format has no index; lengths are estimates from the rate of bits."""
_ESTIMATED = frozenset({"asf"})
"""FFmpeg's names of formats whose length it estimates where a file, as one from a stream, does not name it."""
_REMEMBERED = 64


def layout_of(source: MediaSource, track: int | None = None) -> Layout:
    """Find out where the streams of a file lie; decodes nothing.

    A file that names no length, or whose clock may jump, is read to its end; of any other, the end is looked at.

    Args:
        source: any file with pictures or sound. What was found of a path is remembered until the file changes.
        track: the sound track, counted from 1; None is the main one.

    Raises:
        InputError: it cannot be read, has neither pictures nor sound, or no such track.
    """
    if not isinstance(source, Path):
        return _found(source, track)
    try:
        state = source.stat()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    return _remembered(source, track, (state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=_REMEMBERED)
def _remembered(path: Path, track: int | None, _state: tuple[int, int, int]) -> Layout:
    return _found(path, track)


def _found(source: MediaSource, track: int | None) -> Layout:
    with opened(source) as container:
        streams = Streams.of(container, track)
        layout = None if _says_nothing(container, streams) else _declared(container, streams)
    return scanned(source, track) if layout is None else layout


def scanned(source: MediaSource, track: int | None = None) -> Layout:
    """The layout by the packets alone, whatever the header says: reads the whole file, decodes nothing.

    Raises:
        InputError: as `layout_of`, or there are no packets.
    """
    with opened(source) as container:
        return _scanned(container, Streams.of(container, track))


# --- by the word of the file ------------------------------------------------------------------------------------


def _says_nothing(container: InputContainer, streams: Streams) -> bool:
    """Whether what the file says of its length, or what FFmpeg makes of it, cannot be relied on."""
    if not container.duration or (container.start_time or 0) < 0 or _is_guessed(container):
        return True
    if streams.pictures is not None or streams.sound is None:
        return False
    coded = not streams.sound.codec_context.name.startswith("pcm")
    return coded and bool(container.format.flags & _GENERIC_INDEX)


def _is_guessed(container: InputContainer) -> bool:
    """Whether FFmpeg may have estimated the length, as from the rate of bits."""
    return may_jump(container) or container.format.name in _ESTIMATED


def _declared(container: InputContainer, streams: Streams) -> Layout | None:
    """The timeline by the header, once the last pictures have been found where it has them; else None."""
    origin, whole = start_of(container), _whole_s(container)
    pictures = promised = None
    if streams.pictures is not None:
        promised = _declared_extent(streams.pictures, origin)
        start, end = promised or (_first_s(streams.pictures, origin), whole)
        last = _last_s(container, streams.pictures, origin, end)
        if last is None or _falls_short(last, end, origin):
            return None
        pictures = promised if promised and last >= end - SHORTFALL_S else (start, last)
        promised = promised and pictures
    sound = None if streams.sound is None else _declared_extent(streams.sound, origin) or (0.0, whole)
    return Layout(
        pictures=pictures,
        no_pictures=streams.no_pictures,
        promised_s=promised[1] if promised else 0.0,
        sound=sound,
        no_sound=streams.no_sound,
        end_s=max(whole, *(extent[1] for extent in (pictures, sound) if extent)),
        clock=Clock(origin=origin),
        tracks=streams.tracks,
        track=streams.track,
    )


def _whole_s(container: InputContainer) -> float:
    """How long the file lasts by its own word; 0 where it does not say."""
    return (container.duration or 0) / av.time_base


def _declared_extent(stream: VideoStream | AudioStream, origin: Fraction) -> tuple[float, float] | None:
    if not stream.duration or stream.time_base is None:
        return None
    start = _first_s(stream, origin)
    return start, start + float(stream.duration * stream.time_base)


def _first_s(stream: VideoStream | AudioStream, origin: Fraction) -> float:
    return float((stream.start_time or 0) * clock_of(stream) - origin)


def _last_s(container: InputContainer, stream: VideoStream, origin: Fraction, end_s: float) -> float | None:
    """Where the last picture ends, from the last key frame on; None where that cannot be found so."""
    if not sought(container, stream, origin + Fraction(end_s)):
        return None
    found, broken = _Extent(Jumps(container, clock_of(stream))), list[str]()
    for packet in _to_the_end(container.demux(stream), broken):
        found.add(packet)
    return float(found.parts[0][1] - origin) if found.parts and not broken else None


# --- by the packets ---------------------------------------------------------------------------------------------


class _Extent:
    """Where the packets of a stream lie, from jump to jump of its clock."""

    def __init__(self, jumps: Jumps) -> None:
        self._jumps = jumps
        self.parts: list[tuple[Fraction, Fraction]] = []
        self.untimed = Fraction(0)
        """How long the packets last that have no time stamp."""
        self._first_decoded: Fraction | None = None

    def add(self, packet: Packet[Any]) -> None:
        """Take note of a packet, in the order of the file."""
        clock = packet.time_base
        length = (packet.duration or 0) * clock
        decoded = packet.pts if packet.dts is None else packet.dts
        if decoded is None:
            self.untimed += length
            return
        if self._first_decoded is None:
            self._first_decoded = decoded * clock - self.untimed
        start = (decoded if packet.pts is None else packet.pts) * clock
        part = self._jumps.passed(packet)
        if part == len(self.parts):
            self.parts.append((start, start))
        low, high = self.parts[part]
        self.parts[part] = min(low, start), max(high, start + length)

    def on(self, clock: Clock) -> tuple[float, float] | None:
        """Start and end on the timeline; None without packets."""
        moves = (shift - clock.origin for shift in clock.shifts)
        moved = [(start + move, end + move) for (start, end), move in zip(self.parts, moves, strict=False)]
        if not moved:
            return (0.0, float(self.untimed)) if self.untimed else None
        return float(min(start for start, _ in moved)), float(max(end for _, end in moved))

    def placed(self, clock: Clock) -> Clock:
        """The clock with the place of this stream's first packet, if that has no time stamp."""
        if not self.untimed:
            return clock
        first = clock.origin if self._first_decoded is None else self._first_decoded
        return replace(clock, untimed_from=first - clock.origin)


def _to_the_end(packets: Iterator[Packet[Any]], broken: list[str]) -> Iterator[Packet[Any]]:
    """The packets; where reading fails the file ends, and so it does within a last packet: `broken` gets the reason."""
    held: Packet[Any] | None = None
    try:
        for packet in packets:
            if not packet.size:  # it flushes a decoder
                continue
            if held is not None:
                yield held
            held = packet
    except FFmpegError as error:
        broken.append(reason_of(error))
    if held is not None and held.is_corrupt:
        broken.append("its last packet is incomplete")
    elif held is not None:
        yield held


def _scanned(container: InputContainer, streams: Streams) -> Layout:
    """The timeline by all packets.

    Raises:
        InputError: there are none.
    """
    every = [stream for stream in container.streams if stream.time_base]
    found = {stream.index: _Extent(Jumps(container, stream.time_base or Fraction(1))) for stream in every}
    broken: list[str] = []
    for packet in _to_the_end(container.demux(*every), broken):
        found[packet.stream.index].add(packet)
    used = {stream.index: found[stream.index] for stream in streams}
    if not any(extent.parts or extent.untimed for extent in used.values()):
        raise InputError("is empty: its streams have no packets")
    clock = Clock(origin=start_of(container), shifts=_shifts(used.values()))
    extents = {index: extent.on(clock) for index, extent in used.items()}
    pictures = promised = None
    if streams.pictures is not None:
        pictures, clock = extents[streams.pictures.index], found[streams.pictures.index].placed(clock)
        ends = [extent[1] for one in found.values() if (extent := one.on(clock))]
        promised = _promised(container, streams.pictures, pictures[1] if pictures else 0.0, max(ends))
    return Layout(
        pictures=pictures,
        no_pictures=streams.no_pictures,
        promised_s=promised or 0.0,
        sound=None if streams.sound is None else extents[streams.sound.index],
        no_sound=streams.no_sound,
        end_s=max(extent[1] for extent in extents.values() if extent),
        broken=broken[0] if broken else "",
        clock=clock,
        tracks=streams.tracks,
        track=streams.track,
    )


def _promised(container: InputContainer, pictures: VideoStream, pictures_end_s: float, end_s: float) -> float:
    """Where the pictures should end by the word of the file and do not; 0 where they do, or it does not say."""
    if _is_guessed(container):
        return 0.0
    origin, whole = start_of(container), _whole_s(container)
    if (declared := _declared_extent(pictures, origin)) is not None:
        return declared[1] if _falls_short(pictures_end_s, declared[1], origin) else 0.0
    return whole if _falls_short(end_s, whole, origin) else 0.0


def _falls_short(end_s: float, promised_s: float, origin: Fraction) -> bool:
    """Whether a file ends before its header says, counted from its start or, as in fragments of MP4, from zero."""
    return end_s + max(0.0, float(origin)) < promised_s - SHORTFALL_S


def _shifts(extents: Collection[_Extent]) -> tuple[Fraction, ...]:
    """What moves each part of a file, whose clock jumps between them, to the end of the part before it."""
    shifts, end = [Fraction(0)], Fraction(0)
    for part in range(max(len(extent.parts) for extent in extents)):
        there = [extent.parts[part] for extent in extents if part < len(extent.parts)]
        if part:
            shifts.append(end - min(start for start, _ in there))
        end = max(stop for _, stop in there) + shifts[part]
    return tuple(shifts)
