"""Hints of teachers: round trips, stamps, and what is refused."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from avloc.errors import Refused
from avloc.store import Hints, HintStamp, HintWriter

STAMP = HintStamp(teacher="panns", shape=(4,), weights={"file": "hash"}, settings={"normalise": True})


@pytest.mark.parametrize(
    "stamp",
    [
        b"[" * 100_000,
        b"[]",
        b'{"teacher": "panns"}',
        b'{"teacher": "detr", "shape": [3]}',
        b'{"teacher": "panns", "shape": ["a"]}',
    ],
)
def test_a_malformed_hint_stamp_is_refused(intact_store, tmp_path, stamp):
    shutil.copytree(intact_store, tmp_path / "store")
    (tmp_path / "store" / "hints-panns" / "stamp.json").write_bytes(stamp)
    with pytest.raises(Refused, match=r"stamp\.json"):
        Hints(tmp_path / "store", "panns")


def test_hints_whose_shape_differs_from_their_stamp_are_refused(intact_store, tmp_path):
    shutil.copytree(intact_store, tmp_path / "store")
    with h5py.File(tmp_path / "store" / "hints-panns" / "shard-00000.h5", "r+") as file:
        del file["value"]
        file["value"] = np.zeros((3, 1 << 12), "f2")
    hints = Hints(tmp_path / "store", "panns")
    with pytest.raises(Refused, match="value has shape"):
        hints.read(hints.shards.ids[0])


def test_hints_and_their_absence_round_trip(tmp_path):
    values = {"a": np.arange(4.0), "b": None, "c": np.full(4, 0.5)}
    with HintWriter(tmp_path, STAMP, shard_clips=2) as writer:
        for name, value in values.items():
            writer.add(name, value)
    hints = Hints(tmp_path, "panns")
    assert hints.read("a").tolist() == [0, 1, 2, 3]
    assert hints.read("a").dtype == np.float16
    assert hints.read("b") is None
    assert hints.stamp["weights"] == {"file": "hash"}
    with pytest.raises(KeyError):
        hints.read("never run")


def test_other_stamp_is_refused_and_the_difference_named(tmp_path):
    with HintWriter(tmp_path, STAMP):
        pass
    with HintWriter(tmp_path, STAMP):
        pass
    other = HintStamp(teacher="panns", shape=(4,), weights={"file": "other"}, settings={"normalise": True})
    with pytest.raises(Refused, match="weights differ"), HintWriter(tmp_path, other):
        pass


def test_error_for_absent_hints_names_the_command(tmp_path):
    with pytest.raises(Refused) as caught:
        Hints(tmp_path, "detr")
    assert "distill-cache" in caught.value.hint
