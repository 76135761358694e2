"""Trunks of SSPL and SACL that were taught the kinds of things which they are then trained and scored on.

Both begin with published trunks, and SSPL never trains its own; random ones tell nothing apart. What is taught here is
which things a picture shows and which one a sound is of, never where a thing is, nor which of two in a picture sounds.
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
from avloc.config import parse_settings, settled
from avloc.engine import pick_precision
from avloc.methods import build
from avloc.networks.base import fold_batch_norms
from avloc.networks.vggish import VGGish, log_mel_patches, normalise_span
from avloc.transforms import MEL_RATE, normalise_frames
from tests.world import COLOURS, Scene, pairs, scenes, tone

SIDE = 112
"""Pixels while the pictures' trunk is taught: a quarter of the work."""
BATCH = 24


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What there is to learn, batch by batch."""

    kinds: int
    pictures: Iterator[tuple[Tensor, Tensor]]
    """uint8 [BATCH, 3, SIDE, SIDE], and [BATCH, kinds]: 1 for the kinds that it is known to show."""
    sounds: Iterator[tuple[Tensor, Tensor]]
    """Waveforms [BATCH, N] at 16 kHz, and the kind of each."""
    steps: tuple[int, int]
    """Batches of pictures and of sounds."""
    lr: float = 1e-4
    """Of the pictures' lessons; sounds are learned with 1e-4."""
    precision: str = "fp32"
    """As in `avloc train`."""

    def autocast(self) -> torch.autocast:
        """What a network runs in."""
        half = pick_precision(self.precision, torch.device("cpu")) == "bf16"
        return torch.autocast("cpu", torch.bfloat16, enabled=half)


def taught_model(path: Path, method: str, lessons: Lessons, *settings: str) -> Path:
    """A model file of SSPL or SACL: its trunks took the lessons, its other weights are random.

    Args:
        path: of the file.
        method: `sspl` or `sacl`.
        lessons: what its trunks are to know.
        settings: as `avloc train --set` takes them.
    """
    torch.manual_seed(0)
    config = settled(parse_settings(settings), method).model
    model = build(config)
    if method == "sspl":
        model.frame.feat_extractor.load_state_dict(_seeing_vgg16(lessons).state_dict())
    else:
        _see(model.frame, lessons)
    hearing = _hearing(lessons)
    for part in ("features", "embeddings"):
        getattr(model.sound, part).load_state_dict(getattr(hearing, part).state_dict())
    save_model(path, config, model.state_dict(), {"name": path.stem})
    return path


def world_lessons(steps: int) -> Lessons:
    """Colours and tones of `tests.world`, a second of each tone."""
    return Lessons(kinds=len(COLOURS), pictures=_coloured(steps), sounds=_tones(), steps=(steps, steps))


def _coloured(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    seen, known = scenes(steps * BATCH, held_out=False, seed=3), pairs(held_out=False)
    for step in range(steps):
        truth = torch.zeros(BATCH, len(COLOURS))
        for row in range(BATCH):
            truth[row, list(known[(step * BATCH + row) % len(known)])] = 1
        yield torch.stack([_frame(next(seen)) for _ in range(BATCH)]), truth


def _frame(scene: Scene) -> Tensor:
    return torch.from_numpy(np.array(scene.picture.resize((SIDE, SIDE)))).permute(2, 0, 1)


def _tones() -> Iterator[tuple[Tensor, Tensor]]:
    draws = np.random.default_rng(3)
    while True:
        kinds = draws.integers(0, len(COLOURS), BATCH)
        heard = np.stack([tone(int(kind), draws, 1.0, rate=MEL_RATE) for kind in kinds])
        yield torch.from_numpy(heard), torch.from_numpy(kinds)


def _seeing_vgg16(lessons: Lessons) -> nn.Sequential:
    """VGG16 up to its last convolution.

    It is taught with normalisations, which then become part of the convolutions: without them it would not begin.
    """
    network = torchvision.models.vgg16_bn(weights=None).features[:-2]  # without the last activation and pooling
    _see(network, lessons)
    network.eval()
    fold_batch_norms(network)
    return nn.Sequential(*(part for part in network if not isinstance(part, nn.Identity)))


def _see(network: nn.Module, lessons: Lessons) -> None:
    """A network with cells of 512 channels learns what a picture shows, from the mean of its cells."""
    head = nn.Linear(512, lessons.kinds)
    network.to(memory_format=torch.channels_last)

    def loss() -> Tensor:
        frames, truth = next(lessons.pictures)
        with lessons.autocast():
            cells = network(normalise_frames(frames).contiguous(memory_format=torch.channels_last))
        return F.binary_cross_entropy_with_logits(head(F.relu(cells.float()).mean((2, 3))), truth)

    _learn("seeing", nn.ModuleList((network, head)), loss, lessons.steps[0], lessons.lr)


def _hearing(lessons: Lessons) -> VGGish:
    """VGGish that tells the sounds apart. It has no normalisations: what its layers begin with must carry through."""
    network, head = VGGish(), nn.Linear(128, lessons.kinds)
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")

    def loss() -> Tensor:
        heard, kinds = next(lessons.sounds)
        patches = log_mel_patches(normalise_span(heard), MEL_RATE)
        with lessons.autocast():
            vectors = network.embed(patches)
        return F.cross_entropy(head(vectors.float().mean(1)), kinds)

    _learn("hearing", nn.ModuleList((network, head)), loss, lessons.steps[1], Lessons.lr)
    return network


def _learn(what: str, network: nn.Module, loss: Callable[[], Tensor], steps: int, lr: float) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=lr)
    network.train()
    for step in range(steps):
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
        if step % 10 == 9:
            print(f"{what}: {step + 1} of {steps} steps, loss {value.item():.3f}", file=sys.stderr)
