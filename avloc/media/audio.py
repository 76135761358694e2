"""Read a window of mono audio from a file, resampled and sample-exact on the file's timeline."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from avloc.errors import InputError
from avloc.media.audio_decoder import (
    FILTER_S,
    AudioSpan,
    concatenate,
    decode_track,
    filter_margin,
    lone_channel,
    mix,
)
from avloc.media.containers import MediaSource
from avloc.media.layout import Layout
from avloc.media.probing import probe, scan_packets

SILENCE_PEAK = 1e-4
"""Highest absolute peak of a window that counts as digital silence."""

FULL_DECODE_S = 60.0
"""Audio up to this length is decoded whole; longer audio is decoded after a seek."""
_MAX_LOST_S = 0.1
"""Windows with more undecodable audio are refused; one lost packet, as between joined files, is tolerated."""
_END_TOLERANCE_S = 0.1
"""Audio that ends earlier than this before its declared end makes all packets be scanned."""


@dataclass(frozen=True, kw_only=True)
class SoundWindow:
    """A window of audio; rates are in Hz."""

    waveform: NDArray[np.float32]
    """[int(seconds * rate)] mono in [-1, 1]."""
    rate: int
    source_rate: int
    """Sample rate of the file."""
    start_s: float
    """Start of the window in the file, in seconds."""
    end_s: float
    """End of the window in the file, or of the audio if that is shorter than the window."""
    short: bool
    """The clip is shorter than the window, and the audio has been tiled."""
    channel: int | None = None
    """Channel used, counted from 1, because the channels cancel in their mean; None is the mean."""
    lost_s: float = 0.0
    """Seconds that could not be decoded and are silent."""

    @property
    def silent(self) -> bool:
        """Whether the window is digital silence."""
        return self.waveform.size == 0 or float(np.abs(self.waveform).max()) <= SILENCE_PEAK


def read_sound(
    source: MediaSource, *, seconds: float, rate: int = 0, centre_s: float | None = None, track: int | None = None
) -> SoundWindow:
    """Read a window of `seconds` from `source`.

    The window is centred and shifted to lie inside the clip; audio is tiled only if the clip is shorter than the
    window. Without `centre_s` the clip is the extent of the audio; with it, the extent of the file, and parts of the
    window without audio are zero. Channels are averaged, unless their mean has less than a tenth of the loudest
    channel's RMS (they cancel): then the loudest is used.

    Args:
        source: any file with an audio stream.
        seconds: length of the window.
        rate: sample rate of the result in Hz; 0 keeps the source's.
        centre_s: centre of the window on the file's timeline.
        track: audio track, counted from 1; None is the main one.

    Raises:
        InputError: no audio stream, an empty one, or it cannot be decoded.
    """
    layout = probe(source, track)
    if centre_s is None and layout.pictures is not None:  # headers may lack the start of a second stream
        layout = scan_packets(source, track)
    return read_window(source, layout, seconds=seconds, rate=rate, centre_s=centre_s)


def read_window(
    source: MediaSource, layout: Layout, *, seconds: float, rate: int = 0, centre_s: float | None = None
) -> SoundWindow:
    """`read_sound` of a file whose layout is known."""
    extent = layout.sound_extent
    if layout.end_s <= FULL_DECODE_S:
        start, stop = _needed(layout, seconds, centre_s)
        decoded = decode_track(source, layout, start, stop, rate=rate)
        extent = decoded.extent_s
    else:
        decoded, extent = _decode_around(source, layout, extent, seconds, centre_s, rate)
    return make_window(decoded, extent, seconds=seconds, rate=rate, centre_s=centre_s, clip_end_s=layout.end_s)


def cut_window(samples: NDArray[np.float32], own_rate: int, *, seconds: float, rate: int = 0) -> SoundWindow:
    """The centred window of `seconds` of `samples` [n], mono at `own_rate` Hz; see `read_sound`.

    Raises:
        InputError: no samples, or NaN or infinity among them.
    """
    whole = AudioSpan(first=0, samples=np.asarray(samples, np.float32)[None], rate=own_rate)
    track = concatenate([whole] if len(samples) else [], [])
    extent = (0.0, len(samples) / own_rate)
    return make_window(track, extent, seconds=seconds, rate=rate, centre_s=None, clip_end_s=extent[1])


def _needed(layout: Layout, seconds: float, centre_s: float | None) -> tuple[float, float]:
    """Start and end of the window, if they cannot depend on the samples after it; else all of the track."""
    if centre_s is not None and layout.clock.seekable:
        start = max(0.0, centre_s - seconds / 2)
        if start + seconds <= layout.end_s - FILTER_S:
            return start, start + seconds
    return -math.inf, math.inf


def _decode_around(
    source: MediaSource, layout: Layout, extent: tuple[float, float], seconds: float, centre_s: float | None, rate: int
) -> tuple[AudioSpan, tuple[float, float]]:
    """Decode only what the window needs; if the declared extent proves wrong, scan all packets and retry."""
    start = window_start(extent, seconds, centre_s, layout.end_s)
    track = decode_track(source, layout, start, start + seconds, rate=rate, entry_s=start)
    if track.stop / track.rate < min(start + seconds, extent[1]) - _END_TOLERANCE_S:
        extent = scan_packets(source, layout.track).sound_extent
        start = window_start(extent, seconds, centre_s, layout.end_s)
        track = decode_track(source, layout, start, start + seconds, rate=rate, entry_s=start)
    return track, extent


def window_start(extent: tuple[float, float], seconds: float, centre_s: float | None, clip_end_s: float) -> float:
    """Start of the window in seconds: shifted to lie inside the audio, or inside the clip if a centre is given."""
    low, high = extent if centre_s is None else (0.0, max(clip_end_s, extent[1]))
    centre = (low + high) / 2 if centre_s is None else centre_s
    return max(low, min(centre - seconds / 2, high - seconds))


def make_window(
    track: AudioSpan,
    extent: tuple[float, float],
    *,
    seconds: float,
    rate: int,
    centre_s: float | None,
    clip_end_s: float,
) -> SoundWindow:
    """Cut a window from `track`; `extent` is start and end of the audio in seconds; see `read_sound`."""
    own = track.rate
    rate = rate or own
    need = math.ceil(seconds * own)
    low, high = round(extent[0] * own), round(extent[1] * own)
    if low >= high:
        raise InputError("has a sound stream without samples")
    short = (high - low if centre_s is None else max(high, round(clip_end_s * own))) < need
    start = low if short else round(window_start(extent, seconds, centre_s, clip_end_s) * own)
    if not short and centre_s is None:
        start = min(start, high - need)  # rounding must not go past the last sample
    lost_s = track.lost(start, start + need) / own
    if lost_s > _MAX_LOST_S:
        raise InputError(f"cannot be decoded: its sound is damaged ({lost_s:.2f} s of {seconds:g} s)")
    used = track.cut(start, high if short else start + need)
    channel = lone_channel(used)
    material = AudioSpan(samples=np.resize(mix(used, channel), need)[None], first=start, rate=own) if short else track
    return SoundWindow(
        waveform=_resample(material, None if short else channel, start, int(seconds * rate), rate),
        rate=rate,
        source_rate=own,
        start_s=start / own,
        end_s=high / own if short else start / own + seconds,
        short=short,
        channel=channel,
        lost_s=lost_s,
    )


def _resample(track: AudioSpan, channel: int | None, start: int, count: int, rate: int) -> NDArray[np.float32]:
    """`count` samples at `rate`, from sample `start` of the track."""
    own = track.rate
    if rate == own:
        return np.clip(mix(track.cut(start, start + count), channel), -1.0, 1.0)
    lead = filter_margin(own, rate)  # a whole number at both rates keeps the first sample in place
    material = track.cut(start - lead, start + math.ceil(count * own / rate) + lead)
    skip = lead * rate // own
    resampled: NDArray[np.float32] = soxr.resample(mix(material, channel), own, rate, quality="HQ")
    return np.clip(resampled[skip : skip + count], -1.0, 1.0)
