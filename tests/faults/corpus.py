"""Malformed media made from valid files: truncated at every box boundary, flipped bits, inconsistent MP4 boxes."""

from __future__ import annotations

import io
import os
import random
import shutil
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from tests.media_makers import disc, make_coded_sound, make_sound, make_video, tone

_SECONDS, _RATE = 2.0, 22_050
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"udta")
_TABLES = (b"stts", b"stsz", b"stco", b"stsc", b"ctts", b"elst", b"mdhd", b"mvhd", b"tkhd", b"stss", b"stsd")
"""MP4 boxes that hold counts, times and offsets."""


def originals(folder: Path) -> list[Path]:
    """Write valid files of every common kind.

    Returns:
        The files to damage.
    """
    folder.mkdir(parents=True, exist_ok=True)
    videos = [
        make_video(
            folder / f"video-{codec}{ending}",
            seconds=_SECONDS,
            sound=tone(_SECONDS, rate),
            rate=rate,
            video_codec=codec,
            audio_codec=audio_codec_name,
        )
        for codec, audio_codec_name, rate, ending in (
            ("mpeg4", "aac", _RATE, ".mp4"),
            ("libx264", "aac", _RATE, ".mp4"),
            ("libx264", "flac", _RATE, ".mkv"),
            ("libvpx", "libopus", 48_000, ".webm"),
            ("mpeg4", "mp2", _RATE, ".avi"),
        )
    ]
    sound = tone(_SECONDS, _RATE)
    sounds = [
        make_sound(folder / f"sound-{subtype}{ending}", sound, _RATE, subtype=subtype)
        for subtype, ending in (("PCM_16", ".wav"), ("FLOAT", ".wav"), ("PCM_24", ".flac"), ("VORBIS", ".ogg"))
    ]
    sounds.append(make_coded_sound(folder / "sound-mp3.mp3", sound, _RATE, "libmp3lame"))
    picture = Image.fromarray(disc((96, 64), (0.5, 0.5)))
    pictures = []
    for ending, how in ((".jpg", {"quality": 90}), (".png", {}), (".webp", {}), (".bmp", {})):
        pictures.append(folder / f"picture{ending}")
        picture.save(pictures[-1], **how)
    return [*videos, *sounds, *pictures]


def damaged(path: Path, *, flips: int, cuts: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield the name of the damage and the bytes for one valid file, reproducibly for a seed.

    Args:
        path: the valid file.
        flips: number of copies with flipped bits.
        cuts: number of copies truncated at a random offset, besides those truncated at a box boundary.
        seed: seed of the random offsets.
    """
    data, rng = path.read_bytes(), random.Random(f"{seed} {path.name}")
    yield "empty", b""
    yield "one byte", data[:1]
    yield "zeros", bytes(len(data))
    yield "noise", rng.randbytes(len(data))
    yield "twice", data + data
    yield "without its middle", data[: len(data) // 3] + data[2 * len(data) // 3 :]
    yield "backwards", data[::-1]
    boundaries = set(_boundaries(data)) if path.suffix == ".mp4" else set()
    for place in sorted(boundaries | set(rng.sample(range(2, len(data)), cuts))):
        yield f"cut at {place}", data[:place]
    for number in range(flips):
        yield f"flips {number}", _flipped(data, rng)
    if path.suffix == ".mp4":
        yield from _inconsistent(data, rng)


def _flipped(data: bytes, rng: random.Random) -> bytes:
    """Flip 1 to 100 bits; half of the time within the first 512 bytes, where the headers are."""
    out = bytearray(data)
    reach = len(out) if rng.random() < 0.5 else min(len(out), 512)
    for _ in range(round(10 ** rng.uniform(0, 2))):
        out[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(out)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each MP4 box, nested boxes included."""
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        stop = start + size if size >= 8 else end
        yield kind, start, stop
        if kind in _PARENTS:
            yield from _boxes(data, start + 8, min(stop, end))
        start = stop


def _boundaries(data: bytes) -> Iterator[int]:
    for _, start, stop in _boxes(data, 0, len(data)):
        yield from (start, min(start + 8, len(data)), min(stop, len(data)))


def _inconsistent(data: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Replace counts, times, offsets and sizes by impossible values."""
    for kind, start, stop in _boxes(data, 0, len(data)):
        if kind not in _TABLES:
            continue
        for value in (0, 0x7FFFFFFF, 0xFFFFFFFF):
            out = bytearray(data)
            place = start + 8 + 4 * rng.randrange(max(1, (stop - start - 8) // 4))
            out[place : place + 4] = struct.pack(">I", value)
            yield f"{kind.decode()} at {start} set to {value}", bytes(out)
        out = bytearray(data)
        out[start : start + 4] = struct.pack(">I", 0xFFFFFFF0)
        yield f"{kind.decode()} at {start} too large", bytes(out)


def odd_sounds() -> Iterator[tuple[str, bytes, bool]]:
    """Name, WAV file and whether it is usable: unusual lengths, rates, channel counts and sample values."""
    second = np.sin(np.arange(22_050) / 10).astype(np.float32) / 2
    broken = second.copy()
    broken[1000] = np.nan
    for name, samples, rate, subtype, usable in (
        ("no sample", second[:0], 22_050, "PCM_16", False),
        ("one sample", second[:1], 22_050, "PCM_16", True),
        ("8 bits", second, 22_050, "PCM_U8", True),
        ("24 bits", second, 22_050, "PCM_24", True),
        ("double", second, 22_050, "DOUBLE", True),
        ("not a number", broken, 22_050, "FLOAT", False),
        ("infinite", np.where(np.isnan(broken), np.inf, broken), 22_050, "FLOAT", False),
        ("eight channels", np.repeat(second[:, None], 8, 1), 22_050, "PCM_16", True),
        ("telephone", second[:8_000], 8_000, "PCM_16", True),
        ("bats", np.resize(second, 192_000), 192_000, "PCM_16", True),
        ("constant", np.full(22_050, 0.5, np.float32), 22_050, "PCM_16", True),
        ("clipped", np.sign(second), 22_050, "PCM_16", True),
        ("overshoot", 4 * second, 22_050, "FLOAT", True),
        ("silence", np.zeros(22_050, np.float32), 22_050, "PCM_16", True),
    ):
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
        yield name, file.getvalue(), usable


def odd_pictures() -> Iterator[tuple[str, bytes, bool]]:
    """Name, picture file and whether it is usable."""
    rgb = disc((96, 64), (0.5, 0.5))
    turned = Image.Exif()
    turned[0x0112] = 6
    image = Image.fromarray(rgb)
    deep = Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
    for name, made, kind, how, usable in (
        ("cmyk", image.convert("CMYK"), "JPEG", {}, True),
        ("grey", image.convert("L"), "PNG", {}, True),
        ("16 bits", deep, "PNG", {}, True),
        ("palette", image.convert("P"), "PNG", {}, True),
        ("transparent", image.convert("RGBA"), "PNG", {}, True),
        ("bilevel", image.convert("1"), "PNG", {}, True),
        ("turned", image, "JPEG", {"exif": turned}, True),
        ("animated", image, "WEBP", {"save_all": True, "append_images": [image, image]}, True),
        ("one pixel", image.crop((0, 0, 1, 1)), "PNG", {}, True),
        ("ribbon", image.resize((2000, 1)), "PNG", {}, True),
        ("huge", Image.new("1", (30_000, 30_000)), "PNG", {}, False),
        ("gif", image, "GIF", {}, True),
        ("tiff", image, "TIFF", {}, True),
    ):
        file = io.BytesIO()
        made.save(file, kind, **how)
        yield name, file.getvalue(), usable


def odd_videos(folder: Path) -> dict[str, bool]:
    """Write unusual videos; return whether each is usable, by id."""
    sound = tone(_SECONDS, _RATE)
    for name, how in (
        ("uneven.mp4", {"times": [0, 0.1, 0.15, 0.6, 1.5, 1.9]}),
        ("before-zero.mp4", {"times": [-0.5, 0, 0.5, 1, 1.5]}),
        ("one-picture.mp4", {"seconds": 0.1}),
        ("no-sound.mp4", {"sound": None}),
        ("one-sample.mkv", {"sound": sound[:1], "audio_codec": "flac"}),
        ("odd-size.mkv", {"size": (65, 47), "video_codec": "ffv1", "audio_codec": "flac"}),
        ("late-sound.mp4", {"sound_start_s": 1.0}),
        ("surround.mp4", {"sound": np.repeat(sound[None], 6, 0)}),
        ("long-pixels.mp4", {"pixel_aspect": Fraction(4, 3)}),
        ("turned.mp4", {}),
    ):
        make_video(folder / name, **{"seconds": _SECONDS, "sound": sound, "rate": _RATE, **how})
    turned = bytearray((folder / "turned.mp4").read_bytes())
    matrix = turned.index(b"tkhd") + 4 + 40
    turned[matrix : matrix + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)
    (folder / "turned.mp4").write_bytes(turned)
    shutil.copy(folder / "uneven.mp4", folder / "matroska-it-says.mkv")
    make_coded_sound(folder / "no-picture.m4a", sound, _RATE, "aac").rename(folder / "no-picture.mp4")
    return {path.stem: path.stem not in ("no-sound", "no-picture") for path in folder.iterdir()}


def odd_paths(folder: Path, whole: Path) -> dict[str, bool]:
    """Create pipes, symbolic links and undecodable names; return whether a store can hold each, by id."""
    os.mkfifo(folder / "pipe.mp4")
    for name, target in (("dangling", "nowhere"), ("loop-a", "loop-b.mp4"), ("loop-b", "loop-a.mp4"), ("link", whole)):
        (folder / f"{name}.mp4").symlink_to(target)
    (folder / "itself").symlink_to(".")
    shutil.copy(whole, os.fsencode(folder) + b"/no-\xff-text.mp4")
    shutil.copy(whole, folder / "\x1b]0;name\x07\n.mp4")
    refused = ("pipe", "dangling", "loop-a", "loop-b", "no-\\udcff-text")
    return {**dict.fromkeys(refused, False), "link": True, "\x1b]0;name\x07\n": True}
