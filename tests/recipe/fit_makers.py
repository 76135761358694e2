"""Small material with random features, and a run with random weights, for tests of the fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from avloc.checkpoint import load_model, save_model
from avloc.config import ModelConfig
from avloc.networks.concepts import DIM
from tests.recipe.features import AUDIO_WIDTH, CELLS, IMAGE_WIDTH, pooled
from tests.recipe.material import Material, Pictures, Scenes, SoundFiles, covers_of
from tests.recipe.real import RealClip, RealClips
from tests.recipe.settings import read_settings
from tests.small_models import save_small

SMALL = replace(read_settings(), steps=4, batch=12, boxed_batch=8, unnamed=5, keep=0.0)
CONFIG = ModelConfig(
    vision_trunk="efficientnet_lite0+classes", audio_trunk="yamnet+classes", dim=DIM, rate=16_000, frame=448
)
PICTURE_CLASSES = ("dog", "cat", "person", "car")
SHOWN = {
    "dog": ("dog",),
    "cat": ("cat",),
    "person": ("speech", "laugh", "singing", "cheering"),
    "car": ("car", "engine", "siren"),
}
SOUND_CLASSES = ("dog", "cat", "speech", "laugh", "car", "engine", "siren")
BOX = (0.0, 0.0, 0.5, 0.5)
LEFT = np.arange(CELLS).reshape(14, 14)[:7, :7].flatten()
"""Cells under `BOX`."""


def images(topics: list[int], rng: np.random.Generator) -> torch.Tensor:
    """[n, 196, 2280]: noise, and features of a topic under `BOX`."""
    cells = rng.uniform(0, 1, (len(topics), CELLS, IMAGE_WIDTH)).astype(np.float16)
    for row, topic in enumerate(topics):
        cells[row, LEFT, 20 * topic : 20 * topic + 20] += 4
    return torch.from_numpy(cells)


def audio(topics: list[int], rng: np.random.Generator) -> torch.Tensor:
    """[n, 1545]: noise, and features and class scores of a topic."""
    sounds = rng.uniform(0, 1, (len(topics), AUDIO_WIDTH)).astype(np.float16)
    sounds[:, 1024:] = 0
    for row, topic in enumerate(topics):
        sounds[row, 20 * topic : 20 * topic + 20] += 4
        sounds[row, 1024 + topic] = 8
    return torch.from_numpy(sounds)


def make_material(seed: int = 0, clips: int = 8) -> Material:
    """Four classes of pictures, five pictures each of which two have boxes; scenes; real clips of two moments each."""
    rng = np.random.default_rng(seed)
    classes = [kind for _ in range(5) for kind in PICTURE_CLASSES]
    cells = images([PICTURE_CLASSES.index(kind) for kind in classes], rng)
    pictures = Pictures(
        classes, [SHOWN[kind] for kind in classes], pooled(cells.float()).half(), cells[:8], covers_of([[BOX]] * 8)
    )
    topic_of = {"laugh": 2, "speech": 2, "car": 3, "engine": 3, "siren": 3, "dog": 0, "cat": 1}
    sounds = [name for _ in range(3) for name in SOUND_CLASSES]
    variants = torch.stack([audio([topic_of[name] for name in sounds], rng) for _ in range(3)], 1)
    scene_classes = ["dog", "cat", "speech"] * 2
    scenes = Scenes(
        scene_classes,
        [(name, "siren") for name in scene_classes],
        images([topic_of[name] for name in scene_classes], rng),
        audio([topic_of[name] for name in scene_classes], rng),
        covers_of([[BOX]] * len(scene_classes)),
    )
    return Material(pictures, SoundFiles(sounds, variants), scenes, make_real(clips, rng))


def make_real(clips: int, rng: np.random.Generator) -> RealClips:
    """Real clips, each with a topic of its own; the second moment of each has boxes."""
    moments = [
        RealClip(f"{clip}-{part}", f"{clip}", "", "other", f"r{clip // 2}", "original", clip % 5)
        for clip in range(clips)
        for part in range(2)
    ]
    topics = [4 + int(moment.clip) for moment in moments]
    cells, sounds = images(topics, rng), audio(topics, rng)
    variants = torch.stack([audio(topics, rng), audio(topics, rng)], 1)
    covers = covers_of([[BOX] * (row % 2) for row in range(len(moments))])
    return RealClips(moments, pooled(cells.float()).half(), cells, sounds, variants, covers)


def write_run(folder: Path) -> Path:
    """A run with random weights whose classifiers give scores."""
    folder.mkdir()
    file = load_model(save_small(folder / "model.safetensors", CONFIG))
    state = {key: value * 300 if "_fc.weight" in key else value for key, value in file.state.items()}
    save_model(folder / "model.safetensors", CONFIG, state, {"name": "run", "epoch": 3})
    return folder
