"""Decode audio packets to arrays [channels, n], sample-exact on the file's timeline."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from itertools import chain
from math import ceil, gcd, inf
from typing import Any

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from numpy.typing import NDArray

from avloc.errors import InputError
from avloc.media.containers import MediaSource, find_audio_stream
from avloc.media.layout import Layout
from avloc.media.packets import has_jumps, open_stream

FILTER_S = 0.1
"""Extra audio decoded on both sides of a window, for the resampling filter."""
_PREROLL_S = 1.0
"""Extra audio decoded before a window after a seek, for decoders with state (Opus, MP3, AAC)."""
MARGIN_S = FILTER_S + _PREROLL_S
_GAP_S = 0.02
"""Smaller differences between time stamps and the sample count are rounding errors, not gaps."""
_ROUNDING = 2
"""Samples by which rounded times and lengths can exceed a window."""
_MAX_CHANNELS = {True: 8, False: 64}
"""By planar format: compressed audio has 7.1 at most, and more is damage; interleaved PCM may have more."""
Losses = list[tuple[int, int]]
"""Undecodable stretches: first sample and one past the last."""
_MIN_MEAN_RMS = 0.1
"""Lowest RMS of the channels' mean relative to the loudest channel; below it the channels cancel."""


@dataclass(frozen=True, kw_only=True)
class AudioChunk:
    """A decoded frame; positions count samples from the start of the file."""

    frame: AudioFrame
    first: int
    rate: int

    @property
    def stop(self) -> int:
        """One past the last sample."""
        return self.first + self.frame.samples

    @cached_property
    def samples(self) -> NDArray[np.float32]:
        """[channels, n] in [-1, 1]."""
        return _samples(self.frame)


@dataclass(frozen=True, kw_only=True)
class AudioSpan:
    """Contiguous decoded audio, with the stretches that could not be decoded."""

    samples: NDArray[np.float32]
    """[channels, n] in [-1, 1]."""
    first: int
    rate: int
    losses: Losses = field(default_factory=list)

    @property
    def stop(self) -> int:
        """One past the last sample."""
        return self.first + int(self.samples.shape[1])

    @property
    def extent_s(self) -> tuple[float, float]:
        """Start and end on the timeline, in seconds; samples before zero are decoder delay."""
        stop = max([self.stop, *(end for _, end in self.losses)])
        return max(self.first, 0) / self.rate, stop / self.rate

    def cut(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples `start` to `stop` [channels, stop - start], zero-padded."""
        out = np.zeros((len(self.samples), stop - start), np.float32)
        low, high = max(start, self.first), min(stop, self.stop)
        if low < high:
            out[:, low - start : high - start] = self.samples[:, low - self.first : high - self.first]
        return out

    def lost(self, start: int, stop: int) -> int:
        """Number of undecodable samples between `start` and `stop`."""
        return sum(max(0, min(stop, end) - max(start, begin)) for begin, end in self.losses)


def lone_channel(samples_Cn: NDArray[np.float32]) -> int | None:
    """The loudest channel, counted from 1, if the channels cancel in their mean; else None."""
    loudness = np.sqrt(np.square(samples_Cn).mean(axis=1))
    mean = np.sqrt(np.square(samples_Cn.mean(axis=0)).mean())
    return int(loudness.argmax()) + 1 if mean < _MIN_MEAN_RMS * loudness.max() else None


def mix(samples_Cn: NDArray[np.float32], channel: int | None) -> NDArray[np.float32]:
    """One channel, counted from 1, or the mean of all: [n]."""
    one: NDArray[np.float32] = samples_Cn.mean(axis=0) if channel is None else samples_Cn[channel - 1]
    return one


def filter_margin(own: int, rate: int) -> int:
    """Extra samples at `own` Hz on both sides of a window for resampling to `rate`: a whole number at both rates."""
    unit = own // gcd(own, rate or own)
    return ceil(FILTER_S * own / unit) * unit


def decode_track(
    source: MediaSource,
    layout: Layout,
    start_s: float = -inf,
    stop_s: float = inf,
    *,
    rate: int = 0,
    entry_s: float = 0.0,
) -> AudioSpan:
    """Decode from `entry_s`; the result has what a window from `start_s` to `stop_s` needs. Gaps become zeros.

    Decoders with state return other samples if they start later, so only `entry_s` 0 gives those of the whole track.
    """
    losses: Losses = []
    chunks: list[AudioChunk] = []
    margin = 0
    for chunk in iterate_audio(source, layout, entry_s, losses):
        margin = margin or filter_margin(chunk.rate, rate) + _ROUNDING
        stop = stop_s * chunk.rate + margin
        if chunks and chunk.first >= stop:  # after a gap, which would be filled with zeros
            break
        if len(chunks) == 1 and chunks[0].stop <= start_s * chunk.rate - margin:
            chunks.clear()
        chunks.append(chunk)
        if chunk.stop >= stop:
            break
    return concatenate(chunks, losses)


def iterate_audio(source: MediaSource, layout: Layout, start_s: float, losses: Losses) -> Generator[AudioChunk]:
    """Decode audio from `start_s`, with margin, to the end, placed by time stamps; appends to `losses`."""
    entry_s = start_s - MARGIN_S
    select = partial(find_audio_stream, track=layout.track)
    for entry in (entry_s, None) if entry_s > 0 else (None,):
        with open_stream(source, select, layout.clock, entry) as (stream, packets):
            chunks = _decoded(packets, losses, _RateConverter(stamped=has_jumps(stream.container)))
            first = next(chunks, None)
            # If the seek landed too late, decode from the start of the file.
            if first is not None and (entry is None or first.first <= round((entry + _PREROLL_S) * first.rate)):
                yield first
                yield from chunks
                return
        losses.clear()


def _decoded(packets: Iterator[Packet[AudioStream]], losses: Losses, convert: _RateConverter) -> Iterator[AudioChunk]:
    position, rate = 0, 0
    lost_s: Fraction | None = None
    for packet in packets:
        try:
            frames = packet.decode()
        except FFmpegError as error:
            if not rate and not isinstance(error, InvalidDataError):
                raise
            lost_s = (lost_s or 0) + (packet.duration or 0) * (packet.time_base or Fraction(0))
            continue
        for frame in chain.from_iterable(map(convert, frames)):
            before, position = position, _position(frame, position, fresh=not rate)
            rate = frame.sample_rate
            if lost_s is not None:
                losses.append((min(before, position), position))
                lost_s = None
            yield AudioChunk(first=position, frame=frame, rate=rate)
            position += frame.samples
    if lost_s is not None:
        losses.append((position, position + round(lost_s * rate)))


class _RateConverter:
    """Resample frames to the rate of the first frame.

    Args:
        stamped: time stamps are independent of the sample rate; else a change of rate is refused.
    """

    def __init__(self, *, stamped: bool) -> None:
        self._rate, self._stamped = 0, stamped
        self._resampler: tuple[tuple[int, str, str], AudioResampler] | None = None

    def __call__(self, frame: AudioFrame) -> list[AudioFrame]:
        self._rate = self._rate or frame.sample_rate
        if frame.sample_rate == self._rate:
            return [frame]
        if not self._stamped:
            raise InputError("cannot be used: its sample rate changes within the stream")
        kind = (frame.sample_rate, frame.format.name, frame.layout.name)
        if self._resampler is None or self._resampler[0] != kind:
            resampler = AudioResampler(format=frame.format, layout=frame.layout, rate=self._rate)
            self._resampler = (kind, resampler)
        return self._resampler[1].resample(frame)


def _position(frame: AudioFrame, position: int, *, fresh: bool) -> int:
    if frame.time is None:
        return position
    stamped = round(frame.time * frame.sample_rate)
    if fresh or abs(stamped - position) > _GAP_S * frame.sample_rate:
        return stamped
    return position


def _samples(frame: AudioFrame) -> NDArray[np.float32]:
    channels, planar = frame.layout.nb_channels, frame.format.is_planar
    planes: Sequence[Any] = frame.planes
    # Damaged AAC yields frames with wrong channel counts, for which `to_ndarray` reads invalid memory.
    if not 1 <= channels <= _MAX_CHANNELS[planar] or len(planes) != (channels if planar else 1):
        raise InputError(f"cannot be decoded: its sound is damaged, or has more than {_MAX_CHANNELS[planar]} channels")
    if frame.format.name == "fltp":  # that of most decoders; `to_ndarray` takes several times as long
        return np.array([np.frombuffer(plane, np.float32, frame.samples) for plane in planes])
    data = frame.to_ndarray()
    if not planar:
        data = data.reshape(-1, channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128.0) / 128.0
    elif data.dtype.kind == "i":
        data = data / float(2 ** (8 * data.dtype.itemsize - 1))
    return np.asarray(data, np.float32)


def concatenate(chunks: Sequence[AudioChunk | AudioSpan], losses: Losses) -> AudioSpan:
    """Concatenate chunks; if their channel counts differ, each is averaged to mono."""
    if not chunks:
        raise InputError("has a sound stream without samples" if not losses else "sound cannot be decoded")
    counts = {len(chunk.samples) for chunk in chunks}
    channels = counts.pop() if len(counts) == 1 else 1
    first = min(chunk.first for chunk in chunks)
    out = np.zeros((channels, max(chunk.stop for chunk in chunks) - first), np.float32)
    for chunk in chunks:
        same = len(chunk.samples) == channels
        out[:, chunk.first - first : chunk.stop - first] = chunk.samples if same else chunk.samples.mean(axis=0)
    if not np.isfinite(out).all():
        raise InputError("has sound samples that are not numbers (NaN or infinity)")
    return AudioSpan(samples=out, first=first, rate=chunks[0].rate, losses=losses)
