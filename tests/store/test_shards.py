"""Malformed and malicious shards are refused; no other file is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from avloc.errors import Refused
from avloc.store import Store


def _replaced(file: h5py.File, name: str, **how) -> None:
    del file[name]
    file.create_dataset(name, **how)


def _elsewhere(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as secret:
        secret["sound"] = file["sound"][:]
    del file["sound"]
    file["sound"] = h5py.ExternalLink(str(folder / "secret.h5"), "sound")


def _soft(file: h5py.File, _folder: Path) -> None:
    del file["label"]
    file["label"] = h5py.SoftLink("/id")


def _raw(file: h5py.File, folder: Path) -> None:
    secret = folder / "secret.bin"
    secret.write_bytes(bytes(file["picture"].nbytes))
    _replaced(file, "picture", shape=file["picture"].shape, dtype="u1", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, folder: Path) -> None:
    shape = file["sound"].shape
    with h5py.File(folder / "secret.h5", "w") as secret:
        secret["sound"] = file["sound"][:]
    layout = h5py.VirtualLayout(shape, "i2")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "sound", shape)
    del file["sound"]
    file.create_virtual_dataset("sound", layout)


def _first_only(file: h5py.File) -> None:
    first = file["sound"][0]
    _replaced(file, "sound", shape=(3, len(first)), dtype="i2", chunks=(1, len(first)))
    file["sound"][0] = first


STORES: dict[str, Callable[[h5py.File, Path], None]] = {
    "sounds in another file": _elsewhere,
    "a soft link": _soft,
    "pictures in a raw file": _raw,
    "sounds put together from another file": _virtual,
    "sounds of an exabyte": lambda file, _: _replaced(
        file, "sound", shape=(3, 1 << 58), dtype="i2", chunks=(1, 1 << 10)
    ),
    "sounds that are texts": lambda file, _: _replaced(file, "sound", data=np.array([[b"a"]] * 3)),
    "sounds for another number of clips": lambda file, _: _replaced(file, "sound", data=np.zeros((2, 66_150), "i2")),
    "ids that are numbers": lambda file, _: _replaced(file, "id", data=np.arange(3)),
    "ids that are one": lambda file, _: _replaced(file, "id", data="one"),
    "ids that are HDF5's strings": lambda file, _: _replaced(
        file, "id", data=["a", "b", "c"], dtype=h5py.string_dtype()
    ),
    "ids that are no UTF-8": lambda file, _: _replaced(file, "id", data=np.full(len(file["id"]), 255, "u1")),
    "ids without a beginning": lambda file, _: file.__delitem__("id_offset"),
    "labels without a beginning": lambda file, _: file.__delitem__("label_offset"),
    "a group for boxes": lambda file, _: (file.__delitem__("boxes"), file.create_group("boxes")),
    "offsets beyond the end": lambda file, _: _replaced(file, "picture_offset", data=np.array([0, 9, 99, 1 << 40])),
    "offsets that go back": lambda file, _: _replaced(file, "boxes_offset", data=np.array([0, 3, 1, 3])),
    "negative offsets": lambda file, _: _replaced(file, "boxes_offset", data=np.array([-3, 1, 2, 3])),
    "no labels": lambda file, _: file.__delitem__("label"),
    "sounds in chunks of two clips": lambda file, _: _replaced(
        file, "sound", data=file["sound"][:], chunks=(2, 66_150)
    ),
    "sounds of which one was not written": lambda file, _: _first_only(file),
    "times that were not written": lambda file, _: _replaced(file, "time_s", shape=(3,), dtype="f8"),
    "compressed sounds": lambda file, _: _replaced(
        file, "sound", data=file["sound"][:], chunks=(1, 66_150), compression="gzip"
    ),
    "a time that is a structure": lambda file, _: _replaced(file, "time_s", data=np.zeros(3, [("a", "i4")])),
}


@pytest.mark.parametrize("case", STORES)
def test_a_malformed_shard_is_refused(intact_store, tmp_path, case):
    shutil.copytree(intact_store, tmp_path / "store")
    with h5py.File(tmp_path / "store" / "shard-00000.h5", "r+") as file:
        STORES[case](file, tmp_path)
    with pytest.raises(Refused, match=r"shard-00000\.h5 cannot be read"):
        store = Store(tmp_path / "store")
        clips = [store.read(clip_id) for clip_id in store.ids]
        assert clips
        store.annotated()
