"""Timelines as JSON, spans, pictures and videos."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from avloc.ave import timeline as module
from avloc.ave.localization import VideoEvents
from avloc.ave.timeline import attention_overlay, shown_classes, write_timeline, write_timeline_video
from avloc.errors import InputError
from avloc.media.video_stream import stream_frames
from tests.media_makers import make_video, tone
from tests.synthetic_ave import some_timeline


def test_json_has_the_event_and_the_attention_peak_of_every_second():
    attention = np.full((3, 7, 7), 0.001, np.float32)
    attention[:, 1, 5] = 1  # second row, sixth column
    timeline = replace(some_timeline(3), probabilities=np.eye(4, dtype=np.float32)[[2, 3, 0]], attention=attention)
    line = VideoEvents(input="a", model="b", timeline=timeline).as_json()
    seconds = [tuple(entry.values()) for entry in line["per_second"]]
    place = [round(5.5 / 7, 4), round(1.5 / 7, 4)]
    assert seconds == [
        (0, "Event 2", False, 1.0, place),
        (1, "background", False, 1.0, place),
        (2, "background", True, None, None),  # silent, whatever the prediction
    ]
    assert line["events"] == [{"event": "Event 2", "start": 0, "end": 1, "confidence": 1.0}]


def test_spans_are_runs_of_one_event():
    timeline = replace(
        some_timeline(6, 2),
        probabilities=np.eye(3, dtype=np.float32)[[0, 0, 2, 1, 1, 0]] * np.float32(0.8),
    )
    assert [(span.event, span.start, span.end, span.confidence) for span in timeline.spans] == [
        ("Event 0", 0, 2, 0.8),
        ("Event 1", 3, 5, 0.8),
        ("Event 0", 5, 6, 0.8),
    ]


@pytest.mark.parametrize(("seconds", "kind"), [(1, "PNG"), (10, "WEBP"), (75, "GIF"), (2, "JPEG")])
def test_a_picture_of_any_length_and_format(tmp_path, seconds, kind):
    timeline = some_timeline(seconds)
    path = tmp_path / f"line.{kind.lower()}"
    write_timeline(path, timeline)
    with Image.open(path) as picture:
        assert (picture.format, picture.width > picture.height) == (kind, True)
    assert set(timeline.predicted.tolist()) <= set(shown_classes(timeline))


def test_bars_have_the_names_of_their_classes_and_silence_has_no_overlay(monkeypatch):
    timeline = replace(some_timeline(3), probabilities=np.eye(4, dtype=np.float32)[[2, 3, 0]])
    figure = Figure()
    rows = shown_classes(timeline)
    image = module._draw_bars(figure.add_subplot(), timeline, rows)
    names = [label.get_text() for label in image.axes.get_yticklabels()]
    assert names == [timeline.classes[row] for row in rows]
    assert np.array_equal(image.get_array(), timeline.probabilities[:, rows].T)
    monkeypatch.setattr(module, "attention_overlay", lambda picture, _attention: np.zeros_like(picture))
    strip = figure.add_subplot()
    module._draw_strip(strip, timeline, 3)
    shown = strip.images[0].get_array()
    assert [bool(shown[:, place * 112 : (place + 1) * 112].any()) for place in range(3)] == [False, False, True]


def test_the_overlay_is_bright_at_the_attention():
    attention = np.full((7, 7), 0.01, np.float32)
    attention[1, 5] = 0.5
    bright = attention_overlay(np.zeros((112, 112, 3), np.uint8), attention).sum(2)
    assert bright[24, 88] > 200
    assert bright[90, 20] < 20


def test_a_narrow_video_has_a_timeline(tmp_path):
    write_timeline(tmp_path / "line.png", replace(some_timeline(3), aspect=0.003))
    with Image.open(tmp_path / "line.png") as picture:
        assert picture.height < 2_000


def test_a_video_is_bright_at_the_attention_of_each_second(tmp_path):
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


def test_captions_of_a_video_are_the_predicted_events(tmp_path, monkeypatch):
    make_video(tmp_path / "in.mp4", seconds=3.4, fps=5, sound=tone(3.4, 22_050))
    timeline = replace(some_timeline(3), probabilities=np.eye(4, dtype=np.float32)[[2, 3, 0]])
    captions = []

    def draw(picture, *_args, caption, **_how):
        captions.append(caption)
        return picture

    monkeypatch.setattr("avloc.ave.timeline.draw_overlay", draw)
    monkeypatch.setattr("avloc.ave.timeline.draw_silent", draw)
    write_timeline_video(tmp_path / "in.mp4", tmp_path / "out.mp4", timeline)
    assert list(dict.fromkeys(captions)) == ["Event 2 100 %", "background 100 %", "silent: no source", ""]


def test_a_video_that_breaks_off_leaves_nothing(tmp_path):
    make_video(tmp_path / "in.mp4", seconds=3.0, fps=10, size=(224, 224), sound=tone(3.0, 22_050))
    data = (tmp_path / "in.mp4").read_bytes()
    (tmp_path / "in.mp4").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError):
        write_timeline_video(tmp_path / "in.mp4", tmp_path / "out.mp4", some_timeline(3))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
