"""Decoded sound: channels side by side, sample-exact on the file's timeline."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import chain

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from numpy.typing import NDArray

from avloc.errors import InputError
from avloc.media.containers import MediaSource, sound_stream
from avloc.media.layout import Layout
from avloc.media.packets import entered, may_jump

FILTER_S = 0.1
"""Decoded beyond either end of a window, so that the resampling filter meets no edge."""
_PREROLL_S = 1.0
"""Decoded before a window after a seek: decoders with memory (Opus, MP3, AAC) need a run-up."""
AROUND_S = FILTER_S + _PREROLL_S
"""From where a decoder enters to where a window begins."""
_GAP_S = 0.02
"""Time stamps that stray less than this from the count of samples are rounding, not a gap."""
_MOST_CHANNELS = {True: 8, False: 64}
"""Of coded sound, channel by channel: 7.1, a frame that claims more is damaged. Of plain samples side by side."""
Losses = list[tuple[int, int]]
"""Where packets could not be decoded: from one sample to another."""
_LEAST_MEAN = 0.1
"""RMS of the channels' mean over that of the loudest channel; below it they cancel each other."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Decoded samples; indices count samples from the start of the file."""

    samples: NDArray[np.float32]
    """[channels, n] in [-1, 1]."""
    first: int
    rate: int

    @property
    def stop(self) -> int:
        """One past the last sample."""
        return self.first + int(self.samples.shape[1])


@dataclass(frozen=True, kw_only=True)
class Track(Piece):
    """A stretch of sound, and where in it packets could not be decoded."""

    losses: Losses = field(default_factory=list)

    @property
    def extent_s(self) -> tuple[float, float]:
        """Start and end on the timeline, in seconds; what comes before its zero is a decoder's run-up."""
        stop = max([self.stop, *(end for _, end in self.losses)])
        return max(self.first, 0) / self.rate, stop / self.rate

    def cut(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples `start` to `stop` [channels, stop - start], zeros where the track has none."""
        out = np.zeros((len(self.samples), stop - start), np.float32)
        low, high = max(start, self.first), min(stop, self.stop)
        if low < high:
            out[:, low - start : high - start] = self.samples[:, low - self.first : high - self.first]
        return out

    def lost(self, start: int, stop: int) -> int:
        """How many samples between `start` and `stop` could not be decoded."""
        return sum(max(0, min(stop, end) - max(start, begin)) for begin, end in self.losses)


def lone_channel(samples_Cn: NDArray[np.float32]) -> int | None:
    """The loudest channel, counted from 1, where the channels cancel each other in their mean; else None."""
    loudness = np.sqrt(np.square(samples_Cn).mean(axis=1))
    mean = np.sqrt(np.square(samples_Cn.mean(axis=0)).mean())
    return int(loudness.argmax()) + 1 if mean < _LEAST_MEAN * loudness.max() else None


def mixed(samples_Cn: NDArray[np.float32], channel: int | None) -> NDArray[np.float32]:
    """One channel, counted from 1, or the mean of all: [n]."""
    one: NDArray[np.float32] = samples_Cn.mean(axis=0) if channel is None else samples_Cn[channel - 1]
    return one


def decode_track(source: MediaSource, layout: Layout, start_s: float, stop_s: float) -> Track:
    """Decode from `start_s` (and a run-up) to `stop_s`; gaps become zeros.

    Raises:
        InputError: no sound there, or it cannot be decoded.
    """
    losses: Losses = []
    pieces: list[Piece] = []
    for piece in sound_from(source, layout, start_s, losses):
        if pieces and piece.first >= stop_s * piece.rate:  # behind a gap, which would have to be held
            break
        pieces.append(piece)
        if piece.stop >= stop_s * piece.rate:
            break
    return joined(pieces, losses)


def sound_from(source: MediaSource, layout: Layout, start_s: float, losses: Losses) -> Generator[Piece]:
    """Sound from `start_s` (and a run-up) on; time stamps say where samples lie.

    Where packets before a piece could not be decoded is appended to `losses`.
    """
    entry_s = start_s - AROUND_S
    pick = partial(sound_stream, track=layout.track)
    for entry in (entry_s, None) if entry_s > 0 else (None,):
        with entered(source, pick, layout.clock, entry) as (stream, packets):
            pieces = _decoded(packets, losses, _SameRate(stamped=may_jump(stream.container)))
            first = next(pieces, None)
            # A seek that landed too late is of no use: then from the start of the file.
            if first is not None and (entry is None or first.first <= round((entry + _PREROLL_S) * first.rate)):
                yield first
                yield from pieces
                return
        losses.clear()


def _decoded(packets: Iterator[Packet[AudioStream]], losses: Losses, same_rate: _SameRate) -> Iterator[Piece]:
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
        for frame in chain.from_iterable(map(same_rate, frames)):
            before, position = position, _position(frame, position, fresh=not rate)
            rate = frame.sample_rate
            if lost_s is not None:
                losses.append((min(before, position), position))
                lost_s = None
            yield Piece(first=position, samples=_samples(frame), rate=rate)
            position += frame.samples
    if lost_s is not None:
        losses.append((position, position + round(lost_s * rate)))


class _SameRate:
    """Brings sound to the rate that it has at its beginning.

    Args:
        stamped: time stamps say where it lies; else they are counted at the first rate, and wrong after a change.
    """

    def __init__(self, *, stamped: bool) -> None:
        self._rate, self._stamped = 0, stamped
        self._resampler: tuple[tuple[int, str, str], AudioResampler] | None = None

    def __call__(self, frame: AudioFrame) -> list[AudioFrame]:
        self._rate = self._rate or frame.sample_rate
        if frame.sample_rate == self._rate:
            return [frame]
        if not self._stamped:
            raise InputError("cannot be used: its sample rate changes on the way")
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
    # Damaged AAC yields frames that claim channels they do not have; `to_ndarray` would follow wild pointers.
    if not 1 <= channels <= _MOST_CHANNELS[planar] or len(frame.planes) != (channels if planar else 1):
        raise InputError(f"cannot be decoded: its sound is damaged, or has more than {_MOST_CHANNELS[planar]} channels")
    data = frame.to_ndarray()
    if not planar:
        data = data.reshape(-1, channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128.0) / 128.0
    elif data.dtype.kind == "i":
        data = data / float(2 ** (8 * data.dtype.itemsize - 1))
    return np.asarray(data, np.float32)


def joined(pieces: Sequence[Piece], losses: Losses) -> Track:
    """Pieces as one track; where their channels differ in number, it is the mean of each.

    Raises:
        InputError: there are none, or some samples are not numbers.
    """
    if not pieces:
        raise InputError("has a sound stream without samples" if not losses else "sound cannot be decoded")
    counts = {len(piece.samples) for piece in pieces}
    channels = counts.pop() if len(counts) == 1 else 1
    first = min(piece.first for piece in pieces)
    out = np.zeros((channels, max(piece.stop for piece in pieces) - first), np.float32)
    for piece in pieces:
        same = len(piece.samples) == channels
        out[:, piece.first - first : piece.stop - first] = piece.samples if same else piece.samples.mean(axis=0)
    if not np.isfinite(out).all():
        raise InputError("has sound samples that are not numbers (NaN or infinity)")
    return Track(samples=out, first=first, rate=pieces[0].rate, losses=losses)
