"""Videos whose grey level encodes the time, 20 + 20 t, with a tone from 2 to 2.5 s."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.media_makers import grey_ramp, make_video, tone

RATE = 48_000
FPS = 25


def film(path: Path, **changes) -> Path:
    """Write four seconds of grey that encodes the time, with a tone from 2 to 2.5 s."""
    sound = tone(4, RATE, span=(2.0, 2.5))
    made = {"seconds": 4, "fps": FPS, "frame_fn": grey_ramp((64, 48)), "sound": sound, "rate": RATE}
    return make_video(path, **made | changes)


def picture_time(picture: np.ndarray) -> float:
    """The time that a picture encodes, in seconds."""
    return (picture.mean() - 20) / 20


def loud_span(window) -> tuple[float, float] | None:
    """First and last moment above 4 % of full scale, on the file's timeline."""
    loud = np.nonzero(np.abs(window.waveform) > 0.04)[0]
    return (window.start_s + loud[0] / window.rate, window.start_s + loud[-1] / window.rate) if len(loud) else None


PIPED = {
    "mkv": {"piped": "matroska"},
    "webm": {"piped": "webm", "video_codec": "libvpx", "audio_codec": "libopus"},
    "live.webm": {"muxer": {"live": "1"}, "video_codec": "libvpx", "audio_codec": "libopus"},
    "asf": {"piped": "asf", "audio_codec": "libmp3lame"},
    "flv": {"piped": "flv", "video_codec": "flv"},
    "zeroed.mp4": {},
}
"""Ways to write a file without duration."""


def without_length(folder: Path, kind: str) -> Path:
    path = film(folder / f"a.{kind}", **PIPED[kind])
    if kind == "zeroed.mp4":
        data = bytearray(path.read_bytes())
        for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
            at = -1
            while (at := data.find(box, at + 1)) >= 0:
                data[at + offset : at + offset + 4] = bytes(4)
        path.write_bytes(data)
    return path
