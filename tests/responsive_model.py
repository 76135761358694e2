"""Small models with random weights whose map depends on the sound, or does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from avloc.checkpoint import save_model
from avloc.engine import Engine
from tests.media_makers import tone
from tests.small_models import SMALL

RATE = 22_050
CONFIG = replace(SMALL, frame=128)


def save_responsive(path: Path, *, constant_audio: bool = False, **card: object) -> Path:
    """Write a model whose map depends on the sound: its normalisation statistics are those of real inputs.

    Args:
        path: a `.safetensors`.
        constant_audio: give all sounds the same embedding.
        card: entries of the model card besides its name.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        engine = Engine(CONFIG, torch.device("cpu"))
        for module in engine.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        pictures = (
            torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8).repeat_interleave(16, 2).repeat_interleave(16, 3)
        )
        engine.model.train()
        engine.encode([pictures.float() / 128 - 1], engine.spectrogram(torch.from_numpy(_sounds()), RATE))
        if constant_audio:
            engine.model.aud_proj.weight.zero_()
            engine.model.aud_proj.bias.normal_()
        else:  # subtract the mean of the embeddings, so that their directions vary
            spectrograms = engine.spectrogram(torch.from_numpy(_sounds()), RATE)
            pooled = engine.model.eval().audnet(spectrograms).features.amax((2, 3))
            engine.model.aud_proj.bias.copy_(-engine.model.aud_proj.weight @ pooled.mean(0))
    save_model(path, CONFIG, engine.model.state_dict(), {"name": path.stem, **card})
    return path


def _sounds() -> np.ndarray:
    random = np.random.default_rng(0)
    tones = [tone(3, RATE, hz=hz, span=(0, 1 + hz / 2_000)) for hz in (130, 300, 700, 1_500, 3_500)]
    noises = [(level * random.standard_normal(3 * RATE)).astype(np.float32) for level in (0.3, 0.03)]
    return np.stack([*tones, *noises, np.zeros(3 * RATE, np.float32)])
