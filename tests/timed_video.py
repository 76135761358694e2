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
