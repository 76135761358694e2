"""A clip and a picture to localize in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media_makers import disc, make_picture, make_video, tone


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    return make_picture(tmp_path_factory.mktemp("picture") / "a.jpg", disc((64, 48), (0.5, 0.5)))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Three seconds, 64 x 48, with a tone."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return make_video(path, seconds=3, fps=5, sound=tone(3, 22_050), rate=22_050)
