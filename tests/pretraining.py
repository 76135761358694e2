"""Pretraining of the backbones of SSPL and SACL as image and audio classifiers.

Both methods start from published pretrained backbones, and SSPL keeps its own frozen; random backbones do not separate
classes. The labels are the classes in an image and the class of a sound, never a position or which object sounds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from avloc.checkpoint import save_model
from avloc.config import parse_settings, resolve_config
from avloc.engine import pick_precision
from avloc.methods import build
from avloc.networks.base import fold_batch_norms
from avloc.networks.vggish import VGGish, log_mel_patches, normalise_span
from avloc.transforms import MEL_RATE, normalise_frames
from tests.synthetic_scenes import COLOURS, Scene, pairs, scenes, tone

SIDE = 112
"""Side of the training images in pixels, for a quarter of the computation."""
BATCH = 24


@dataclass(frozen=True, kw_only=True)
class PretrainingData:
    """Batches for pretraining."""

    kinds: int
    pictures: Iterator[tuple[Tensor, Tensor]]
    """uint8 images [BATCH, 3, SIDE, SIDE] and labels [BATCH, kinds]: 1 for the classes known to be present."""
    sounds: Iterator[tuple[Tensor, Tensor]]
    """Waveforms [BATCH, N] at 16 kHz and the class of each."""
    steps: tuple[int, int]
    """Number of image batches and of sound batches."""
    lr: float = 1e-4
    """Learning rate for images; that for sounds is 1e-4."""
    precision: str = "fp32"
    """As in `avloc train`."""

    def autocast(self) -> torch.autocast:
        """Autocast context for `precision`."""
        half = pick_precision(self.precision, torch.device("cpu")) == "bf16"
        return torch.autocast("cpu", torch.bfloat16, enabled=half)


def pretrained_model(path: Path, method: str, data: PretrainingData, *settings: str) -> Path:
    """Write a model file of SSPL or SACL with pretrained backbones; its other weights are random.

    Args:
        path: path of the file.
        method: `sspl` or `sacl`.
        data: the data to pretrain its backbones on.
        settings: settings as in `avloc train --set`.
    """
    torch.manual_seed(0)
    config = resolve_config(parse_settings(settings), method).model
    model = build(config)
    if method == "sspl":
        model.frame.feat_extractor.load_state_dict(_pretrained_vgg16(data).state_dict())
    else:
        _train_image_classifier(model.frame, data)
    vggish = _pretrained_vggish(data)
    for part in ("features", "embeddings"):
        getattr(model.sound, part).load_state_dict(getattr(vggish, part).state_dict())
    save_model(path, config, model.state_dict(), {"name": path.stem})
    return path


def synthetic_pretraining(steps: int) -> PretrainingData:
    """Colours and one-second tones of the synthetic scenes of `tests.synthetic_scenes`."""
    return PretrainingData(kinds=len(COLOURS), pictures=_coloured(steps), sounds=_tones(), steps=(steps, steps))


def _coloured(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    made, known = scenes(steps * BATCH, held_out=False, seed=3), pairs(held_out=False)
    for step in range(steps):
        truth = torch.zeros(BATCH, len(COLOURS))
        for row in range(BATCH):
            truth[row, list(known[(step * BATCH + row) % len(known)])] = 1
        yield torch.stack([_frame(next(made)) for _ in range(BATCH)]), truth


def _frame(scene: Scene) -> Tensor:
    return torch.from_numpy(np.array(scene.picture.resize((SIDE, SIDE)))).permute(2, 0, 1)


def _tones() -> Iterator[tuple[Tensor, Tensor]]:
    draws = np.random.default_rng(3)
    while True:
        kinds = draws.integers(0, len(COLOURS), BATCH)
        waveforms = np.stack([tone(int(kind), draws, 1.0, rate=MEL_RATE) for kind in kinds])
        yield torch.from_numpy(waveforms), torch.from_numpy(kinds)


def _pretrained_vgg16(data: PretrainingData) -> nn.Sequential:
    """Pretrained VGG16 up to its last convolution.

    Trained with batch normalisations, which are then folded into the convolutions: without them it does not converge.
    """
    network = torchvision.models.vgg16_bn(weights=None).features[:-2]  # without the last activation and pooling
    _train_image_classifier(network, data)
    network.eval()
    fold_batch_norms(network)
    return nn.Sequential(*(part for part in network if not isinstance(part, nn.Identity)))


def _train_image_classifier(network: nn.Module, data: PretrainingData) -> None:
    """Train a network with 512 output channels to classify images from its mean over cells."""
    head = nn.Linear(512, data.kinds)
    network.to(memory_format=torch.channels_last)

    def loss() -> Tensor:
        frames, truth = next(data.pictures)
        with data.autocast():
            cells = network(normalise_frames(frames).contiguous(memory_format=torch.channels_last))
        return F.binary_cross_entropy_with_logits(head(F.relu(cells.float()).mean((2, 3))), truth)

    _fit("image backbone", nn.ModuleList((network, head)), loss, data.steps[0], data.lr)


def _pretrained_vggish(data: PretrainingData) -> VGGish:
    """VGGish trained to classify sounds; He initialisation, because it has no normalisation layers."""
    network, head = VGGish(), nn.Linear(128, data.kinds)
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")

    def loss() -> Tensor:
        waveforms, kinds = next(data.sounds)
        patches = log_mel_patches(normalise_span(waveforms), MEL_RATE)
        with data.autocast():
            vectors = network.embed(patches)
        return F.cross_entropy(head(vectors.float().mean(1)), kinds)

    _fit("audio backbone", nn.ModuleList((network, head)), loss, data.steps[1], PretrainingData.lr)
    return network


def _fit(what: str, network: nn.Module, loss: Callable[[], Tensor], steps: int, lr: float) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=lr)
    network.train()
    for step in range(steps):
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
        if step % 10 == 9:
            print(f"{what}: {step + 1} of {steps} steps, loss {value.item():.3f}", file=sys.stderr)
