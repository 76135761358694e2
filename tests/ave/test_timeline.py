"""Timelines as JSON and as spans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from avloc.ave.localization import VideoEvents
from tests.synthetic_ave import some_timeline


def test_a_line_says_what_happens_when_and_where():
    attention = np.full((3, 7, 7), 0.001, np.float32)
    attention[:, 1, 5] = 1  # second row, sixth column
    timeline = replace(some_timeline(3), probabilities=np.eye(4, dtype=np.float32)[[2, 3, 0]], attention=attention)
    line = VideoEvents(input="a", model="b", timeline=timeline).as_json()
    seconds = [tuple(entry.values()) for entry in line["per_second"]]
    place = [round(5.5 / 7, 4), round(1.5 / 7, 4)]
    assert seconds == [
        (0, "Event 2", False, 1.0, place),
        (1, "background", False, 1.0, place),
        (2, "background", True, None, None),  # silent, whatever the model says
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
