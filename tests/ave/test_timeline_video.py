"""Timelines as videos."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from avloc.ave.timeline_video import write_timeline_video
from avloc.errors import InputError
from avloc.media.video_stream import stream_frames
from tests.media_makers import make_video, tone
from tests.synthetic_ave import some_timeline


def test_a_video_is_lit_where_each_second_looks(tmp_path):
    source, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    make_video(source, seconds=3.4, fps=10, size=(224, 224), sound=tone(3.4, 22_050))
    attention = np.full((3, 7, 7), 0.001, np.float32)
    for second, cell in enumerate(((1, 1), (1, 5), (1, 3))):
        attention[second][cell] = 1
    movie = write_timeline_video(source, out, replace(some_timeline(3), attention=attention))
    before, after = list(stream_frames(source)), list(stream_frames(out))
    assert (movie.frames, movie.has_sound, len(after)) == (34, True, 34)
    for old, new in zip(before, after, strict=True):
        change = np.abs(new.picture().astype(int) - old.picture().astype(int)).sum(2)
        second, places = int(old.start), ((48, 48), (48, 176))
        lit = [change[y - 8 : y + 8, x - 8 : x + 8].mean() > 60 for y, x in places]
        assert lit == [second == 0, second == 1], (old.start, second)  # the third second is silent, then there is none


def test_the_video_bears_what_was_told(tmp_path, monkeypatch):
    make_video(tmp_path / "in.mp4", seconds=3.4, fps=5, sound=tone(3.4, 22_050))
    timeline = replace(some_timeline(3), probabilities=np.eye(4, dtype=np.float32)[[2, 3, 0]])
    captions = []

    def draw(picture, *_args, caption, **_how):
        captions.append(caption)
        return picture

    monkeypatch.setattr("avloc.ave.timeline_video.draw_overlay", draw)
    monkeypatch.setattr("avloc.ave.timeline_video.draw_silent", draw)
    write_timeline_video(tmp_path / "in.mp4", tmp_path / "out.mp4", timeline)
    assert list(dict.fromkeys(captions)) == ["Event 2 100 %", "background 100 %", "silent: no source", ""]


def test_a_video_that_breaks_off_leaves_nothing(tmp_path):
    make_video(tmp_path / "in.mp4", seconds=3.0, fps=10, size=(224, 224), sound=tone(3.0, 22_050))
    data = (tmp_path / "in.mp4").read_bytes()
    (tmp_path / "in.mp4").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError):
        write_timeline_video(tmp_path / "in.mp4", tmp_path / "out.mp4", some_timeline(3))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
