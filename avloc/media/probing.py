"""Where the streams of a file lie: by its header where its packets confirm that, else by its packets."""

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
from avloc.media.containers import MediaSource, opened, reason_of
from avloc.media.layout import SHORTFALL_S, Layout, Streams
from avloc.media.packets import Clock, clock_of, may_jump, part_of, sought, start_of

_GENERIC_INDEX = 0x0100
"""FFmpeg's AVFMT_GENERIC_INDEX: the format has no index; lengths are estimates from the rate of bits."""
_ESTIMATED = frozenset({"asf"})
"""FFmpeg's names of formats whose length it estimates where a file, as one from a stream, does not name it."""
_BACK_S, _AHEAD_S = Fraction(1, 10), 10
"""Decoding times that go back or ahead by more are a jump of the clock, as in the ffmpeg program."""
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


# --- by the header ----------------------------------------------------------------------------------------------


def _says_nothing(container: InputContainer, streams: Streams) -> bool:
    """Whether what the file says of its length, or what FFmpeg makes of it, cannot be relied on."""
    return not container.duration or (container.start_time or 0) < 0 or _is_guessed(container, streams)


def _is_guessed(container: InputContainer, streams: Streams) -> bool:
    """Whether FFmpeg may have estimated the length, as from the rate of bits."""
    if may_jump(container) or container.format.name in _ESTIMATED:
        return True
    if streams.pictures is not None or streams.sound is None or streams.sound.codec_context.name.startswith("pcm"):
        return False
    return bool(container.format.flags & _GENERIC_INDEX)


def _declared(container: InputContainer, streams: Streams) -> Layout | None:
    """The timeline by the header, once its end has been found where it has it; else None."""
    origin, whole = start_of(container), _whole_s(container)
    pictures = None if streams.pictures is None else _confirmed(container, streams.pictures)
    sound = None if streams.sound is None else _declared_extent(streams.sound, origin)
    if streams.sound is not None and (sound is None or streams.pictures is None):
        sound = _confirmed(container, streams.sound)
    if (pictures is None) != (streams.pictures is None) or (sound is None) != (streams.sound is None):
        return None
    ends = [extent[1] for extent in (pictures, sound) if extent]
    if _falls_short(max(ends), whole, origin):
        return None
    return Layout(
        pictures=pictures,
        no_pictures=streams.no_pictures,
        sound=sound,
        no_sound=streams.no_sound,
        end_s=max(whole, *ends),
        clock=Clock(origin=origin),
        tracks=streams.tracks,
        track=streams.track,
    )


def _confirmed(container: InputContainer, stream: VideoStream | AudioStream) -> tuple[float, float] | None:
    """Where a stream lies by the header, if its last packets confirm it; else None."""
    origin = start_of(container)
    declared = _declared_extent(stream, origin)
    if declared is None and stream.start_time is None:
        return None
    start, end = declared or (_first_s(stream, origin), _whole_s(container))
    last = _last_s(container, stream, origin, end)
    if last is None or (declared is not None and _falls_short(last, end, origin)):
        return None
    return declared if declared and last >= end - SHORTFALL_S else (start, last)


def _whole_s(container: InputContainer) -> float:
    """How long the file lasts by its header; 0 where it does not say."""
    return (container.duration or 0) / av.time_base


def _declared_extent(stream: VideoStream | AudioStream, origin: Fraction) -> tuple[float, float] | None:
    if not stream.duration or stream.time_base is None:
        return None
    start = _first_s(stream, origin)
    return start, start + float(stream.duration * stream.time_base)


def _first_s(stream: VideoStream | AudioStream, origin: Fraction) -> float:
    return float((stream.start_time or 0) * clock_of(stream) - origin)


def _last_s(
    container: InputContainer, stream: VideoStream | AudioStream, origin: Fraction, end_s: float
) -> float | None:
    """Where the last packet ends, from the last key frame on; None where that cannot be found so."""
    if not sought(container, stream, origin + Fraction(end_s)):
        return None
    found, broken = _Extent(), list[str]()
    for packet in _to_the_end(container.demux(stream), broken):
        found.add(packet, None)
    return float(found.parts[0][1] - origin) if found.parts and not broken else None


# --- by the packets ---------------------------------------------------------------------------------------------


class _Seams:
    """Finds the places at which the clock of a file jumps, as its packets go by; every stream jumps there."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self._last: dict[int, tuple[int, Fraction]] = {}
        self._latest = [Fraction(0)]

    def part(self, packet: Packet[Any]) -> int:
        """The number of seams before a packet."""
        stamp = _stamp(packet)
        part, last = self._last.get(packet.stream.index, (0, None))
        now = part_of(packet, self.places, part)
        if last is not None and now == part and self._jumps(stamp, last, part):
            place = packet.pos or 0
            # Of packets that lie close to a seam, one of another stream may have been the first to come.
            self.places[part : part + 1] = [place]
            now += 1
        if now == len(self._latest):
            self._latest.append(stamp)
        self._latest[now] = max(self._latest[now], stamp) if self._last else stamp
        self._last[packet.stream.index] = (now, stamp)
        return now

    def _jumps(self, stamp: Fraction, last: Fraction, part: int) -> bool:
        """A stream goes back, or further ahead than any other has come: one that pauses alone does not jump."""
        return stamp < last - _BACK_S or stamp > self._latest[part] + _AHEAD_S


def _stamp(packet: Packet[Any]) -> Fraction:
    stamp = packet.pts if packet.dts is None else packet.dts
    return (stamp or 0) * (packet.time_base or Fraction(0))


class _Extent:
    """Where the packets of a stream lie, from seam to seam."""

    def __init__(self) -> None:
        self.parts: dict[int, tuple[Fraction, Fraction]] = {}
        self.untimed = Fraction(0)
        """How long the packets last that have no time stamp."""
        self._first_decoded: Fraction | None = None

    def add(self, packet: Packet[Any], seams: _Seams | None) -> None:
        """Take note of a packet, in the order of the file."""
        clock = packet.time_base
        length = (packet.duration or 0) * clock
        if packet.pts is None and packet.dts is None:
            self.untimed += length
            return
        if self._first_decoded is None:
            self._first_decoded = _stamp(packet) - self.untimed
        start = _stamp(packet) if packet.pts is None else packet.pts * clock
        part = 0 if seams is None else seams.part(packet)
        low, high = self.parts.get(part, (start, start))
        self.parts[part] = min(low, start), max(high, start + length)

    def on(self, clock: Clock) -> tuple[float, float] | None:
        """Start and end on the timeline; None without packets."""
        moves = [shift - clock.origin for shift in clock.shifts]
        moved = [(start + moves[part], end + moves[part]) for part, (start, end) in self.parts.items()]
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
    found = {stream.index: _Extent() for stream in every}
    media = [stream.index for stream in every if stream.type in ("video", "audio")]
    seams, broken = _Seams() if may_jump(container) else None, list[str]()
    for packet in _to_the_end(container.demux(*every), broken):
        found[packet.stream.index].add(packet, seams if packet.stream.index in media else None)
    used = {stream.index: found[stream.index] for stream in streams}
    if not any(extent.parts or extent.untimed for extent in used.values()):
        raise InputError("is empty: its streams have no packets")
    places = tuple(seams.places) if seams else ()
    clock = Clock(origin=start_of(container), seams=places, shifts=_shifts([found[index] for index in media]))
    extents = {index: extent.on(clock) for index, extent in used.items()}
    pictures = None
    if streams.pictures is not None:
        pictures, clock = extents[streams.pictures.index], found[streams.pictures.index].placed(clock)
    last_s = max(extent[1] for one in found.values() if (extent := one.on(clock)))
    return Layout(
        pictures=pictures,
        no_pictures=streams.no_pictures,
        promised_s=_promised(container, streams, extents, last_s),
        sound=None if streams.sound is None else extents[streams.sound.index],
        no_sound=streams.no_sound,
        end_s=max(extent[1] for extent in extents.values() if extent),
        broken=broken[0] if broken else "",
        clock=clock,
        tracks=streams.tracks,
        track=streams.track,
    )


def _promised(
    container: InputContainer, streams: Streams, extents: Mapping[int, tuple[float, float] | None], last_s: float
) -> float:
    """Where pictures, or else the sound, should end by the header and do not; 0 where they do, or it does not say."""
    main = next(iter(streams))
    extent = extents[main.index]
    if _is_guessed(container, streams) or extent is None:
        return 0.0
    origin, whole = start_of(container), _whole_s(container)
    if (declared := _declared_extent(main, origin)) is not None:
        return declared[1] if _falls_short(extent[1], declared[1], origin) else 0.0
    return whole if _falls_short(last_s, whole, origin) else 0.0


def _falls_short(end_s: float, promised_s: float, origin: Fraction) -> bool:
    """Whether a file ends before its header says, counted from its start or, as in fragments of MP4, from zero."""
    return end_s + max(0.0, float(origin)) < promised_s - SHORTFALL_S


def _shifts(extents: Collection[_Extent]) -> tuple[Fraction, ...]:
    """What moves each part of a file, whose clock jumps between them, to the end of the part before it."""
    shifts, end = [Fraction(0)], Fraction(0)
    for part in range(1 + max((part for extent in extents for part in extent.parts), default=0)):
        there = [extent.parts[part] for extent in extents if part in extent.parts]
        if part:
            shifts.append(end - min((start for start, _ in there), default=end))
        end = max((stop + shifts[part] for _, stop in there), default=end)
    return tuple(shifts)
