"""Benchmark rows for `localize`: one picture from a cold start, many pictures with a loaded model, and videos."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image

import avloc
from avloc.localize.video import write_video
from tests.bench import material
from tests.bench.copy_run import copy
from tests.bench.material import SIZE
from tests.bench.reference import ReferenceNet, log_spectrogram, read_sound, test_transform
from tests.bench.reference_scoring import min_max, similarity_maps, upsampled
from tests.bench.timing import AVLOC, REFERENCE, ROOT, Options, Row, compared, interleaved, python
from tests.media_makers import make_video

MEDIA = ROOT / "tests" / "data"
_BARE = """
import torch, torchvision
with torch.no_grad():
    torchvision.models.resnet18(weights=None).eval()(torch.zeros(1, 3, 224, 224))
"""


def localize_cold(options: Options, work: Path) -> list[Row]:
    """`avloc localize` on one picture and one sound, whole process."""
    arguments = ("localize", MEDIA / "frame.jpg", "--audio", MEDIA / "sound.wav", "--out", work / "heat.png")
    contenders = {REFERENCE: lambda: python("-c", _BARE), AVLOC: lambda: python("-m", "avloc", *arguments)}
    spent = interleaved(options.repeats, contenders)
    what = (
        "a new process each time: python that imports torch and torchvision and runs one ResNet18 of random weights "
        "on one picture of zeros; `avloc localize` with the shipped model, from files to an overlay"
    )
    return [compared("localize cold", what, spent)]


def localize_warm(options: Options, work: Path) -> list[Row]:
    """Pictures one at a time with a loaded model."""
    frames = options.count(32, 2)
    pictures = [material.picture(seed) for seed in range(frames)]
    sounds = [material.sound(seed) for seed in range(frames)]
    paths = [work / f"{number}.wav" for number in range(frames)]
    for path, sound in zip(paths, sounds, strict=True):
        soundfile.write(path, sound, material.RATE)
    network, transform, model = ReferenceNet().eval(), test_transform(), avloc.load(device="cpu")

    @torch.no_grad()
    def theirs() -> None:
        for picture, path in zip(pictures, paths, strict=True):
            tensor = transform(Image.fromarray(picture))[None]
            cells = similarity_maps(network, tensor, log_spectrogram(*read_sound(path))[None])
            min_max(upsampled(cells)[0])

    def ours() -> None:
        for picture, sound in zip(pictures, sounds, strict=True):
            model.localize(picture, sound, material.RATE)

    spent = interleaved(options.repeats, {REFERENCE: theirs, AVLOC: ours})
    what = (
        f"{frames} pictures of 640 x 360 one by one: two ResNet18 with 2048 dimensions in fp32, map to 224 x 224; "
        "`model.localize` of the shipped model, which also judges and fuses its own object prior"
    )
    return [compared("localize warm", what, spent, work=frames, unit="pictures/s")]


class FakeMapper:
    """Moving Gaussian bump in place of a model, so that the row measures everything else."""

    seconds, rate, resize = 3.0, 22_050, "bilinear-halfpixel"

    def cells_at(self, frame, waveform, rate):
        down, across = np.mgrid[0:14, 0:14]
        place = 7 + 5 * float(waveform[:100].mean())
        bump = np.exp(-((down - place) ** 2 + (across - 9) ** 2) / 6)
        return bump.astype(np.float32), False


def made_up_video(path: Path, seconds: float) -> Path:
    """Write 640 x 360 video at 30 frames per second: a drifting texture with grain, and stereo noise."""
    draws = np.random.default_rng(0)
    small = Image.fromarray(draws.integers(0, 256, (60, 100, 3), np.uint8))
    texture = np.asarray(small.resize((1000, 600), Image.Resampling.BICUBIC), np.int16)

    def picture(time_s: float) -> np.ndarray:
        x, y = int(180 + 170 * np.sin(time_s)), int(120 + 110 * np.cos(0.7 * time_s))
        grain = draws.integers(-4, 5, (360, 640, 1), np.int16)
        return np.clip(texture[y : y + 360, x : x + 640] + grain, 0, 255).astype(np.uint8)

    sound = (0.1 * draws.standard_normal((2, round(seconds * 44_100)))).astype(np.float32)
    return make_video(
        path, seconds=seconds, fps=30, size=SIZE, frame_fn=picture, sound=sound, rate=44_100, video_codec="libx264"
    )


def overlay_video(options: Options, work: Path) -> list[Row]:
    """Overlay video of 360p with a map every half second, without networks, beside decoding and encoding."""
    source = made_up_video(work / "in.mp4", 2.0 if options.quick else options.video_seconds)
    out, plain = work / "out.mp4", work / "plain.mp4"
    write_video(source, out, FakeMapper(), end=1.0)  # imports and caches
    summaries = []
    contenders = {
        REFERENCE: lambda: copy(source, plain),
        AVLOC: lambda: summaries.append(write_video(source, out, FakeMapper())),
    }
    spent = interleaved(options.repeats, contenders, warm=False)
    summary = summaries[0]
    what = (
        f"{summary.frames} pictures of 640 x 360 in one process: decoded to RGB and encoded again; the same with "
        f"{summary.maps} maps, without networks; the ratio is the share"
    )
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return [compared("overlay video", what, spent, **_file_sizes(source, plain, out), peak_mb=peak)]


def video(options: Options, work: Path) -> list[Row]:
    """`avloc localize` of a video with the shipped model, beside decoding and encoding it, whole processes."""
    seconds = 2.0 if options.quick else options.video_seconds
    source, out, plain = made_up_video(work / "in.mp4", seconds), work / "out.mp4", work / "plain.mp4"
    contenders = {
        REFERENCE: lambda: python("-m", "tests.bench.copy_run", source, plain),
        AVLOC: lambda: python("-m", "avloc", "localize", source, "--out", out),
    }
    spent = interleaved(options.repeats, contenders, warm=False)
    what = (
        f"{seconds:g} s of 640 x 360 at 30 pictures a second: decoded to RGB and encoded again, with the sound; "
        "`avloc localize` to an overlay video, shipped model; the ratio is the share"
    )
    return [compared("video", what, spent, **_file_sizes(source, plain, out))]


def _file_sizes(source: Path, plain: Path, out: Path) -> dict[str, object]:
    files = {"in": source, REFERENCE: plain, AVLOC: out}
    return {"bytes": {name: path.stat().st_size for name, path in files.items()}}
