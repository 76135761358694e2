"""A window of sound out of any file: mono, at the rate asked for, sample-exact on the file's timeline."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from avloc.errors import InputError
from avloc.media.audio_decoder import FILTER_S, Piece, Track, decode_track, joined, lone_channel, mixed
from avloc.media.containers import MediaSource
from avloc.media.layout import Layout
from avloc.media.probing import layout_of, scanned

SILENCE_PEAK = 1e-4
"""A window whose absolute peak is at or below this is digital silence."""

WHOLE_S = 60.0
"""A sound up to this long is decoded from its start; a longer one is entered by a seek."""
_MOST_LOST_S = 0.1
"""A window that has lost more than this to damage is of no use; so much is one packet, as between two joined files."""
_SHORTFALL_S = 0.1
"""A sound that ends this much before its declared end is measured anew."""


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
    end_s: float
    """Where it ends in the file; of a sound that is shorter than the window, where the sound ends."""
    short: bool
    """The clip is shorter than the window, and the sound has been tiled."""
    channel: int | None = None
    """The channel that was taken, counted from 1, because the channels cancel each other; None: their mean."""
    lost_s: float = 0.0
    """Seconds of it that could not be decoded, and are silent."""

    @property
    def silent(self) -> bool:
        """Whether the window is digital silence."""
        return self.waveform.size == 0 or float(np.abs(self.waveform).max()) <= SILENCE_PEAK


def read_sound(
    source: MediaSource, *, seconds: float, rate: int = 0, centre_s: float | None = None, track: int | None = None
) -> SoundWindow:
    """A window of `seconds` out of `source`.

    The window is centred, shifted inside where it would leave the clip, and the sound is tiled only if the clip is
    shorter than the window. Without `centre_s` the clip is the sound alone; with it, time runs over the whole file,
    and where that has no sound yet, or no longer, the window holds zeros. Channels are averaged; where they cancel
    each other, so that their mean has less than a tenth of the loudest channel's RMS, the loudest is taken.

    Args:
        source: any file with an audio stream.
        seconds: length of the window.
        rate: sample rate of the result in Hz; 0 keeps the file's own.
        centre_s: middle of the window on the file's timeline.
        track: which sound track, counted from 1; None is the main one.

    Raises:
        InputError: no sound stream, nothing in it, or it cannot be decoded.
    """
    layout = layout_of(source, track)
    if centre_s is None and layout.pictures is not None:  # headers do not always say when a second stream starts
        layout = scanned(source, track)
    extent = layout.sound_extent
    if layout.end_s <= WHOLE_S:
        decoded = decode_track(source, layout, 0.0, math.inf)
        extent = decoded.extent_s
    else:
        decoded, extent = _decode_around(source, layout, extent, seconds, centre_s)
    return window_of(decoded, extent, seconds=seconds, rate=rate, centre_s=centre_s, clip_end_s=layout.end_s)


def cut_window(samples: NDArray[np.float32], own_rate: int, *, seconds: float, rate: int = 0) -> SoundWindow:
    """The window of `seconds` in the middle of `samples` [n] mono at `own_rate` Hz; see `read_sound`.

    Raises:
        InputError: there are no samples, or some are not numbers.
    """
    whole = Piece(first=0, samples=np.asarray(samples, np.float32)[None], rate=own_rate)
    track = joined([whole] if len(samples) else [], [])
    extent = (0.0, len(samples) / own_rate)
    return window_of(track, extent, seconds=seconds, rate=rate, centre_s=None, clip_end_s=extent[1])


def _decode_around(
    source: MediaSource, layout: Layout, extent: tuple[float, float], seconds: float, centre_s: float | None
) -> tuple[Track, tuple[float, float]]:
    """The part of a long sound that the window needs; an extent that proves wrong is measured and used instead."""
    start = window_start(extent, seconds, centre_s, layout.end_s)
    track = decode_track(source, layout, start, start + seconds + FILTER_S)
    if track.stop / track.rate < min(start + seconds, extent[1]) - _SHORTFALL_S:
        extent = scanned(source, layout.track).sound_extent
        start = window_start(extent, seconds, centre_s, layout.end_s)
        track = decode_track(source, layout, start, start + seconds + FILTER_S)
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
    if low >= high:
        raise InputError("has a sound stream without samples")
    short = (high - low if centre_s is None else max(high, round(clip_end_s * own))) < need
    start = low if short else round(window_start(extent, seconds, centre_s, clip_end_s) * own)
    if not short and centre_s is None:
        start = min(start, high - need)  # rounding must not reach past the last sample
    lost_s = track.lost(start, start + need) / own
    if lost_s > _MOST_LOST_S:
        raise InputError(f"cannot be decoded: its sound is damaged ({lost_s:.2f} s of {seconds:g} s)")
    used = track.cut(start, high if short else start + need)
    channel = lone_channel(used)
    material = Track(samples=np.resize(mixed(used, channel), need)[None], first=start, rate=own) if short else track
    return SoundWindow(
        waveform=_resampled(material, None if short else channel, start, int(seconds * rate), rate),
        rate=rate,
        source_rate=own,
        start_s=start / own,
        end_s=high / own if short else start / own + seconds,
        short=short,
        channel=channel,
        lost_s=lost_s,
    )


def _resampled(track: Track, channel: int | None, start: int, count: int, rate: int) -> NDArray[np.float32]:
    """`count` samples at `rate` from sample `start` of the track on."""
    own = track.rate
    if rate == own:
        return np.clip(mixed(track.cut(start, start + count), channel), -1.0, 1.0)
    # A lead that is a whole number of samples at both rates keeps the first sample where it belongs.
    unit = own // math.gcd(own, rate)
    lead = math.ceil(FILTER_S * own / unit) * unit
    material = track.cut(start - lead, start + math.ceil(count * own / rate) + lead)
    skip = lead * rate // own
    resampled: NDArray[np.float32] = soxr.resample(mixed(material, channel), own, rate, quality="HQ")
    return np.clip(resampled[skip : skip + count], -1.0, 1.0)
