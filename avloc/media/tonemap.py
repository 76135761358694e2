"""Tone-map HDR pictures (PQ or HLG) for an SDR display.

Steps, with light in units of reference white:

1. Signal to display light. PQ: SMPTE ST 2084. HLG: ARIB STD-B67 with the system gamma of ITU-R BT.2100, for a display
   of 1000 cd/m2. Reference white is 203 cd/m2 in both (ITU-R BT.2408).
2. The file's primaries, mostly ITU-R BT.2020, to BT.709.
3. Tone curve, applied to the maximum of R, G and B; the other two are scaled by the same factor, which keeps the hue.
   It is the identity up to the knee, then a Möbius transform to 1 at the peak, as `mobius` of FFmpeg's filter
   `tonemap`. With this knee greys differ by at most 4 of 255 levels from ITU-R BT.2390 (EETF) with the same ranges.
4. Light to signal: the inverse of ITU-R BT.1886, a power of 1/2.4. Out-of-gamut values are clipped.

The file's own peak brightness is not used: it is often missing or wrong, and would make the curve vary between files.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

BT709, BT2020, P3_D65 = 1, 9, 12
PQ, HLG = 16, 18
"""FFmpeg's codes of primaries and of transfer functions."""
REFERENCE_WHITE = 203.0
PEAK = 1000.0 / REFERENCE_WHITE
"""Light that maps to white: 1000 cd/m2, the peak for which most HDR video is graded."""
KNEE = 0.55

_D65 = (0.3127, 0.3290)
_CHROMATICITIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    P3_D65: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_SIGNALS = 1 << 16
_ROOTS = 1 << 12
"""Entries of the table of step 4, indexed by the square root of light for precision at dark levels."""
_STRIP = 1 << 15
"""Pixels processed at a time, which fit into the CPU cache."""


def to_sdr(signal: NDArray[np.uint16], *, transfer: int, primaries: int, white: int) -> NDArray[np.uint8]:
    """SDR RGB with BT.709 primaries and BT.1886 gamma.

    Args:
        signal: [H, W, 3] RGB.
        transfer: `PQ` or `HLG`.
        primaries: FFmpeg's code; unknown ones count as BT.2020.
        white: signal value of nominal white.
    """
    light_of = _signal_to_light(transfer, white)
    source = _to_xyz(primaries)
    matrix = np.linalg.solve(_to_xyz(BT709), source).astype(np.float32)
    pixels = signal.reshape(-1, 3)
    shown = np.empty(pixels.shape, np.uint8)
    for start in range(0, len(pixels), _STRIP):
        light_3N = light_of[pixels[start : start + _STRIP].T]
        if transfer == HLG:
            light_3N *= hlg_system_gain(source[1].astype(np.float32) @ light_3N)
        light_3N = matrix @ light_3N
        light_3N *= tone_gain(light_3N.max(axis=0))
        shown[start : start + _STRIP] = light_to_signal(light_3N).T
    return shown.reshape(signal.shape)


def pq_to_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084: signal in [0, 1] to display light."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = signal ** (1 / m2)
    return (np.maximum(power - c1, 0.0) / (c2 - c3 * power)) ** (1 / m1) * (10_000 / REFERENCE_WHITE)


def hlg_to_scene(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """ARIB STD-B67: signal in [0, 1] to scene light in [0, 1]."""
    a = 0.17883277
    b = 1 - 4 * a
    c = 0.5 - a * np.log(4 * a)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def hlg_system_gain(luminance: NDArray[np.float32]) -> NDArray[np.float32]:
    """BT.2100: the factor from scene light to the light of a 1000 cd/m2 display (system gamma 1.2)."""
    return PEAK * luminance ** np.float32(0.2)


def tone_gain(brightest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Factor that tone-maps a pixel, given the maximum of its three channels; at most 1."""
    bend = (KNEE**2 - 2 * KNEE * PEAK + PEAK) / (PEAK - 1)  # the curve is 1 at the peak; its slope is 1 at the knee
    light: NDArray[np.float32] = np.maximum(brightest, KNEE)
    curve: NDArray[np.float32] = np.minimum(2 * KNEE + bend - (KNEE + bend) ** 2 / (light + bend), 1.0)
    return curve / light


def light_to_signal(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The inverse of BT.1886: light, clipped to [0, 1], to 8 bits."""
    roots = np.sqrt(np.clip(light, 0.0, 1.0)) * (_ROOTS - 1) + 0.5
    return _root_to_signal()[roots.astype(np.uint16)]


@cache
def _signal_to_light(transfer: int, white: int) -> NDArray[np.float32]:
    signal = np.minimum(np.arange(_SIGNALS) / white, 1.0)
    return (pq_to_light(signal) if transfer == PQ else hlg_to_scene(signal)).astype(np.float32)


@cache
def _root_to_signal() -> NDArray[np.uint8]:
    light = (np.arange(_ROOTS) / (_ROOTS - 1)) ** 2
    return np.round(255 * light ** (1 / 2.4)).astype(np.uint8)


def _to_xyz(primaries: int) -> NDArray[np.float64]:
    """The matrix from RGB to CIE XYZ; its middle row gives luminance."""
    points = (*_CHROMATICITIES.get(primaries, _CHROMATICITIES[BT2020]), _D65)
    red, green, blue, white = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in points)
    columns = np.stack([red, green, blue], axis=1)
    return columns * np.linalg.solve(columns, white)
