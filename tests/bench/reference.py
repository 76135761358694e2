"""Reimplementation of the published recipe of AVC (Yaghoubi et al., 2023) and EZ-VSL, without optimisations.

What each piece reimplements:

* `log_spectrogram`: SciPy's `spectrogram` with windows of 512 samples that overlap by 274, ln(P + 1e-7), divided by 12.
* `ReferenceClips`: one picture file and one sound file per clip, decoded for each item; shorter side to int(1.1 * 224)
  (bicubic), random crop, flip, ImageNet's mean and deviation; two `.npy` files per clip for the hints, the map not
  cropped along with the picture. Two steps are omitted because they only cost time: the scripts decode the sound eleven
  times if its spectrogram is not 554 wide, and replace a clip that fails by another one.
* `ReferenceNet`: two ResNet18 with projections into 2048 dimensions, under the published key names; float32, NCHW.
* `all_pairs`, `contrastive`: similarity of every cell of every picture with every sound, divided by 0.03, then the
  maximum of each map, then the sum of two cross-entropies.
* `distillation`: squared errors times 1000 and 100000; all channels are resized to 25 x 25 before their mean is taken,
  rows with a NaN are left out of the visual term.
* `training_step`: Adam with 1e-4, no schedule, no mixed precision.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
import torch
import torch.nn.functional as F
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms

SIDE = 224
TAU = 0.03
SECONDS = 3.0
AUDIO_WEIGHT, VISUAL_WEIGHT = 1_000.0, 100_000.0
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BICUBIC = transforms.InterpolationMode.BICUBIC


def log_spectrogram(waveform: NDArray[np.floating], rate: int) -> Tensor:
    """[1, 257, T] float32 of one waveform in [-1, 1]."""
    _, _, power = scipy.signal.spectrogram(waveform, rate, nperseg=512, noverlap=274)
    return torch.from_numpy(np.log(power + 1e-7) / 12).float()[None]


def read_sound(path: Path) -> tuple[NDArray[np.float32], int]:
    """The middle three seconds, repeated if shorter, and the sample rate."""
    waveform, rate = soundfile.read(path, dtype="float32")
    wanted = int(rate * SECONDS)
    start = max((len(waveform) - wanted) // 2, 0)
    waveform = waveform[start : start + wanted]
    if len(waveform) < wanted:
        waveform = np.tile(waveform, wanted // len(waveform) + 1)[:wanted]
    return np.clip(waveform, -1, 1), rate


def training_transform() -> transforms.Compose:
    """Transform of training images."""
    return transforms.Compose(
        [
            transforms.Resize(int(SIDE * 1.1), BICUBIC),
            transforms.RandomCrop(SIDE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, DEVIATION),
        ]
    )


def test_transform() -> transforms.Compose:
    """Transform of test images."""
    return transforms.Compose(
        [transforms.Resize((SIDE, SIDE), BICUBIC), transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)]
    )


test_transform.__test__ = False  # pytest: not a test


@dataclass(frozen=True)
class Loaded:
    """A batch of the reference's loader."""

    frames: Tensor
    spectrograms: Tensor
    audio_hints: Tensor
    visual_hints: Tensor


class ReferenceClips(Dataset):
    """Clips of a folder with `frames/`, `audio/` and optionally `audio_feats/` and `detr_dec_feats/`."""

    def __init__(self, root: Path, ids: list[str], *, suffix: str = ".png", hints: Path | None = None) -> None:
        self.root, self.ids, self.suffix, self.hints = root, ids, suffix, hints
        self.transform = training_transform()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        clip_id = self.ids[index]
        frame = self.transform(Image.open(self.root / "frames" / f"{clip_id}{self.suffix}").convert("RGB"))
        spectrogram = log_spectrogram(*read_sound(self.root / "audio" / f"{clip_id}.flac"))
        if self.hints is None:
            return frame, spectrogram, torch.zeros(0), torch.zeros(0)
        audio = np.load(self.hints / "audio_feats" / f"{clip_id}.flac.npy").squeeze()
        visual = np.load(self.hints / "detr_dec_feats" / f"{clip_id}.jpg.npy").squeeze()
        return frame, spectrogram, torch.from_numpy(audio), torch.from_numpy(visual)

    @staticmethod
    def collate(items: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Loaded:
        """Stack the items into a batch."""
        return Loaded(*(torch.stack(column) for column in zip(*items, strict=True)))


def _resnet18(channels: int) -> nn.Sequential:
    network = torchvision.models.resnet18(weights=None)
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    kept = [(name, part) for name, part in network.named_children() if name not in ("avgpool", "fc")]
    return nn.Sequential(OrderedDict(kept))


class ReferenceNet(nn.Module):
    """The two-stream network, with the published parameter names and shapes."""

    def __init__(self, dim: int = 2048) -> None:
        super().__init__()
        self.imgnet, self.audnet = _resnet18(3), _resnet18(1)
        self.img_proj, self.aud_proj = nn.Conv2d(512, dim, kernel_size=1), nn.Linear(512, dim)

    def forward(self, frames: Tensor, spectrograms: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors [B, D, 7, 7] and [B, D]."""
        image = F.normalize(self.img_proj(self.imgnet(frames)), dim=1)
        pooled = F.adaptive_max_pool2d(self.audnet(spectrograms), 1).flatten(1)
        return image, F.normalize(self.aud_proj(pooled), dim=1)


def all_pairs(image: Tensor, audio: Tensor) -> Tensor:
    """[B, B, h, w]: every picture with every sound."""
    return torch.einsum("nchw,mc->nmhw", image, audio) / TAU


def contrastive(image: Tensor, audio: Tensor) -> Tensor:
    """The published contrastive loss."""
    logits = all_pairs(image, audio).flatten(2).max(dim=2).values
    labels = torch.arange(len(logits))
    return F.cross_entropy(logits, labels) + F.cross_entropy(logits.permute(1, 0), labels)


def distillation(image: Tensor, audio: Tensor, audio_hints: Tensor, visual_hints: Tensor) -> Tensor:
    """Weighted sum of the distillation losses of both teachers."""
    student = F.interpolate(image, size=visual_hints.shape[1:], mode="bilinear", align_corners=False).mean(1)
    kept = ~torch.isnan(visual_hints.flatten(1)).any(1)
    visual = F.mse_loss(student[kept], visual_hints[kept])
    return AUDIO_WEIGHT * F.mse_loss(audio, audio_hints) + VISUAL_WEIGHT * visual


def optimiser_of(network: nn.Module) -> torch.optim.Optimizer:
    """Adam with the published settings."""
    return torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.999))


def training_step(network: ReferenceNet, optimiser: torch.optim.Optimizer, batch: Loaded) -> float:
    """Run one training step and return the loss."""
    image, audio = network(batch.frames, batch.spectrograms)
    loss = contrastive(image, audio)
    if batch.audio_hints.numel():
        loss = loss + distillation(image, audio, batch.audio_hints, batch.visual_hints)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()
