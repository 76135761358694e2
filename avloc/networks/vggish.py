"""VGGish, the audio network of SSPL and SACL: an embedding of 128 numbers for 0.96 s of audio.

Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017. The key names are those of its
PyTorch port (harritaylor/torchvggish), whose weights these systems start from.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avloc.networks.base import load_weights
from avloc.transforms import MEL_BANDS, log_mel
from avloc.weights.torch_files import load_plain

WIDTH = 128
JOINT_WIDTH = 512
PATCH_FRAMES = 96
"""Spectrogram frames of one patch: 0.96 s."""
_MEL_OFFSET = 0.01
_CONVOLUTIONS = ((64,), (128,), (256, 256), (512, 512))
"""Channels of the 3x3 convolutions before each halving of the resolution."""
_LAST_CELLS = 6 * 4
_HIDDEN = 4_096
_SPAN_FLOOR = 1e-3


class VGGish(nn.Module):
    """Log-mel patches [..., 96, 64] to embeddings [..., 128], not negative."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for widths in _CONVOLUTIONS:
            for channels in widths:
                layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
                width = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            *(nn.Linear(width * _LAST_CELLS, _HIDDEN), nn.ReLU()),
            *(nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU()),
            *(nn.Linear(_HIDDEN, WIDTH), nn.ReLU()),
        )

    def embed(self, patches: Tensor) -> Tensor:
        """Embeddings [B, P, 128] of patches [B, P, 96, 64]."""
        features = self.features(patches.flatten(0, 1).unsqueeze(1))
        # The fully connected layers come from TensorFlow, where channels are last.
        flat = features.permute(0, 2, 3, 1).flatten(1)
        embedded: Tensor = self.embeddings(flat)
        return embedded.reshape(*patches.shape[:2], WIDTH)


class SoundVectors(NamedTuple):
    """Unit vectors of sounds: `joint` [B, 512] in the space of the cells, and VGGish's `embedding` [B, 128]."""

    joint: Tensor
    embedding: Tensor

    def packed(self) -> Tensor:
        """Both as one tensor [B, 512 + 128]."""
        return torch.cat(self, 1)

    @classmethod
    def unpack(cls, packed: Tensor) -> Self:
        """The inverse of `packed`; the fields are views."""
        return cls(*torch.split(packed, [JOINT_WIDTH, WIDTH], 1))


class VGGishWithMLP(VGGish):
    """VGGish, and two layers that project its embedding to the cells' 512 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(WIDTH, JOINT_WIDTH), nn.ReLU(), nn.Linear(JOINT_WIDTH, JOINT_WIDTH))

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, P, 128] of log-mel patches [B, P, 96, 64], and their projections [B, P, 512]."""
        embedded = self.embed(patches)
        return embedded, self.fc(embedded)

    def vectors(self, patches: Tensor) -> SoundVectors:
        """Mean projection and mean embedding of a sound's patches, each of unit length."""
        embedded, projected = self(patches)
        return SoundVectors(mean_unit(projected), mean_unit(embedded))


def load_vggish(path: Path) -> VGGish:
    """The published network, in eval mode.

    Raises:
        WeightsError: the file does not hold its weights.
    """
    network = VGGish()
    load_weights(network, load_plain(path), path, "VGGish")
    return network.eval()


def normalise_span(sound_BN: Tensor) -> Tensor:
    """Waveforms scaled to [-1, 1) by their minimum and maximum, as in SSPL's loader.

    A constant sound becomes -1 everywhere.
    """
    lifted = sound_BN.float() - sound_BN.float().amin(-1, keepdim=True)
    return 2 * (lifted / (lifted.amax(-1, keepdim=True) + _SPAN_FLOOR) - 0.5)


def log_mel_patches(sound_BN: Tensor, rate: int) -> Tensor:
    """Input of VGGish: consecutive log-mel patches [B, P, 96, 64]; 3 s give three.

    Args:
        sound_BN: float waveforms; N >= 15 600.
        rate: sample rate in Hz; 16 000 is the only valid one.

    Raises:
        UsageError: another rate.
    """
    mel = log_mel(sound_BN, rate, offset=_MEL_OFFSET).squeeze(1).transpose(1, 2)
    patches = mel.shape[1] // PATCH_FRAMES
    return mel[:, : patches * PATCH_FRAMES].reshape(len(mel), patches, PATCH_FRAMES, MEL_BANDS)


def mean_unit(vectors_BPD: Tensor) -> Tensor:
    """Mean of the patches' vectors, [B, D], of unit length."""
    return F.normalize(vectors_BPD.float().mean(1), dim=1)
