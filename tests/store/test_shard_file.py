"""Values of a shard, read by their offsets: those that HDF5 reads, from the file that was validated."""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from avloc.errors import Refused
from avloc.registry import StoreSpec
from avloc.store import Clip, Store, StoreHeader, StoreWriter, shards
from avloc.store.shard_file import Column, Shard


def test_every_value_is_the_one_that_hdf5_reads(intact_store):
    store = Store(intact_store)
    for path in shards.shard_paths(intact_store):
        shard = store.shards.shard(path)
        with h5py.File(path, locking=False) as file:
            assert len(file) >= 20
            for name, values in file.items():
                every = shard.numbers(name)
                assert (every.dtype, every.shape) == (values.dtype, values.shape)
                assert np.array_equal(every, values[:])
                for row in range(len(values)):
                    assert np.array_equal(shard.numbers(name, row), values[row])
                    assert np.array_equal(shard.numbers(name, slice(row, row + 2)), values[row : row + 2])


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="os.preadv is absent on this system")
def test_a_file_system_may_give_less_than_was_asked_for(tmp_path, monkeypatch):
    store, actual = small_store(tmp_path, 2), os.preadv

    def some(descriptor: int, buffers: list[memoryview], position: int) -> int:
        return actual(descriptor, [buffers[0][:7]], position)

    monkeypatch.setattr(os, "preadv", some)
    clip = store.sample("1")
    assert (clip.picture, set(clip.sound.tolist()), len(clip.sound)) == (bytes([1]), {1}, store.spec.samples)


@pytest.mark.parametrize("kind", ["<i2", ">i2"])
def test_values_keep_their_byte_order(tmp_path, kind):
    with h5py.File(tmp_path / "shard", "w") as file:
        file["id_offset"], file["value"] = np.arange(4), np.arange(6).reshape(3, 2).astype(kind)
    shard = Shard(tmp_path / "shard", {"value": Column("i2", ("rows", 2))})
    assert shard.numbers("value").tolist() == [[0, 1], [2, 3], [4, 5]]


def small_store(folder: Path, clips: int) -> Store:
    """A store with one clip per shard."""
    spec = StoreSpec(seconds=0.01, rate=8_000)
    with StoreWriter(folder, StoreHeader(spec=spec), shard_clips=1) as writer:
        for number in range(clips):
            sound = np.full(spec.samples, number, np.int16)
            writer.add(Clip(id=f"{number}", picture=bytes([number]), sound=sound, frame_hw=(3, 4)))
    return Store(folder)


def test_clips_in_random_order_open_each_shard_once_by_hdf5(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_most_open", lambda: 3)
    store, opened = small_store(tmp_path, 8), []
    actual = h5py.File
    monkeypatch.setattr(h5py, "File", lambda path, *how, **more: opened.append(path) or actual(path, *how, **more))
    for clip_id in random.Random(0).choices(store.ids, k=100):
        clip = store.sample(clip_id)
        assert (clip.picture, clip.sound[0]) == (bytes([int(clip_id)]), int(clip_id))
    assert sorted(opened) == shards.shard_paths(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize(("allowed", "files"), [(256, 32), (1024, 128), (4, 1), (100_000, 128), (None, 128)])
def test_an_eighth_of_the_open_files_that_are_allowed_is_used(monkeypatch, allowed, files):
    import resource

    soft = resource.RLIM_INFINITY if allowed is None else allowed
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (soft, soft))
    assert shards._most_open() == files


def test_files_are_closed_with_their_store(tmp_path):
    store = small_store(tmp_path, 2)
    for clip_id in store.ids:
        store.sample(clip_id)
    descriptors = [store.shards.shard(path)._opened() for path in shards.shard_paths(tmp_path)]
    assert len(set(descriptors)) == 2
    del store
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.mark.parametrize("closed", [False, True])
def test_a_file_that_was_cut_after_it_was_validated_is_refused(intact_store, tmp_path, closed):
    shutil.copytree(intact_store, tmp_path / "store")
    store = Store(tmp_path / "store")
    shard, _ = store.shards.locate(store.ids[0])
    store.sample(store.ids[0])
    if closed:
        shard.close()
    os.truncate(shard.path, 3_000)
    with pytest.raises(Refused, match=r"shard-00000\.h5 cannot be read: it (has been replaced|ends)"):
        store.sample(store.ids[-1])


def test_another_file_in_its_place_is_refused(tmp_path):
    store = small_store(tmp_path, 2)
    one, other = (store.shards.locate(clip_id)[0] for clip_id in store.ids)
    store.sample("0")
    one.close()
    shutil.copy(other.path, one.path)
    with pytest.raises(Refused, match="has been replaced"):
        store.sample("0")


def test_values_that_do_not_begin_where_hdf5_says_are_refused(tmp_path):
    """HDF5 counts offsets from the end of a user block, or from the beginning of the file."""
    with h5py.File(tmp_path / "shard", "w", userblock_size=512) as file:
        file["id"], file["id_offset"] = np.frombuffer(b"ab", np.uint8), [0, 1, 2]
    with pytest.raises(Refused, match="outside of the file"):
        Shard(tmp_path / "shard").texts("id")
