"""Timelines as pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from avloc.ave import timeline_plot
from avloc.ave.timeline_plot import attention_overlay, shown_classes, write_timeline
from tests.synthetic_ave import some_timeline


@pytest.mark.parametrize(("seconds", "kind"), [(1, "PNG"), (10, "WEBP"), (75, "GIF"), (2, "JPEG")])
def test_a_timeline_of_any_length_is_a_picture_of_any_kind(tmp_path, seconds, kind):
    timeline = some_timeline(seconds)
    path = tmp_path / f"line.{kind.lower()}"
    write_timeline(path, timeline)
    with Image.open(path) as picture:
        assert (picture.format, picture.width > picture.height) == (kind, True)
    assert set(timeline.predicted.tolist()) <= set(shown_classes(timeline))


def test_bars_bear_their_own_names_and_silence_is_shown_plain(monkeypatch):
    timeline = replace(some_timeline(3), probabilities=np.eye(4, dtype=np.float32)[[2, 3, 0]])
    figure = Figure()
    rows = shown_classes(timeline)
    image = timeline_plot._draw_bars(figure.add_subplot(), timeline, rows)
    names = [label.get_text() for label in image.axes.get_yticklabels()]
    assert names == [timeline.classes[row] for row in rows]
    assert np.array_equal(image.get_array(), timeline.probabilities[:, rows].T)
    monkeypatch.setattr(timeline_plot, "attention_overlay", lambda picture, _attention: np.zeros_like(picture))
    strip = figure.add_subplot()
    timeline_plot._draw_strip(strip, timeline, 3)
    shown = strip.images[0].get_array()
    assert [bool(shown[:, place * 112 : (place + 1) * 112].any()) for place in range(3)] == [False, False, True]


def test_what_is_attended_to_is_bright():
    attention = np.full((7, 7), 0.01, np.float32)
    attention[1, 5] = 0.5
    bright = attention_overlay(np.zeros((112, 112, 3), np.uint8), attention).sum(2)
    assert bright[24, 88] > 200
    assert bright[90, 20] < 20


def test_a_narrow_video_has_a_timeline(tmp_path):
    write_timeline(tmp_path / "line.png", replace(some_timeline(3), aspect=0.003))
    with Image.open(tmp_path / "line.png") as picture:
        assert picture.height < 2_000
