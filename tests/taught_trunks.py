"""SSPL's two trunks, taught the colours and tones of `tests.world`: what ImageNet and AudioSet are to its authors.

SSPL learns only what leads from a sound's embedding to the cells of a picture; both trunks stay as they come. Their
published weights are not of this world, and random ones tell nothing apart. Neither learns where a thing is, nor which
of the two in a picture sounds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from avloc.checkpoint import save_model
from avloc.config import settled
from avloc.methods import build
from avloc.networks.folding import fold_batch_norms
from avloc.networks.vggish import VGGish, log_mel_patches, normalise_span
from avloc.transforms import MEL_RATE, normalise_frames
from tests.world import COLOURS, Scene, pairs, scenes, tone

_SIDE = 112
"""Pixels while the pictures' trunk is taught: a quarter of the work."""
_BATCH = 24


def taught_model(path: Path, *, steps: int) -> Path:
    """A model file of SSPL whose trunks know the world, and whose other weights are random."""
    torch.manual_seed(0)
    config = settled({"model": {"seconds": 1.0}}, "sspl").model
    model = build(config)
    model.frame.feat_extractor.load_state_dict(_seeing(steps).state_dict())
    hearing = _hearing(steps)
    for part in ("features", "embeddings"):
        getattr(model.sound, part).load_state_dict(getattr(hearing, part).state_dict())
    save_model(path, config, model.state_dict(), {"name": path.stem})
    return path


def _seeing(steps: int) -> nn.Sequential:
    """VGG16 up to its last convolution, that tells which two colours a picture has.

    It is taught with normalisations, which then become part of the convolutions: without them it would not begin.
    """
    network = torchvision.models.vgg16_bn(weights=None).features[:-2]  # without the last activation and pooling
    head = nn.Linear(512, len(COLOURS))
    seen = scenes(steps * _BATCH, held_out=False, seed=3)
    known = pairs(held_out=False)

    def loss(step: int) -> Tensor:
        batch = [next(seen) for _ in range(_BATCH)]
        truth = torch.zeros(_BATCH, len(COLOURS))
        for row in range(_BATCH):
            truth[row, list(known[(step * _BATCH + row) % len(known)])] = 1
        cells = network(normalise_frames(torch.stack([_frame(scene) for scene in batch])))
        return F.binary_cross_entropy_with_logits(head(F.relu(cells).mean((2, 3))), truth)

    _learn("seeing", nn.ModuleList((network, head)), loss, steps)
    network.eval()
    fold_batch_norms(network)
    return nn.Sequential(*(part for part in network if not isinstance(part, nn.Identity)))


def _frame(scene: Scene) -> Tensor:
    return torch.from_numpy(np.array(scene.picture.resize((_SIDE, _SIDE)))).permute(2, 0, 1)


def _hearing(steps: int) -> VGGish:
    """VGGish that tells the tones apart, a second of each."""
    network, head = VGGish(), nn.Linear(128, len(COLOURS))
    draws = np.random.default_rng(3)

    def loss(_step: int) -> Tensor:
        kinds = torch.from_numpy(draws.integers(0, len(COLOURS), _BATCH))
        heard = np.stack([tone(int(kind), draws, 1.0, rate=MEL_RATE) for kind in kinds])
        patches = log_mel_patches(normalise_span(torch.from_numpy(heard)), MEL_RATE)
        return F.cross_entropy(head(network.embed(patches).mean(1)), kinds)

    _learn("hearing", nn.ModuleList((network, head)), loss, steps)
    return network


def _learn(what: str, network: nn.Module, loss, steps: int) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    network.train()
    for step in range(steps):
        optimiser.zero_grad()
        value = loss(step)
        value.backward()
        optimiser.step()
        if step % 10 == 9:
            print(f"{what}: {step + 1} of {steps} steps, loss {value.item():.3f}", file=sys.stderr)
