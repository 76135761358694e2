"""Sounds as a microphone in a room records them: shifted, reverberant, under other sounds and noise, quiet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from avloc.errors import InputError
from tests.recipe.pairs import read_pairs
from tests.recipe.split import Classes

RATE = 22_050
SECONDS = 3.0
SAMPLES = int(RATE * SECONDS)
Waveform = NDArray[np.float32]
_FFT = 1 << 17
"""Samples of a transform that holds a sound and its longest echo."""
_TINY = 1e-6


@dataclass
class Sounds:
    """Sounds of one part of the split, decoded once."""

    classes: Classes
    pool: Mapping[str, Sequence[str]]
    """Sound class -> sounds."""
    _kept: dict[str, Waveform] = field(default_factory=dict)

    def whole(self, path: str) -> Waveform:
        """A sound as `read_sound` returns it."""
        if path not in self._kept:
            self._kept[path] = read_sound(self.classes.data / path)
        return self._kept[path]

    def any_of(self, kind: str, rng: np.random.Generator) -> Waveform:
        """3 s of a sound of a class."""
        return self.part_of(self.pool[kind][rng.integers(len(self.pool[kind]))], rng)

    def part_of(self, path: str, rng: np.random.Generator) -> Waveform:
        """3 s of a sound, from anywhere in it."""
        whole = self.whole(path)
        start = rng.integers(len(whole) - SAMPLES + 1)
        return whole[start : start + SAMPLES]

    def fitting(self, kind: str) -> list[str]:
        """Sound classes of this part that pictures of a class are paired with."""
        return [name for name in read_pairs().fits[kind] if name in self.pool]

    def draw(self, names: Sequence[str], rng: np.random.Generator) -> str:
        """One of some sound classes, as likely as the square root of the number of its sounds."""
        if len(names) == 1:
            return names[0]
        weights = np.sqrt([len(self.pool[name]) for name in names])
        return names[rng.choice(len(names), p=weights / weights.sum())]

    def any_kind(self, rng: np.random.Generator) -> str:
        """A sound class, each as likely as the others."""
        kinds = sorted(self.pool)
        return kinds[rng.integers(len(kinds))]


def read_sound(path: Path) -> Waveform:
    """A sound file at 22 050 Hz; a short one is repeated to 3 s.

    Raises:
        InputError: it has another rate.
    """
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != RATE:
        raise InputError(f"{path} has {rate} Hz; {RATE} are wanted")
    mono: Waveform = samples.mean(1)
    return np.resize(mono, max(SAMPLES, len(mono)))


def noise(rng: np.random.Generator) -> Waveform:
    """White or brown noise with a mean square of 1."""
    samples = rng.standard_normal(SAMPLES)
    if rng.random() < 0.5:
        samples = np.cumsum(samples)
    samples -= samples.mean()
    return (samples / samples.std()).astype(np.float32)


def only_noise(rng: np.random.Generator) -> Waveform:
    """Audible noise of any loudness."""
    return np.clip(noise(rng) * _gain(-rng.uniform(10, 60)), -1, 1).astype(np.float32)


def in_a_room(sound: Waveform, sounds: Sounds, rng: np.random.Generator) -> Waveform:
    """The same sound under other circumstances."""
    samples: NDArray[np.floating] = np.roll(sound, rng.integers(SAMPLES)) if rng.random() < 0.5 else sound
    if rng.random() < 0.4:
        samples = _echoing(samples, rng)
    level = loudness(samples)
    if rng.random() < 0.5:
        other = sounds.any_of(sounds.any_kind(rng), rng)
        samples = samples + other / loudness(other) * level * _gain(-rng.uniform(6, 20))
    if rng.random() < 0.5:
        samples = samples + noise(rng) * level * _gain(-rng.uniform(8, 30))
    loudest = np.abs(samples).max() + _TINY
    return (samples / loudest * _gain(-rng.uniform(0, 30))).astype(np.float32)


def _echoing(samples: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.floating]:
    length = int(RATE * rng.uniform(0.1, 0.6))
    response = rng.standard_normal(length) * np.exp(-np.arange(length) / (length / 5))
    response[0] += rng.uniform(2, 8)
    return np.fft.irfft(np.fft.rfft(samples, _FFT) * np.fft.rfft(response, _FFT))[:SAMPLES]


def together(one: Waveform, other: Waveform) -> Waveform:
    """Two sounds at once, equally loud."""
    samples = one / loudness(one) + other / loudness(other)
    return (0.9 * samples / (np.abs(samples).max() + _TINY)).astype(np.float32)


def loudness(samples: NDArray[np.floating]) -> float:
    """Root mean square; never 0."""
    return float(np.sqrt(np.square(samples).mean())) + _TINY


def _gain(decibels: float) -> float:
    return 10 ** (decibels / 20)
