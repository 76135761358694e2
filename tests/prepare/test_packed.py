"""Packed sets: files that link to others are refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from avloc.errors import InputError
from avloc.prepare.packed import read_row
from avloc.prepare.sources import Source


def test_a_packed_set_that_links_to_another_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["frames"] = np.zeros((2, 8, 8, 3), "f4")
    frames, sounds = tmp_path / "h5py_train_frames_10k.h5", tmp_path / "h5py_train_audios_10k.h5"
    with h5py.File(frames, "w") as file:
        file["train_frames"] = h5py.ExternalLink("secret.h5", "frames")
    with h5py.File(sounds, "w") as file:
        file["train_audios"] = np.zeros((2, 48_000), "f4")
    with pytest.raises(InputError, match="stored in another file"):
        read_row(Source(id="a", kind="packed", path=frames, sound=sounds, row=0))
