"""events.json: what is refused, and labels of clips."""

from __future__ import annotations

from dataclasses import replace

import pytest

from avloc.ave.event_table import EVENTS, NOISE, EventTable
from avloc.errors import Refused
from tests.synthetic_ave import KINDS


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"schema": 9, "classes": [], "rows": []}',
        '{"schema": 1, "classes": ["a", "a"], "rows": []}',
        '{"schema": 1, "classes": ["a"], "rows": [{"clip": "x"}]}',
        '{"schema": 1, "classes": ["a"], "rows": [{"clip": "x", "split": "train", "match": "", "said": '
        '{"video": "x", "category": "a", "quality": "", "start": 3, "end": 11}}]}',
        '{"schema": 1, "classes": ["a"], "rows": [{"clip": "x", "split": "moon", "match": "", "said": '
        '{"video": "x", "category": "a", "quality": "", "start": 3, "end": 9}}]}',
        '{"schema": 1, "classes": ["a"], "rows": [{"clip": "x", "split": "test", "match": "", "said": '
        '{"video": "x", "category": "b", "quality": "", "start": 3, "end": 9}}]}',
    ],
)
def test_an_invalid_table_of_events_is_refused(tmp_path, text):
    (tmp_path / EVENTS).write_text(text)
    with pytest.raises(Refused, match="events"):
        EventTable.of(tmp_path)


def test_a_clip_is_of_its_category_and_noise_is_background(store):
    table = EventTable.of(store)
    rows = [
        *table.rows[:3],
        table.part(NOISE)[0],
        replace(table.rows[0], annotation=replace(table.rows[0].annotation, end=0, start=0)),
    ]
    assert table.clip_classes(rows).tolist() == [0, 1, 2, KINDS, 0]
