"""Sounds of the example, synthesised: a strummed guitar and a drum kit, each 3 s at 16 kHz.

The strings are those of Karplus and Strong, "Digital Synthesis of Plucked-String and Drum Timbres" (1983), with the
fractional delay and pick position of Jaffe and Smith, "Extensions of the Karplus-Strong Plucked-String Algorithm"
(1983). The drums are modes of a circular membrane, whose frequencies are zeros of Bessel functions, with noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

RATE = 16_000
SECONDS = 3.0
Samples = NDArray[np.float64]

MEMBRANE = (1.0, 1.594, 2.136, 2.296, 2.653)
"""Frequencies of a circular membrane's modes, over the lowest one."""
G_MAJOR = (98.0, 123.47, 146.83, 196.0, 246.94, 392.0)
C_MAJOR = (130.81, 164.81, 196.0, 261.63, 329.63)
D_MAJOR = (146.83, 220.0, 293.66, 369.99)
BODY = ((105.0, 15.0, 0.5), (205.0, 18.0, 0.5), (400.0, 20.0, 0.3))
"""Resonances of a guitar's body: Hz, Q and gain."""
DAMPING = 0.15
"""Loss of a string's high frequencies, 0 to 0.5: steel rings bright."""
STEP = 0.135
"""Seconds of a sixteenth note of the drums."""


def guitar() -> Samples:
    """Three chords, each strummed down, up and down. Samples [48000] in [-1, 1]."""
    rng = np.random.default_rng(5)
    track = _silence()
    for bar, chord in enumerate((G_MAJOR, C_MAJOR, D_MAJOR)):
        for beat, strings in ((0.0, chord), (0.5, chord[::-1]), (0.75, chord)):
            for index, hz in enumerate(strings):
                gain = (0.6 if beat else 0.9) * rng.uniform(0.8, 1.0)
                _add(track, _string(hz, 1.6, rng), 0.03 + 0.98 * bar + beat + 0.018 * index, gain)
    resonant = track + sum(gain * sosfilt(_band(hz, q), track) for hz, q, gain in BODY)
    return _in_a_room(resonant, decay=0.35, wet=0.08)


def drums() -> Samples:
    """One bar of kick, snare and hi-hat, and a fill on three toms. Samples [48000] in [-1, 1]."""
    rng = np.random.default_rng(4)
    track = _silence()
    pattern: tuple[tuple[Callable[[np.random.Generator], Samples], Sequence[int]], ...] = (
        (_kick, (0, 6, 8, 16)),
        (_snare, (4, 12)),
        (_hat, range(0, 17, 2)),
    )
    for hit, steps in pattern:
        for step in steps:
            _add(track, hit(rng), 0.03 + step * STEP, rng.uniform(0.85, 1.0))
    for step, hz in ((17, 180.0), (18, 180.0), (19, 140.0), (20, 100.0)):
        _add(track, _tom(hz, rng), 0.03 + step * STEP, 1.0)
    return _in_a_room(track, decay=0.4, wet=0.2)


def _silence() -> Samples:
    return np.zeros(int(RATE * SECONDS))


def _time(seconds: float) -> Samples:
    return np.arange(int(RATE * seconds)) / RATE


def _add(track: Samples, sound: Samples, start: float, gain: float) -> None:
    """Mix a sound into the track, in place; what lies behind its end is cut off."""
    first = int(start * RATE)
    room = track[first : first + len(sound)]
    room += gain * sound[: len(room)]


def _string(hz: float, seconds: float, rng: np.random.Generator) -> Samples:
    """A string plucked near the bridge: a loop of noise that at every turn loses 0.35 % and more of what is high."""
    period = RATE / hz - DAMPING
    delay = int(period)
    fraction = period - delay
    pluck = lfilter([0.6], [1, -0.4], rng.uniform(-1, 1, delay))
    pluck -= np.roll(pluck, max(1, int(0.08 * delay)))
    loop = np.zeros(delay + 3)
    loop[0] = 1
    loop[delay:] -= 0.9965 * np.convolve([1 - DAMPING, DAMPING], [1 - fraction, fraction])
    return lfilter([1], loop, np.pad(pluck, (0, int(seconds * RATE) - delay)))


def _kick(rng: np.random.Generator) -> Samples:
    t = _time(0.4)
    falling = np.cumsum(50 + 90 * np.exp(-30 * t)) / RATE
    return np.sin(2 * np.pi * falling) * np.exp(-9 * t) + 0.2 * rng.standard_normal(len(t)) * np.exp(-250 * t)


def _snare(rng: np.random.Generator) -> Samples:
    t = _time(0.3)
    wires = sosfilt(_high(1200, 2), rng.standard_normal(len(t))) * np.exp(-17 * t)
    return 0.7 * _membrane(t, 185, decay=18, step=4) + 0.55 * wires


def _hat(rng: np.random.Generator) -> Samples:
    t = _time(0.25)
    metal = sum(np.sign(np.sin(2 * np.pi * hz * t)) for hz in (410.6, 608.8, 739.2, 1045.4, 1600.0, 1080.0))
    return 0.45 * sosfilt(_high(6000, 4), metal / 6 + rng.standard_normal(len(t))) * np.exp(-45 * t)


def _tom(hz: float, rng: np.random.Generator) -> Samples:
    t = _time(0.5)
    return _membrane(t, hz, decay=8, step=5) + 0.2 * rng.standard_normal(len(t)) * np.exp(-120 * t)


def _membrane(t: Samples, hz: float, *, decay: float, step: float) -> Samples:
    """A struck drumhead, whose pitch falls by 5 % as its tension does; higher modes die sooner."""
    bent = t * (1 + 0.05 * np.exp(-20 * t))
    modes = (
        0.8 / (k + 1) * np.sin(2 * np.pi * hz * ratio * bent) * np.exp(-(decay + step * k) * t)
        for k, ratio in enumerate(MEMBRANE)
    )
    return np.sum(list(modes), axis=0)


def _band(hz: float, q: float) -> NDArray[np.float64]:
    return butter(2, [hz / (1 + 0.5 / q), hz * (1 + 0.5 / q)], "band", fs=RATE, output="sos")


def _high(hz: float, order: int) -> NDArray[np.float64]:
    return butter(order, hz, "high", fs=RATE, output="sos")


def _in_a_room(track: Samples, *, decay: float, wet: float) -> Samples:
    """The track with a reverberation that falls by 60 dB in `decay` seconds, with a peak of 0.7."""
    t = _time(1.5 * decay)
    tail = lfilter([0.5], [1, -0.5], np.random.default_rng(1).standard_normal(len(t)) * 10 ** (-3 * t / decay))
    heard = track + wet * fftconvolve(track, tail / np.linalg.norm(tail))[: len(track)]
    return 0.7 * heard / np.abs(heard).max()
