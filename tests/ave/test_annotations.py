"""Rows of Annotations.txt, labels and orders."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest

from avloc.ave.annotations import (
    AVE_CLASSES,
    AveRow,
    categories,
    presence,
    read_order,
    read_rows,
)
from avloc.ave.event_table import EventRow, EventTable
from avloc.ave.metrics import accuracy
from avloc.errors import UsageError
from tests.program import ROOT

PUBLISHED = ROOT.parent / "shared" / "data" / "ave"


needs_published_labels = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="AVE's published labels lie beside the checkout and are not there"
)


PARTS = ("train", "val", "test")


TEXT = "Bell&abc_-def123&good&0&10\nDog bark&b&good&2&5\nBell&c&good&0&0\n"


HEADING = "Category&VideoID&Quality&StartTime&EndTime\n"


def written(tmp_path, text: str | bytes):
    path = tmp_path / "Annotations.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table_of(rows) -> EventTable:
    return EventTable(classes=categories(rows), rows=tuple(EventRow(clip=row.video, annotation=row) for row in rows))


def _order(path, values) -> None:
    with h5py.File(path, "w") as file:
        file["order"] = values


@pytest.mark.parametrize("text", [TEXT, HEADING + TEXT, TEXT.replace("\n", "\r\n"), "\ufeff" + HEADING + TEXT + "\n"])
def test_rows_give_labels_and_presence(tmp_path, text):
    rows = read_rows(written(tmp_path, text))
    assert rows[1] == AveRow(video="b", category="Dog bark", quality="good", start=2, end=5)
    table = table_of(rows)
    assert table.classes == ("Bell", "Dog bark")
    labels = table.labels(table.rows)
    assert labels.dtype == np.int64
    assert labels.tolist() == [[0] * 10, [2, 2, 1, 1, 1, 2, 2, 2, 2, 2], [2] * 10]
    assert presence(rows).dtype == np.float32
    assert presence(rows).tolist() == (labels < 2).astype(float).tolist()
    assert table.clip_classes(table.rows).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TEXT + "Bell&d&good&1", "line 4: 4 fields"),
        (TEXT + HEADING, "line 4: Start = 'StartTime'"),
        ("Bell&d&good&-1&5", "line 1: Start = '-1'; valid: a whole second, 0 to 10"),
        ("Bell&d&good&1&11", "line 1: End = '11'"),
        ("Bell&d&good&1&2.5", "line 1: End = '2.5'"),
        (HEADING + "Bell&d&good&5&4", "line 2: Start = 5 is after End = 4"),
        ("&d&good&1&2", "line 1: no category"),
        ("Bell&../d&good&1&2", "VideoID '../d' is not a file name"),
        (HEADING, "has no rows"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_invalid_annotations_are_refused_with_the_line(tmp_path, text, reason):
    with pytest.raises(UsageError, match=f"Annotations.txt.*{re.escape(reason)}"):
        read_rows(written(tmp_path, text))
    with pytest.raises(UsageError, match="nowhere cannot be read"):
        read_rows(tmp_path / "nowhere")


def test_an_unknown_category_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'Dog bark'.* has an unknown category"):
        replace(table_of(read_rows(written(tmp_path, TEXT))), classes=("Bell",)).check()


def test_labels_are_written_as_the_published_script_reads_them(tmp_path):
    table = table_of(read_rows(written(tmp_path, TEXT)))
    table.write_labels(tmp_path / "labels.h5")
    with h5py.File(tmp_path / "labels.h5") as file:
        labels = file["avadataset"]
        assert (labels.shape, labels.dtype, labels.chunks) == ((3, 10, 3), np.float32, None)
        assert np.array_equal(labels[:].argmax(-1), table.labels(table.rows))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([0, 3]), "names row 3; valid: 0 to 2"),
        (np.array([0, -1]), "names row -1"),
        (np.array([1, 1]), "names a row twice"),
        (np.array([0.0, 1.0]), "not a vector of whole numbers"),
        (np.array([[0, 1]]), "not a vector of whole numbers"),
        (np.arange(4), "4 entries for 3 rows"),
        (h5py.ExternalLink("other.h5", "order"), "stored in another file"),
        (h5py.SoftLink("/rows"), "stored in another file"),
    ],
)
def test_an_invalid_order_is_refused(tmp_path, values, reason):
    _order(tmp_path / "test_order.h5", values)
    with pytest.raises(UsageError, match=f"test_order.h5.*{reason}"):
        read_order(tmp_path / "test_order.h5", 3)


def test_an_order_is_read(tmp_path):
    path = tmp_path / "order.h5"
    _order(path, np.array([2, 0], np.uint16))
    assert read_order(path, 3) == [2, 0]
    path.write_bytes(path.read_bytes()[:700])
    for broken in (path, tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match="cannot be read as an order of rows"):
            read_order(broken, 3)


@needs_published_labels
def test_the_published_labels_follow_from_the_annotations(tmp_path):
    rows = read_rows(PUBLISHED / "Annotations.txt")
    table = table_of(rows)
    assert (len(rows), len(table.classes)) == (4143, 28)
    assert (table.classes[0], table.classes[-1]) == ("Church bell", "Mandolin")
    assert table.classes == AVE_CLASSES
    of_clips = np.eye(29, dtype=np.float32)[table.clip_classes(table.rows)]
    for name, ours in (("labels_closs", presence(rows)), ("mil_labels", of_clips)):
        with h5py.File(PUBLISHED / f"{name}.h5") as file:
            assert file["avadataset"].dtype == ours.dtype
            assert np.array_equal(file["avadataset"][:], ours)
    labels = table.labels(table.rows)
    assert np.array_equal(labels < 28, presence(rows) > 0)
    with h5py.File(PUBLISHED / "mil_labels.h5") as file:
        category = file["avadataset"][:].argmax(-1)
    assert np.array_equal(labels, np.where(presence(rows) > 0, category[:, None], 28))
    test = read_order(PUBLISHED / "test_order.h5", len(rows))
    assert accuracy(28, labels[test]) == pytest.approx(0.178, abs=5e-4)


@needs_published_labels
def test_the_published_splits_share_videos_but_no_rows():
    rows = read_rows(PUBLISHED / "Annotations.txt")
    parts = {name: read_order(PUBLISHED / f"{name}_order.h5", len(rows)) for name in PARTS}
    assert sorted(itertools.chain(*parts.values())) == list(range(len(rows)))
    videos = {name: {rows[row].video for row in part} for name, part in parts.items()}
    assert len(videos["train"] & videos["test"]) == 8
    assert len(videos["train"] & videos["val"]) == 10
    match = {name: read_order(PUBLISHED / f"{name}_order_match.h5", len(rows)) for name in PARTS}
    assert len({*itertools.chain(*match.values())}) == len(rows)
    assert all(0 < rows[row].end - rows[row].start < 10 for row in match["test"])
