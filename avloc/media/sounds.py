"""A window of sound out of any file: mono, at the rate asked for, sample-exact on the container's timeline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import InvalidDataError
from numpy.typing import NDArray

from avloc.errors import InputError
from avloc.media.containers import (
    MediaSource,
    end_s,
    opened,
    origin_s,
    scanned_extent_s,
    sound_stream,
    stream_extent_s,
)

SILENCE_PEAK = 1e-4
"""A window whose absolute peak is at or below this is digital silence."""

WHOLE_S = 60.0
"""A sound up to this long is decoded from its start; a longer one is entered by a seek."""
_PREROLL_S = 1.0
"""Decoded before a window after a seek: decoders with memory (Opus, MP3, AAC) need a run-up."""
_GAP_S = 0.02
"""Time stamps that stray less than this from the count of samples are rounding, not a gap."""
_SHORTFALL_S = 0.1
"""A sound that ends this much before its declared end is measured anew."""
_FILTER_S = 0.1
"""Heard beyond either end of a window, so that the resampling filter does not see an edge."""
AROUND_S = _FILTER_S + _PREROLL_S
"""From where a decoder enters to where a window begins."""
_MOST_CHANNELS = 8
"""7.1; a frame that claims more is damaged."""


@dataclass(frozen=True, kw_only=True)
class SoundWindow:
    """A stretch of sound."""

    waveform: NDArray[np.float32]
    """[int(seconds * rate)] mono in [-1, 1]."""
    rate: int
    """Sample rate of `waveform` in Hz."""
    source_rate: int
    """Sample rate of the file in Hz."""
    start_s: float
    """Where the window begins in the file, in seconds."""
    short: bool
    """The sound was shorter than the window and has been tiled."""

    @property
    def silent(self) -> bool:
        """Whether there is nothing to hear: digital silence."""
        return self.waveform.size == 0 or float(np.abs(self.waveform).max()) <= SILENCE_PEAK


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Decoded mono samples; indices count samples from the container's start."""

    samples: NDArray[np.float32]
    first: int
    rate: int

    @property
    def stop(self) -> int:
        """One past the last sample."""
        return self.first + len(self.samples)


@dataclass(frozen=True, kw_only=True)
class Track(Piece):
    """A stretch of sound, and where in it packets could not be decoded."""

    losses: list[int] = field(default_factory=list)

    @property
    def extent_s(self) -> tuple[float, float]:
        """Start and end on the timeline, in seconds; what comes before its zero is a decoder's run-up."""
        return max(self.first, 0) / self.rate, self.stop / self.rate

    def cut(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples `start` to `stop`, zeros where the track has none."""
        out = np.zeros(stop - start, np.float32)
        low, high = max(start, self.first), min(stop, self.stop)
        if low < high:
            out[low - start : high - start] = self.samples[low - self.first : high - self.first]
        return out


def read_sound(source: MediaSource, *, seconds: float, rate: int = 0, centre_s: float | None = None) -> SoundWindow:
    """A window of `seconds` out of `source`.

    The window is centred, shifted inside where it would leave the clip, and tiled only if the sound is shorter than
    the window. Without `centre_s` it lies in the middle of the sound; with it, time runs over the whole clip, and
    where the clip has no sound yet, or no longer, the window holds zeros. Channels are averaged.

    Args:
        source: any file with an audio stream.
        seconds: length of the window.
        rate: sample rate of the result in Hz; 0 keeps the file's own.
        centre_s: middle of the window on the container's timeline.

    Raises:
        InputError: no sound stream, nothing in it, or it cannot be decoded.
    """
    with opened(source) as container:
        stream = sound_stream(container)
        extent = declared_extent_s(container, stream)
        clip_end_s = max(end_s(container), extent[1])
        if clip_end_s <= WHOLE_S:
            track = decode_track(container, stream, 0.0, math.inf)
            extent = track.extent_s
        else:
            track, extent = _decode_around(container, stream, extent, seconds, centre_s, clip_end_s)
    return window_of(track, extent, seconds=seconds, rate=rate, centre_s=centre_s, clip_end_s=clip_end_s)


def declared_extent_s(container: InputContainer, stream: AudioStream) -> tuple[float, float]:
    """Start and end of the sound by the word of the file, or by its packets where it has none."""
    extent = stream_extent_s(container, stream) or (0.0, end_s(container))
    return extent if extent[1] > 0 else scanned_extent_s(container, stream)


def cut_window(samples: NDArray[np.float32], own_rate: int, *, seconds: float, rate: int = 0) -> SoundWindow:
    """The window of `seconds` in the middle of `samples` [n] mono at `own_rate` Hz; see `read_sound`.

    Raises:
        InputError: there are no samples, or some are not numbers.
    """
    whole = Piece(first=0, samples=np.asarray(samples, np.float32), rate=own_rate)
    track = joined([whole] if len(samples) else [], [])
    extent = (0.0, len(samples) / own_rate)
    return window_of(track, extent, seconds=seconds, rate=rate, centre_s=None, clip_end_s=extent[1])


def _decode_around(
    container: InputContainer,
    stream: AudioStream,
    extent: tuple[float, float],
    seconds: float,
    centre_s: float | None,
    clip_end_s: float,
) -> tuple[Track, tuple[float, float]]:
    """The part of a long sound that the window needs; an extent that proves wrong is measured and used instead."""
    start = window_start(extent, seconds, centre_s, clip_end_s)
    track = decode_track(container, stream, start, start + seconds + _FILTER_S)
    if track.stop / track.rate < min(start + seconds, extent[1]) - _SHORTFALL_S:
        extent = scanned_extent_s(container, stream)
        start = window_start(extent, seconds, centre_s, clip_end_s)
        track = decode_track(container, stream, start, start + seconds + _FILTER_S)
    return track, extent


def window_start(extent: tuple[float, float], seconds: float, centre_s: float | None, clip_end_s: float) -> float:
    """Where the window begins: centred, but inside the sound, or inside the clip if a centre is given."""
    low, high = extent if centre_s is None else (0.0, max(clip_end_s, extent[1]))
    centre = (low + high) / 2 if centre_s is None else centre_s
    return max(low, min(centre - seconds / 2, high - seconds))


def window_of(
    track: Track,
    extent: tuple[float, float],
    *,
    seconds: float,
    rate: int,
    centre_s: float | None,
    clip_end_s: float,
) -> SoundWindow:
    """The window of a sound that lies at `extent`, in seconds, out of the `track` that covers it; see `read_sound`."""
    own = track.rate
    rate = rate or own
    need = math.ceil(seconds * own)
    low, high = round(extent[0] * own), round(extent[1] * own)
    short = high - low < need
    start = low if short else round(window_start(extent, seconds, centre_s, clip_end_s) * own)
    if not short and centre_s is None:
        start = min(start, high - need)  # rounding must not reach past the last sample
    if any(start <= loss < start + need for loss in track.losses):
        raise InputError("cannot be decoded: its sound is damaged")
    if short:
        tiled = Track(samples=np.resize(track.cut(low, high), need), first=start, rate=own)
        track = tiled
    waveform = _resampled(track, start, int(seconds * rate), rate)
    return SoundWindow(waveform=waveform, rate=rate, source_rate=own, start_s=start / own, short=short)


def _resampled(track: Track, start: int, count: int, rate: int) -> NDArray[np.float32]:
    """`count` samples at `rate` from sample `start` of the track on."""
    own = track.rate
    if rate == own:
        return np.clip(track.cut(start, start + count), -1.0, 1.0)
    # A lead that is a whole number of samples at both rates keeps the first sample where it belongs.
    unit = own // math.gcd(own, rate)
    lead = math.ceil(_FILTER_S * own / unit) * unit
    material = track.cut(start - lead, start + math.ceil(count * own / rate) + lead)
    skip = lead * rate // own
    heard: NDArray[np.float32] = soxr.resample(material, own, rate, quality="HQ")[skip : skip + count]
    return np.clip(heard, -1.0, 1.0)


def decode_track(container: InputContainer, stream: AudioStream, start_s: float, stop_s: float) -> Track:
    """Decode from `start_s` (and a run-up) to `stop_s`; gaps become zeros."""
    losses: list[int] = []
    pieces: list[Piece] = []
    for piece in sound_from(container, stream, start_s, losses):
        pieces.append(piece)
        if piece.stop >= stop_s * piece.rate:
            break
    return joined(pieces, losses)


def sound_from(container: InputContainer, stream: AudioStream, start_s: float, losses: list[int]) -> Iterator[Piece]:
    """Sound from `start_s` (and a run-up) on; time stamps say where samples lie.

    Where packets cannot be decoded is appended to `losses`.
    """
    entry_s = start_s - AROUND_S
    if entry_s > 0 and stream.time_base is not None:
        container.seek(int((entry_s + origin_s(container)) / stream.time_base), stream=stream, backward=True)
        pieces = _decoded(container, stream, losses)
        first = next(pieces, None)
        if first is not None and first.first <= round((entry_s + _PREROLL_S) * first.rate):
            yield first
            yield from pieces
            return
        losses.clear()  # the seek landed too late: go from the start
    container.seek(0, backward=True)
    yield from _decoded(container, stream, losses)


def _decoded(container: InputContainer, stream: AudioStream, losses: list[int]) -> Iterator[Piece]:
    position, rate = 0, 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except InvalidDataError:
            losses.append(position)
            continue
        for frame in frames:
            if rate not in (0, frame.sample_rate):
                raise InputError("cannot be used: its sample rate changes on the way")
            position = _position(frame, origin_s(container), position, fresh=not rate)
            rate = frame.sample_rate
            yield Piece(first=position, samples=_mono(frame), rate=rate)
            position += frame.samples


def _position(frame: AudioFrame, origin: float, position: int, *, fresh: bool) -> int:
    if frame.time is None:
        return position
    stamped = round((frame.time - origin) * frame.sample_rate)
    if fresh or abs(stamped - position) > _GAP_S * frame.sample_rate:
        return stamped
    return position


def _mono(frame: AudioFrame) -> NDArray[np.float32]:
    channels, planar = frame.layout.nb_channels, frame.format.is_planar
    # Damaged AAC yields frames that claim channels they do not have; `to_ndarray` would follow wild pointers.
    if not 1 <= channels <= _MOST_CHANNELS or len(frame.planes) != (channels if planar else 1):
        raise InputError("cannot be decoded: its sound is damaged")
    data = frame.to_ndarray()
    if not planar:
        data = data.reshape(-1, channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128.0) / 128.0
    elif data.dtype.kind == "i":
        data = data / float(2 ** (8 * data.dtype.itemsize - 1))
    return np.asarray(data.mean(axis=0), np.float32)


def joined(pieces: Sequence[Piece], losses: list[int]) -> Track:
    """Pieces as one track.

    Raises:
        InputError: there are none, or some samples are not numbers.
    """
    if not pieces:
        raise InputError("has a sound stream with nothing to hear in it" if not losses else "sound cannot be decoded")
    first = min(piece.first for piece in pieces)
    out = np.zeros(max(piece.stop for piece in pieces) - first, np.float32)
    for piece in pieces:
        out[piece.first - first : piece.stop - first] = piece.samples
    if not np.isfinite(out).all():
        raise InputError("has sound samples that are not numbers (NaN or infinity)")
    return Track(samples=out, first=first, rate=pieces[0].rate, losses=losses)
