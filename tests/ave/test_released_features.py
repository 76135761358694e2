"""Released features as hints of a store."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from avloc.ave.annotations import LABELS_KEY, read_rows
from avloc.ave.event_table import EVENTS, NOISE, EventTable
from avloc.store import Hints
from tests.synthetic_ave import CLIPS, KINDS, NOISE_ROWS, OWN, spoiled


def test_released_features_become_hints_row_by_row(folder, store, here):
    table = EventTable.of(store)
    assert table.classes == tuple(f"Event {number}" for number in range(KINDS))
    rows = [row for row in table.rows if row.split != NOISE]
    assert [row.annotation for row in rows] == list(read_rows(folder / "Annotations.txt"))
    assert len(table.part(NOISE)) == NOISE_ROWS
    with h5py.File(folder / "visual_feature.h5") as visual, h5py.File(folder / "audio_feature_noisy.h5") as audio:
        for number in (0, CLIPS - 1):
            kept = Hints(store, "vgg19").read(rows[number].clip)
            assert np.array_equal(kept, visual[LABELS_KEY][number].astype(np.float16))
        kept = Hints(store, "vggish").read(table.part(NOISE)[3].clip)
        assert np.array_equal(kept, audio[LABELS_KEY][3].astype(np.float16))
    with h5py.File(store / "labels.h5") as file:
        labels = file[LABELS_KEY][:]
    assert labels.shape == (CLIPS, 10, KINDS + 1)
    assert np.array_equal(labels.argmax(2), table.labels(rows))
    again = here("prepare", folder, "--layout", "ave", "--out", store, "--json")
    assert (again.code, json.loads(again.out)["stored"], json.loads(again.out)["already"]) == (0, 0, CLIPS + NOISE_ROWS)


def test_an_interrupted_preparation_is_resumed(folder, store, tmp_path):
    from avloc.prepare import PrepareOptions, prepare

    class Enough(Exception):
        pass

    def listener(event) -> None:
        if getattr(event, "done", 0) == 20:
            raise Enough

    out = tmp_path / "ave"
    with pytest.raises(Enough):
        prepare([str(folder)], out, PrepareOptions(layout="ave"), listener)
    assert 0 < len(Hints(out, "vggish").shards) < CLIPS
    prepare([str(folder)], out, PrepareOptions(layout="ave"))
    for teacher in ("vgg19", "vggish"):
        ours, theirs = Hints(out, teacher), Hints(store, teacher)
        assert ours.shards.ids == theirs.shards.ids
        assert all(np.array_equal(ours.read(clip), theirs.read(clip)) for clip in ours.shards.ids)
    assert (out / EVENTS).read_text() == (store / EVENTS).read_text()


def test_noise_needs_both_of_its_files_and_no_means(folder, tmp_path, here):
    """The released means over cells have no partner with noise."""
    copy = tmp_path / "AVE"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)
    spoiled(copy / "visual_feature_vec.h5", np.ones((CLIPS, 10, 512)))
    done = here("prepare", copy, "--layout", "ave", "--out", tmp_path / "a", "--json")
    assert json.loads(done.out)["found"] == CLIPS + NOISE_ROWS
    assert Hints(tmp_path / "a", "vgg19-pooled").read("video00000").shape == (10, 1, 1, 512)
    (copy / "audio_feature_noisy.h5").unlink()
    done = here("prepare", copy, "--layout", "ave", "--out", tmp_path / "b", "--json")
    assert (json.loads(done.out)["found"], "the files of noise are not used" in done.err) == (CLIPS, True)
    flags = (*OWN, "--epochs", "1", "--batch", "16", "--set", "ave.weak=true")
    done = here("train", tmp_path / "b", "--method", "ave", "--out", tmp_path / "run", *flags)
    assert (done.code, "there are no rows of noise" in done.err) == (0, True)
