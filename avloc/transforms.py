"""Waveforms to log-spectrograms, frames to network input, random crops: batched, on the device of the tensors.

Shape letters: B batch, N samples, F frequency bins, T spectrogram frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from avloc.errors import UsageError

WINDOW = 512  # samples of one spectrogram frame
HOP = 238  # samples between frames: 512 - 274, AVC's "around 50 %" overlap
TUKEY_ALPHA = 0.25
WINDOW_POWER = 432.0  # sum of the squares of the window
LOG_FLOOR = 1e-7
LOG_SCALE = 12.0  # the reference divides the natural log by a standard deviation of 12
INT16_SCALE = 32_767.0

MEL_RATE = 16_000  # Hz; input of YAMNet and VGGish
MEL_WINDOW = 400  # samples: 25 ms
MEL_HOP = 160  # samples: 10 ms
MEL_FFT = 512
MEL_BANDS = 64
MEL_EDGES_HZ = (125.0, 7_500.0)  # lower edge of the first band, upper edge of the last
MEL_PER_NEPER, MEL_CORNER_HZ = 1_127.0, 700.0  # the HTK scale: 1127 ln(1 + f / 700)
MEL_OFFSET = 0.001  # YAMNet's, added before the logarithm; VGGish adds 0.01

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. A copy to a GPU is from pinned memory, which the host does not wait for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def constant(make: Callable[[], Tensor], like: Tensor) -> Tensor:
    """`make()` in the dtype and on the device of `like`; computed and copied once for each of them."""
    known = _known if type(like) is Tensor else _computed  # a fake tensor belongs to one `FakeTensorMode`
    return known(make, like.dtype, like.device)


def _computed(make: Callable[[], Tensor], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False), torch.device("cpu"):  # usable in training, and on the CPU for `to`
        return make().to(dtype).to(device)


_known = cache(_computed)


def tukey_window() -> Tensor:
    """[512] periodic Tukey window with alpha 0.25, float64; the sum of its squares is `WINDOW_POWER`."""
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
        [B, 1, 257, 1 + (N - 512) // 238] float32: ln(P + 1e-7) / 12 of the one-sided density P in 1/Hz of each frame
        less its mean. 3 s give 276 frames at 22 050 Hz and 554 at 44 100 Hz.

    Source: AVC `datasets.py`; the formula replaces SciPy's legacy function, to which it is equal.
    """
    frames = sound_BN.float().unfold(-1, WINDOW, HOP)
    frames = frames - frames.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(frames * constant(tukey_window, frames))
    power = spectrum.real.square() + spectrum.imag.square()
    density = constant(_sides, power) * (1.0 / (rate * WINDOW_POWER))
    log = torch.log(power * density + LOG_FLOOR) / LOG_SCALE
    return log.transpose(-1, -2).unsqueeze(1)


def _sides() -> Tensor:
    """[257] how often each frequency occurs in the two-sided spectrum: DC and Nyquist have no mirror image."""
    sides = torch.full((WINDOW // 2 + 1,), 2.0)
    sides[0] = sides[-1] = 1.0
    return sides


def log_mel(sound_BN: Tensor, rate: int, *, offset: float = MEL_OFFSET) -> Tensor:
    """Log-mel spectrogram, the input of YAMNet: natural log of mel band magnitudes.

    Args:
        sound_BN: float waveforms in [-1, 1]; N >= 400.
        rate: sample rate in Hz; 16 000 is the only valid one.
        offset: added to the magnitudes: 0.001 for YAMNet, 0.01 for VGGish.

    Returns:
        [B, 1, 64, 1 + (N - 400) // 160] float32. 3 s give 298 frames; YAMNet's 15 600 samples give its 96.

    Raises:
        UsageError: another rate.

    Source: `features.py` and `params.py` of YAMNet (tensorflow/models, research/audioset); same values, own code.
    """
    if rate != MEL_RATE:
        raise UsageError(
            f"log-mel spectrograms need audio at {MEL_RATE} Hz, not {rate}",
            hint=f"Set model.rate={MEL_RATE}, or resample first.",
        )
    frames = sound_BN.float().unfold(-1, MEL_WINDOW, MEL_HOP)
    magnitude = torch.fft.rfft(frames * constant(_hann_window, frames), n=MEL_FFT).abs()
    device = sound_BN.device.type
    # No autocast: bfloat16 would round quiet bands to 0.
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        bands = magnitude @ constant(mel_bands, magnitude)
    return torch.log(bands + offset).transpose(-1, -2).unsqueeze(1)


def _hann_window() -> Tensor:
    return torch.hann_window(MEL_WINDOW, periodic=True)


def mel_bands() -> Tensor:
    """[257, 64] float64: weight of each frequency bin in each band, triangles on the HTK mel scale.

    Band k rises from edge k to 1 at edge k + 1 and falls to 0 at edge k + 2, linearly in mel, not in Hz.
    """
    bins_hz = torch.linspace(0, MEL_RATE / 2, MEL_FFT // 2 + 1, dtype=torch.float64)
    bins = MEL_PER_NEPER * torch.log1p(bins_hz / MEL_CORNER_HZ)
    low, high = (MEL_PER_NEPER * math.log1p(edge_hz / MEL_CORNER_HZ) for edge_hz in MEL_EDGES_HZ)
    edges = torch.linspace(low, high, MEL_BANDS + 2, dtype=torch.float64)
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp_min(0)


def int16_to_float(sound: Tensor) -> Tensor:
    """Stored int16 samples as float32 in [-1, 1]; the reference divides by 32767 and clips."""
    return (sound.float() / INT16_SCALE).clamp(-1, 1)


def normalise_frames(frames_B3HW: Tensor) -> Tensor:
    """RGB in [0, 255] to float32, normalised by ImageNet's mean and standard deviation."""
    frames = frames_B3HW.float()
    return (frames / 255 - constant(_imagenet_mean, frames)) / constant(_imagenet_std, frames)


def _imagenet_mean() -> Tensor:
    return torch.tensor(IMAGENET_MEAN).view(3, 1, 1)


def _imagenet_std() -> Tensor:
    return torch.tensor(IMAGENET_STD).view(3, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Crops:
    """One square crop per sample, in fractions of its frame: left and upper edge, width and height, each [B] float32.

    `flip` [B] bool: mirrored left to right. `side`: pixels of the square that every crop becomes.
    """

    left: Tensor
    top: Tensor
    width: Tensor
    height: Tensor
    flip: Tensor
    side: int

    def to(self, device: torch.device) -> Crops:
        """The same crops on a device, in one copy."""
        numbers = torch.stack([self.left, self.top, self.width, self.height, self.flip.float()])
        left, top, width, height, flip = on_device(numbers, device)
        return replace(self, left=left, top=top, width=width, height=height, flip=flip > 0)


def draw_crops(sizes_B2: Tensor, side: int, scale: float, flip: float, uniform_B3: Tensor) -> Crops:
    """A crop and a flip for each sample, independent of the device and of the rest of the batch.

    As in the published loaders: `side` pixels, at whole pixels of a frame whose shorter side is `side * scale` pixels,
    rounded down; the frame itself is not resized. `sizes_B2` holds its height and width in pixels, `uniform_B3` draws
    from [0, 1): down, across, and flip, compared with the probability `flip`. Both are on the CPU.
    """
    shorter = int(side * scale)
    sizes = sizes_B2[:, :2].double()
    resized = (sizes * (shorter / sizes.amin(1, keepdim=True))).round().clamp_min(shorter)
    room = resized - side + 1
    corner = torch.minimum((uniform_B3[:, :2] * room).floor(), room - 1)
    (top, left), (height, width) = (corner / resized).float().unbind(1), (side / resized).float().unbind(1)
    return Crops(left=left, top=top, width=width, height=height, flip=uniform_B3[:, 2] < flip, side=side)


def crop_bounds(sizes_B2: Tensor, side: int, scale: float, uniform_BV3: Tensor) -> Tensor:
    """Part of each frame that `crop_frames` needs for the V crops that `draw_crops` draws from `uniform_BV3`.

    Returns:
        [B, 4] int64: first row and column; last row and column, exclusive, which may lie outside of the frame.
    """
    views = [draw_crops(sizes_B2, side, scale, 0.0, uniform) for uniform in uniform_BV3.unbind(1)]
    starts = torch.stack([torch.stack([crops.top, crops.left], 1) for crops in views]).amin(0)
    ends = torch.stack([torch.stack([crops.top + crops.height, crops.left + crops.width], 1) for crops in views])
    # A pixel more on each side than bilinear sampling needs, because places are rounded.
    first, last = (starts * sizes_B2).floor() - 1, (ends.amax(0) * sizes_B2).ceil() + 1
    return torch.cat([first.clamp_min(0), last], 1).long()


_AT_ONCE = 16  # frames converted to float at a time, to bound memory


def crop_frames(frames_B3HW: Tensor, sizes_B2: Tensor, crops: Crops) -> Tensor:
    """Crop frames that were padded to a common size, and resize the crops to their side (bilinear).

    The frames are uint8, padded at the right and below; `sizes_B2` are height and width before padding. Of frames that
    are only the part of a larger one that holds the crop, `sizes_B2` is [B, 4]: height and width of the larger one, and
    the row and column at which the part begins. All are on one device, where the sampling grid is computed.

    Returns:
        [B, 3, side, side] float32 in [0, 255]; equal to the pixels where crop and frame have the same scale.
    """
    parts = zip(
        torch.split(frames_B3HW, _AT_ONCE),
        torch.split(_pixel_grid(crops, sizes_B2, frames_B3HW), _AT_ONCE),
        strict=True,
    )
    return torch.cat([_sampled(frames.float(), places) for frames, places in parts])


def _sampled(images_BCHW: Tensor, grid_BHW2: Tensor, mode: str = "bilinear") -> Tensor:
    """Images sampled at x and y in [-1, 1]; outside of them their border is replicated."""
    padding = "border"
    if images_BCHW.device.type == "mps" and mode != "bicubic":  # where PyTorch before 2.13 has zeros only
        grid_BHW2, padding = inside(grid_BHW2, *images_BCHW.shape[2:]), "zeros"
    return F.grid_sample(images_BCHW, grid_BHW2, mode=mode, padding_mode=padding, align_corners=False)


def inside(grid_BHW2: Tensor, height: int, width: int) -> Tensor:
    """The sampling grid, clamped to the centres of the outer pixels of an image."""
    limits = zip(grid_BHW2.unbind(-1), (1 - 1 / width, 1 - 1 / height), strict=True)
    return torch.stack([places.clamp(-limit, limit) for places, limit in limits], -1)


def _pixel_grid(crops: Crops, sizes_B2: Tensor, padded: Tensor) -> Tensor:
    """Sampling grid of crops in padded frames, [B, side, side, 2]: x and y in [-1, 1], never in the padding."""
    step = (torch.arange(crops.side, device=padded.device) + 0.5) / crops.side
    across = torch.where(crops.flip[:, None], 1 - step, step)
    shares = (crops.top[:, None] + crops.height[:, None] * step, crops.left[:, None] + crops.width[:, None] * across)
    places = []
    for axis, share in enumerate(shares):
        length = sizes_B2[:, axis, None]
        pixel = torch.minimum((share * length - 0.5).clamp_min(0), length - 1.0)
        pixel = pixel - sizes_B2[:, 2 + axis, None] if sizes_B2.shape[1] > 2 else pixel
        places.append((2 * pixel + 1) / padded.shape[axis - 2] - 1)
    down, right = places
    shape = (len(down), crops.side, crops.side)
    return torch.stack([right[:, None, :].expand(shape), down[:, :, None].expand(shape)], -1)


def crop_labels(labels_BHW: Tensor, crops: Crops, mode: str = "nearest") -> Tensor:
    """Crop uint8 label maps of whole frames, and resize the crops to their side; all are on one device.

    `mode` is `nearest`, or `bicubic` with rounding, which makes new labels.
    """
    sizes = torch.stack([torch.full_like(crops.left, length) for length in labels_BHW.shape[1:]], 1)
    grid = _pixel_grid(crops, sizes, labels_BHW)
    cut = _sampled(labels_BHW[:, None].float(), grid, mode)
    return cut[:, 0].round().clamp(0, 255).to(torch.uint8)


def crop_maps(maps: Tensor, crops: Crops) -> Tensor:
    """Crop and flip maps of whole frames like the frames (bilinear), at their own resolution; all are on one device.

    Maps are [B, h, w] or [B, C, h, w]. Values are not renormalised: they are densities over the frame. The published
    code leaves the maps uncropped (`augment.map = legacy`).
    """
    centre_x = 2 * crops.left + crops.width - 1  # in [-1, 1] coordinates, of which the extents are half the fractions
    centre_y = 2 * crops.top + crops.height - 1
    zero = torch.zeros_like(crops.width)
    signed_w = torch.where(crops.flip, -crops.width, crops.width)
    theta = torch.stack([signed_w, zero, centre_x, zero, crops.height, centre_y], 1).view(-1, 2, 3).to(maps)
    channels = maps if maps.dim() == 4 else maps.unsqueeze(1)
    grid = F.affine_grid(theta, list(channels.shape), align_corners=False)
    return _sampled(channels, grid).reshape(maps.shape)
