"""The folder of AVE as a store: what is refused."""

from __future__ import annotations

import os

import numpy as np
import pytest

from avloc.ave.event_table import EVENTS
from tests.synthetic_ave import CLIPS, spoiled, write_ave


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "Annotations.txt").unlink(), "no Annotations.txt"),
        (lambda f: (f / "val_order.h5").unlink(), "val_order.h5 is missing"),
        (lambda f: (f / "audio_feature.h5").unlink(), "without audio_feature.h5"),
        (lambda f: (f / "visual_feature.h5").write_bytes(b"no"), "visual_feature.h5 cannot be read"),
        (lambda f: spoiled(f / "visual_feature.h5", np.zeros((CLIPS, 10, 512))), "not floats of"),
        (lambda f: spoiled(f / "audio_feature.h5", np.zeros((7, 10, 128))), "has 7 rows, but there are 60"),
        (lambda f: spoiled(f / "audio_feature.h5", np.full((CLIPS, 10, 128), np.nan)), "row 0"),
        (lambda f: ((f / "audio_feature.h5").unlink(), os.mkfifo(f / "audio_feature.h5")), "not a regular file"),
        (lambda f: ((f / "a").mkdir(), (f / "a" / "Annotations.txt").write_text("x")), "both exist"),
        (lambda f: (f / "val_order.h5").write_bytes((f / "train_order.h5").read_bytes()), "in train already"),
    ],
)
def test_an_inconsistent_folder_is_refused(folder, tmp_path, here, spoil, words):
    copy = tmp_path / "AVE"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)
    for name in ("Annotations.txt", "val_order.h5", "audio_feature.h5", "visual_feature.h5"):
        (copy / name).unlink()
        (copy / name).write_bytes((folder / name).read_bytes())
    spoil(copy)
    done = here("prepare", copy, "--layout", "ave", "--out", tmp_path / "store")
    assert (done.code, words in done.err) == (2, True), done.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--shard", "1/2"), "--shard 1/2 does not apply to released features"),
        (("--rate", "8000"), "--rate does not apply to --layout ave"),
        (("--side", "0"), "--side does not apply to --layout ave"),
        (("--for", "lvs"), "--for does not apply to --layout ave"),
    ],
)
def test_options_that_do_not_apply_to_ave_are_refused(folder, tmp_path, here, flags, words):
    done = here("prepare", folder, "--layout", "ave", "--out", tmp_path / "store", *flags)
    assert (done.code, words in done.err) == (2, True), done.err


def test_a_store_of_other_events_is_refused(folder, store, tmp_path, here):
    before = (store / EVENTS).read_bytes()
    other = write_ave(tmp_path / "AVE", clips=10, events=2)
    done = here("prepare", other, "--layout", "ave", "--out", store)
    assert (done.code, "a store of other events" in done.err) == (5, True), done.err
    assert (store / EVENTS).read_bytes() == before
