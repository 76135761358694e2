"""Synthetic pictures, sounds, videos, stores and weights, generated from seeds without downloads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from avloc.checkpoint import save_model
from avloc.config import ModelConfig
from avloc.engine import Engine
from avloc.store import HintStamp, HintWriter, Store
from avloc.weights import imagenet_weights

SIZE = (640, 360)
RATE, SECONDS = 22_050, 3.0
KEY_DISTANCE, X264_DISTANCE = 50, 250
"""Pictures between key frames: 50 puts the middle one half way between two of them; 250 is the default of x264."""
_OCTAVES = ((5, 70.0), (20, 35.0), (80, 16.0), (320, 5.0))  # (cells across, contrast); the contrast falls like 1/f


def picture(seed: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """RGB [H, W, 3]: noise with the spectrum of photographs, a few shapes, and grain."""
    draws = np.random.default_rng(seed)
    width, height = size
    total = np.full((height, width, 3), 120.0)
    for across, contrast in _OCTAVES:
        down = max(2, across * height // width)
        noise = draws.normal(0, 1, (down, across, 3)) * 0.4 + draws.normal(0, 1, (down, across, 1))
        coarse = np.clip(128 + 40 * noise, 0, 255).astype(np.uint8)
        fine = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.float64)
        total += contrast * (fine - 128) / 60
    image = Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))
    _draw_shapes(image, draws)
    grain = draws.normal(0, 2.5, (height, width, 1))
    return np.clip(np.asarray(image, np.float64) + grain, 0, 255).astype(np.uint8)


def _draw_shapes(image: Image.Image, draws: np.random.Generator) -> None:
    pen = ImageDraw.Draw(image)
    for number in range(5):
        x, y = draws.uniform(0, 0.8, 2) * image.size
        wide, high = draws.uniform(0.05, 0.25, 2) * image.size
        colour = tuple(int(value) for value in draws.integers(20, 235, 3))
        shape = pen.ellipse if number % 2 else pen.rectangle
        shape((x, y, x + wide, y + high), fill=colour)


def sound(seed: int, seconds: float = SECONDS, rate: int = RATE, channels: int = 1) -> NDArray[np.float32]:
    """[samples] or [channels, samples]: a few amplitude-modulated tones in pink noise."""
    draws = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    white = np.fft.rfft(draws.standard_normal((channels, len(time))))
    noise = np.fft.irfft(white / np.sqrt(1 + np.arange(white.shape[1])), len(time))
    noise *= 0.05 / noise.std()
    tones = sum(
        0.1 * np.sin(2 * np.pi * hz * time) * np.sin(np.pi * pulse * time) ** 2
        for hz, pulse in zip(draws.uniform(100, 4000, 4), draws.uniform(0.3, 5, 4), strict=True)
    )
    return np.clip(noise + tones, -1, 1).astype(np.float32).squeeze()


def videos(
    folder: Path, count: int, *, seconds: float = 10.0, distinct: int = 6, key_distance: int = KEY_DISTANCE
) -> list[Path]:
    """Write `count` mp4 files of 640 x 360 with stereo sound; `distinct` of them differ, the others are copies."""
    folder.mkdir(parents=True)
    made = [
        _video(folder / f"clip{number:04d}_000010.mp4", number, seconds, key_distance)
        for number in range(min(count, distinct))
    ]
    for number in range(len(made), count):
        made.append(shutil.copy(made[number % distinct], folder / f"clip{number:04d}_000010.mp4"))
    return made


def _video(path: Path, seed: int, seconds: float, key_distance: int) -> Path:
    from tests.media_makers import make_video

    texture = picture(seed, (1000, 600))

    def frame(time_s: float) -> NDArray[np.uint8]:
        x, y = int(180 + 170 * np.sin(time_s)), int(120 + 110 * np.cos(0.7 * time_s))
        return texture[y : y + SIZE[1], x : x + SIZE[0]]

    return make_video(
        path,
        seconds=seconds,
        fps=25,
        size=SIZE,
        frame_fn=frame,
        sound=sound(seed, seconds, 44_100, channels=2),
        rate=44_100,
        video_codec="libx264",
        options={"preset": "veryfast", "g": str(key_distance)},
    )


def media(folder: Path, count: int, *, suffix: str = ".png", distinct: int = 64, rate: int = RATE) -> list[str]:
    """Write `frames/<id>` and `audio/<id>.flac`, the layout of the reference, and return the sorted ids."""
    import soundfile

    for part in ("frames", "audio"):
        (folder / part).mkdir(parents=True)
    ids = [f"made{number:05d}_000010" for number in range(count)]
    for number, clip_id in enumerate(ids):
        frame, audio = folder / "frames" / f"{clip_id}{suffix}", folder / "audio" / f"{clip_id}.flac"
        if number < distinct:
            Image.fromarray(picture(number)).save(frame, quality=90)
            soundfile.write(audio, sound(number, rate=rate), rate, subtype="PCM_16")
        else:
            shutil.copy(folder / "frames" / f"{ids[number % distinct]}{suffix}", frame)
            shutil.copy(folder / "audio" / f"{ids[number % distinct]}.flac", audio)
    return ids


def boxes(folder: Path, ids: list[str], suffix: str) -> Path:
    """Write `boxes.json` for the frames of `media`: one or two boxes each, in relative coordinates."""
    draws = np.random.default_rng(1)
    found = {}
    for clip_id in ids:
        corners = draws.uniform(0, 0.5, (int(draws.integers(1, 3)), 2))
        sizes = draws.uniform(0.2, 0.5, corners.shape)
        found[f"frames/{clip_id}{suffix}"] = np.hstack([corners, corners + sizes]).tolist()
    path = folder / "boxes.json"
    path.write_text(json.dumps(found))
    return path


def store(
    media_folder: Path, out: Path, *, annotations: Path | None = None, method: str = "avc", rate: int = 0
) -> Store:
    """Prepare the store of a folder from `media`; a rate of 0 selects the method's default."""
    from avloc.prepare import PrepareOptions, prepare

    prepare([str(media_folder)], out, PrepareOptions(annotations=annotations, method=method, rate=rate, workers=1))
    return Store(out)


def hints(opened: Store, npy: Path) -> None:
    """Write the same hints twice: into the store, and as one `.npy` file per clip, the layout of the reference."""
    draws = np.random.default_rng(2)
    audio = {clip_id: _unit(draws.exponential(size=2048)) for clip_id in opened.ids}
    visual = {clip_id: _share(draws.exponential(size=(25, 25))) for clip_id in opened.ids}
    for teacher, values, folder, suffix in (
        ("panns", audio, npy / "audio_feats", ".flac.npy"),
        ("detr", visual, npy / "detr_dec_feats", ".jpg.npy"),
    ):
        folder.mkdir(parents=True)
        shape = next(iter(values.values())).shape
        with HintWriter(opened.folder, HintStamp(teacher=teacher, shape=shape)) as writer:
            for clip_id, value in values.items():
                writer.add(clip_id, value)
                np.save(folder / f"{clip_id}{suffix}", value)


def _unit(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return (values / np.linalg.norm(values)).astype(np.float32)


def _share(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return (values / values.sum()).astype(np.float32)


def published_size_model(path: Path, *, quick: bool = False) -> tuple[Path, ModelConfig]:
    """Write a model file of AVC's published size with random weights; a small one if `quick`."""
    config = replace(ModelConfig(), dim=64) if quick else ModelConfig()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = Engine(config, torch.device("cpu")).model.state_dict()
    save_model(path, config, state, {"name": path.stem})
    return path, config


def object_prior_weights(folder: Path) -> Path:
    """Write a random ResNet18 under the file name of torchvision's ImageNet weights."""
    import torchvision

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        state = torchvision.models.resnet18(weights=None).state_dict()
    path = imagenet_weights("resnet18").under(folder)
    torch.save(state, path)
    return path
