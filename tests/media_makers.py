"""Synthetic videos, sounds and pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

FrameFn = Callable[[float], NDArray[np.uint8]]


def tone(seconds: float, rate: int, *, hz: float = 1000.0, span: tuple[float, float] | None = None) -> NDArray:
    """[samples] a sine of amplitude 0.5, silent outside `span` (seconds)."""
    t = np.arange(round(seconds * rate)) / rate
    start, stop = span or (0.0, seconds)
    return (0.5 * np.sin(2 * np.pi * hz * t) * ((t >= start) & (t < stop))).astype(np.float32)


def noise(seconds: float, rate: int) -> NDArray:
    """[samples] white noise, always the same."""
    return (0.3 * np.random.default_rng(0).standard_normal(round(seconds * rate))).clip(-1, 1).astype(np.float32)


def disc(size: tuple[int, int], centre: tuple[float, float], *, radius: float = 0.2, colour=(230, 40, 40)) -> NDArray:
    """[H, W, 3] a coloured disc on grey; `centre` (x, y) and `radius` in fractions."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    inside = (x / width - centre[0]) ** 2 + (y / height - centre[1]) ** 2 < radius**2
    rgb = np.full((height, width, 3), 90, np.uint8)
    rgb[inside] = colour
    return rgb


def moving_disc(size: tuple[int, int], seconds: float) -> FrameFn:
    """A disc that moves from left to right."""
    return lambda t: disc(size, (0.2 + 0.6 * t / seconds, 0.5))


def grey_ramp(size: tuple[int, int], *, per_second: float = 20.0) -> FrameFn:
    """Uniform grey that encodes the time: level = 20 + per_second * t."""
    return lambda t: np.full((size[1], size[0], 3), round(20 + per_second * t), np.uint8)


def make_video(
    path: Path,
    *,
    seconds: float = 4.0,
    fps: int = 10,
    size: tuple[int, int] = (64, 48),
    frame_fn: FrameFn | None = None,
    sound: NDArray | None = None,
    rate: int = 22_050,
    sound_start_s: float = 0.0,
    video_codec: str = "mpeg4",
    audio_codec: str = "aac",
    options: dict[str, str] | None = None,
    times: list[float] | None = None,
    pixel_aspect: Fraction | None = None,
    faststart: bool = False,
    pictures_start_s: float = 0.0,
    pix_fmt: str = "yuv420p",
    muxer: dict[str, str] | None = None,
    piped: str = "",
) -> Path:
    """Write a video.

    Args:
        path: its suffix selects the container.
        seconds: length of the pictures.
        fps: pictures per second.
        size: width and height, both even.
        frame_fn: RGB [H, W, 3] at a time in seconds; a moving disc if None.
        sound: [samples] or [channels, samples] in [-1, 1]; None leaves the sound out.
        rate: sample rate of `sound`.
        sound_start_s: when the sound stream begins.
        video_codec: FFmpeg's name.
        audio_codec: FFmpeg's name.
        options: for the video codec.
        times: when each picture is shown, in place of a steady rate.
        pixel_aspect: width over height of a pixel.
        faststart: put the index of an MP4 in front.
        pictures_start_s: when the pictures begin.
        pix_fmt: FFmpeg's name of how pictures are coded.
        muxer: options of FFmpeg's muxer.
        piped: FFmpeg's name of a format that is written as into a pipe, so that nothing in front can be corrected.
    """
    frame_fn = frame_fn or moving_disc(size, seconds)
    options_of_file = {**(muxer or {}), **({"movflags": "faststart"} if faststart else {})}
    with ExitStack() as stack:
        target = Piped(stack.enter_context(path.open("wb"))) if piped else str(path)
        container = stack.enter_context(av.open(target, "w", format=piped or None, options=options_of_file))
        video = container.add_stream(video_codec, rate=fps, options=options or {})
        video.width, video.height = size
        video.pix_fmt = pix_fmt
        video.bit_rate = 4_000_000
        if pixel_aspect is not None:
            video.codec_context.sample_aspect_ratio = pixel_aspect
        video.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, fps)
        audio = None
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=rate, layout=_layout(sound))
        for index, time in enumerate(times or [i / fps for i in range(round(seconds * fps))]):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_fn(time)), format="rgb24")
            frame.pts = round(time * 1000) if times else index + round(pictures_start_s * fps)
            frame.time_base = video.codec_context.time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            _encode_sound(container, audio, sound, rate, sound_start_s)
    return path


class Piped:
    """A file that cannot seek."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


def hdr_frame(
    signal: NDArray[np.float64], transfer: int, *, pix_fmt: str = "yuv444p10le", matrix: int = 9, full: bool = False
) -> av.VideoFrame:
    """A frame of 10 bits.

    Args:
        signal: [H, W, 3] RGB of BT.2020 in [0, 1].
        transfer: FFmpeg's code of what the signal means: 16 is PQ, 18 HLG.
        pix_fmt: `yuv444p10le`, `yuv420p10le` or `gbrp10le`.
        matrix: FFmpeg's code as in the frame; luma and chroma are always those of BT.2020.
        full: full range; RGB always is.
    """
    height, width = signal.shape[:2]
    red, green, blue = np.moveaxis(signal, 2, 0)
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    black, white, chroma = (0, 1023, 1023) if full else (64, 876, 896)
    planes = [black + white * luma, 512 + chroma * (blue - luma) / 1.8814, 512 + chroma * (red - luma) / 1.4746]
    if pix_fmt == "gbrp10le":
        planes, matrix = [1023 * green, 1023 * blue, 1023 * red], 0
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, values in zip(frame.planes, planes, strict=True):
        step = width // plane.width
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = np.clip(np.round(values[::step, ::step]), 0, 1023)
        plane.update(rows)
    frame.colorspace, frame.color_primaries, frame.color_trc = matrix, 9, transfer
    frame.color_range = 2 if full else 1
    return frame


def make_hdr_video(
    path: Path,
    signal: NDArray[np.float64],
    transfer: int,
    *,
    codec: str = "ffv1",
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv444p10le",
    sound: NDArray | None = None,
    rate: int = 22_050,
) -> Path:
    """Write a second of `hdr_frame`, ten times, tagged as such; `sound` is [samples] in [-1, 1]."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=10, options=options or {})
        video.height, video.width, video.pix_fmt = signal.shape[0], signal.shape[1], pix_fmt
        context = video.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, transfer, 1
        audio = None if sound is None else container.add_stream("aac", rate=rate, layout=_layout(sound))
        for index in range(10):
            frame = hdr_frame(signal, transfer, pix_fmt=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            _encode_sound(container, audio, sound, rate, 0.0)
    return path


def make_coded_sound(path: Path, sound: NDArray, rate: int, codec: str, *, cover: NDArray | None = None) -> Path:
    """Write a sound file with FFmpeg (mp3, m4a, opus ...); `cover` [H, W, 3] becomes an attached picture."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream(codec, rate=rate, layout=_layout(sound))
        art = None
        if cover is not None:
            art = container.add_stream("mjpeg", rate=1)
            art.width, art.height, art.pix_fmt = cover.shape[1], cover.shape[0], "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic.value
            container.mux(art.encode(av.VideoFrame.from_ndarray(cover, format="rgb24")))
            container.mux(art.encode(None))
        _encode_sound(container, audio, sound, rate, 0.0)
    return path


def make_sound(path: Path, sound: NDArray, rate: int, *, subtype: str | None = None) -> Path:
    """Write [samples] or [channels, samples] as wav, flac or ogg."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound.T, rate, subtype=subtype)
    return path


def make_picture(path: Path, rgb: NDArray, **save) -> Path:
    """Write a picture; the suffix selects the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, **save)
    return path


def _layout(sound: NDArray) -> str:
    return {1: "mono", 2: "stereo", 6: "5.1"}[np.atleast_2d(sound).shape[0]]


def _encode_sound(container, stream, sound: NDArray, rate: int, start_s: float) -> None:
    data = np.atleast_2d(sound).astype(np.float32)
    resampler = av.AudioResampler(format=stream.format, layout=_layout(sound), rate=rate)
    block = stream.codec_context.frame_size or 1024
    for begin in range(0, data.shape[1], block):
        piece = np.ascontiguousarray(data[:, begin : begin + block])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=_layout(sound))
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = begin + round(start_s * rate)
        for ready in resampler.resample(frame):
            container.mux(stream.encode(ready))
    container.mux(stream.encode(None))
