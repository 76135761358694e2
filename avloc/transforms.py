"""Waveforms to log-spectrograms, frames to network input, random crops: batched, on whatever device the tensors are.

Shape letters: B batch, N samples, F frequency bins, T spectrogram frames, H W pixels.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avloc.errors import UsageError

WINDOW = 512  # samples of one spectrogram frame
HOP = 238  # samples between frames: 512 - 274, AVC's "around 50 %" overlap
TUKEY_ALPHA = 0.25
LOG_FLOOR = 1e-7
LOG_SCALE = 12.0  # the reference divides the natural log by a standard deviation of 12
INT16_SCALE = 32_767.0

MEL_RATE = 16_000  # Hz; what YAMNet and VGGish hear
MEL_WINDOW = 400  # samples: 25 ms
MEL_HOP = 160  # samples: 10 ms
MEL_FFT = 512
MEL_BANDS = 64
MEL_EDGES_HZ = (125.0, 7_500.0)  # lower edge of the first band, upper edge of the last
MEL_PER_NEPER, MEL_CORNER_HZ = 1_127.0, 700.0  # the HTK scale: 1127 ln(1 + f / 700)
MEL_OFFSET = 0.001  # YAMNet's, added before the logarithm; VGGish adds 0.01

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def tukey_window() -> Tensor:
    """[512] periodic Tukey window with alpha 0.25, float64; the sum of its squares is 432."""
    position = torch.arange(WINDOW, dtype=torch.float64)
    taper = TUKEY_ALPHA * WINDOW / 2
    edge = torch.minimum(position, WINDOW - position)
    ramp = 0.5 * (1 - torch.cos(torch.pi * edge / taper))
    return torch.where(edge < taper, ramp, torch.ones_like(ramp))


def log_spectrogram(sound_BN: Tensor, rate: int) -> Tensor:
    """Log power density over 12, as AVC and EZ-VSL compute it with SciPy's `spectrogram`.

    Args:
        sound_BN: float waveforms in [-1, 1]; N >= 512.
        rate: sample rate in Hz.

    Returns:
        [B, 1, 257, 1 + (N - 512) // 238] float32: ln(P + 1e-7) / 12 of the one-sided density P in 1/Hz, each frame
        freed of its own mean. 3 s give 276 frames at 22 050 Hz and 554 at 44 100 Hz.

    Source: AVC `datasets.py`; the formula replaces SciPy's legacy function, to which it is equal.
    """
    window = tukey_window()
    density_scale = 1.0 / (rate * float(window.square().sum()))
    frames = sound_BN.float().unfold(-1, WINDOW, HOP)
    frames = frames - frames.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(frames * window.to(frames))
    power = spectrum.real.square() + spectrum.imag.square()
    sides = torch.full((WINDOW // 2 + 1,), 2.0, device=power.device)
    sides[0] = sides[-1] = 1.0  # DC and Nyquist have no mirror image
    log = torch.log(power * (sides * density_scale) + LOG_FLOOR) / LOG_SCALE
    return log.transpose(-1, -2).unsqueeze(1)


def log_mel(sound_BN: Tensor, rate: int, *, offset: float = MEL_OFFSET) -> Tensor:
    """Natural log of mel band magnitudes, as YAMNet hears: frequency down, time across.

    Args:
        sound_BN: float waveforms in [-1, 1]; N >= 400.
        rate: sample rate in Hz; only 16 000 will do, since bands and weights were made for it.
        offset: added to the magnitudes: 0.001 for YAMNet, 0.01 for VGGish.

    Returns:
        [B, 1, 64, 1 + (N - 400) // 160] float32. 3 s give 298 frames; YAMNet's 15 600 samples give its 96.

    Raises:
        UsageError: another rate.

    Source: `features.py` and `params.py` of YAMNet (tensorflow/models, research/audioset); same values, own code.
    """
    if rate != MEL_RATE:
        raise UsageError(
            f"mel bands are made of sound at {MEL_RATE} Hz, not {rate}",
            hint=f"Set model.rate={MEL_RATE}, or resample first.",
        )
    window = torch.hann_window(MEL_WINDOW, periodic=True, device=sound_BN.device)
    frames = sound_BN.float().unfold(-1, MEL_WINDOW, MEL_HOP)
    magnitude = torch.fft.rfft(frames * window, n=MEL_FFT).abs()
    with _full_precision(sound_BN.device):
        bands = magnitude @ mel_bands().to(magnitude)
    return torch.log(bands + offset).transpose(-1, -2).unsqueeze(1)


def mel_bands() -> Tensor:
    """[257, 64] float64: what each frequency bin gives to each band, triangles on the HTK mel scale.

    Band k rises from edge k to 1 at edge k + 1 and falls to 0 at edge k + 2, linearly in mel, not in Hz.
    """
    bins_hz = torch.linspace(0, MEL_RATE / 2, MEL_FFT // 2 + 1, dtype=torch.float64)
    bins = MEL_PER_NEPER * torch.log1p(bins_hz / MEL_CORNER_HZ)
    low, high = (MEL_PER_NEPER * math.log1p(edge_hz / MEL_CORNER_HZ) for edge_hz in MEL_EDGES_HZ)
    edges = torch.linspace(low, high, MEL_BANDS + 2, dtype=torch.float64)
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp_min(0)


def _full_precision(device: torch.device) -> AbstractContextManager[None]:
    """No autocast here: quiet bands would drown in the rounding of bfloat16."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def int16_to_float(sound: Tensor) -> Tensor:
    """Stored int16 samples as float32 in [-1, 1]; the reference divides by 32767 and clips."""
    return (sound.float() / INT16_SCALE).clamp(-1, 1)


def normalise_frames(frames_B3HW: Tensor) -> Tensor:
    """uint8 RGB to float32 with ImageNet's mean and deviation taken out."""
    mean = torch.tensor(IMAGENET_MEAN, device=frames_B3HW.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=frames_B3HW.device).view(3, 1, 1)
    return (frames_B3HW.float() / 255 - mean) / std


@dataclass(frozen=True, kw_only=True)
class Crops:
    """One square crop per sample: `left`, `top` [B] int64 in pixels, `flip` [B] bool, common `side` in pixels."""

    left: Tensor
    top: Tensor
    flip: Tensor
    side: int


def draw_crops(sizes_B2: Tensor, side: int, flip: float, generator: torch.Generator) -> Crops:
    """Draw a crop and a flip for each sample, independently of device and batch neighbours.

    Args:
        sizes_B2: height and width of each frame in pixels, on the CPU; neither below `side`.
        side: side of the crop in pixels.
        flip: probability of a horizontal flip.
        generator: CPU generator.
    """
    uniform = torch.rand((len(sizes_B2), 3), generator=generator)
    room = sizes_B2 - side + 1
    corner = torch.minimum((uniform[:, :2] * room).long(), room - 1)
    return Crops(left=corner[:, 1], top=corner[:, 0], flip=uniform[:, 2] < flip, side=side)


def crop_frames(frames_B3HW: Tensor, crops: Crops) -> Tensor:
    """Cut the crops out of frames that were padded to a common size; no resampling. [B, 3, side, side]."""
    device = frames_B3HW.device
    step = torch.arange(crops.side)
    across = torch.where(crops.flip[:, None], step.flip(0), step)
    rows = (crops.top[:, None] + step)[:, :, None].to(device)
    columns = (crops.left[:, None] + across)[:, None, :].to(device)
    sample = torch.arange(len(frames_B3HW), device=device)[:, None, None]
    return frames_B3HW.permute(0, 2, 3, 1)[sample, rows, columns].permute(0, 3, 1, 2)


def crop_maps(maps: Tensor, crops: Crops, sizes_B2: Tensor) -> Tensor:
    """Give maps of the whole frame the same crop and flip as the frames, bilinearly, at their own resolution.

    Values are kept, not renormalised: they are densities over the frame, and the student's map is compared cell by
    cell. The published code leaves the maps uncropped (`augment.map = legacy`).

    Args:
        maps: one map per sample that covers its whole frame, [B, h, w], or [B, C, h, w] with several channels.
        crops: what was cut out of the frames.
        sizes_B2: height and width in pixels of the frames that were cropped.
    """
    height, width = sizes_B2.float().unbind(1)
    half_w, half_h = crops.side / width, crops.side / height  # half extents in [-1, 1] coordinates
    centre_x = (2 * crops.left + crops.side) / width - 1
    centre_y = (2 * crops.top + crops.side) / height - 1
    zero = torch.zeros_like(half_w)
    signed_w = torch.where(crops.flip, -half_w, half_w)
    theta = torch.stack([signed_w, zero, centre_x, zero, half_h, centre_y], 1).view(-1, 2, 3).to(maps)
    channels = maps if maps.dim() == 4 else maps.unsqueeze(1)
    grid = F.affine_grid(theta, list(channels.shape), align_corners=False)
    cut = F.grid_sample(channels, grid, padding_mode="border", align_corners=False)
    return cut.reshape(maps.shape)
