"""A folder of short videos, with a broken file, files that are not videos, and a folder named like a video."""

from __future__ import annotations

from pathlib import Path

from tests.media_makers import disc, make_picture, make_video, tone
from tests.responsive_model import RATE


def write_clips(folder: Path) -> Path:
    """a.mp4 and b.mkv, four seconds each, the second half of b silent; a broken c.avi; files that are not videos."""
    make_clip(folder / "a.mp4")
    make_clip(folder / "b.mkv", sound=tone(4, RATE, span=(0, 0.5)), audio_codec="flac")
    (folder / "c.avi").write_text("no video")
    (folder / "notes.txt").write_text("none either")
    (folder / ".hidden.mp4").write_text("nor this")
    make_picture(folder / "p.png", disc((64, 48), (0.3, 0.5)))
    (folder / "deeper.mp4").mkdir()
    make_clip(folder / "deeper.mp4" / "d.mp4")
    return folder


def make_clip(path: Path, **changes) -> Path:
    """Four seconds with a tone."""
    return make_video(path, **{"seconds": 4, "fps": 5, "sound": tone(4, RATE), "rate": RATE, **changes})
