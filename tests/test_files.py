"""Atomic writes, leftovers of killed writers, and locks of folders."""

from __future__ import annotations

import multiprocessing

import pytest

from avloc.errors import Refused
from avloc.files import atomic_path, folder_lock, remove_leftovers


def test_temporary_file_of_a_killed_writer_is_removed_by_the_next_write(tmp_path):
    mine, other = tmp_path / ".a.png.0123abcd.part", tmp_path / ".b.png.0123abcd.part"
    for path in (mine, other):
        path.touch()
    with atomic_path(tmp_path / "a.png") as part:
        part.write_bytes(b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "a.png"]


def test_temporary_file_of_a_running_writer_is_kept(tmp_path):
    with atomic_path(tmp_path / "a") as mine:
        mine.write_bytes(b"first")
        writer = multiprocessing.get_context("spawn").Process(target=_write_second, args=(tmp_path / "a",))
        writer.start()
        writer.join()
        assert (writer.exitcode, (tmp_path / "a").read_bytes()) == (0, b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def _write_second(path):
    with atomic_path(path) as part:
        part.write_bytes(b"second")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    (tmp_path / ".shard-00000.h5.123.part").write_bytes(b"half")
    (tmp_path / "kept.h5").write_bytes(b"")
    remove_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.h5"]


def test_a_second_writer_is_refused(tmp_path):
    with folder_lock(tmp_path):
        with pytest.raises(Refused, match="another avloc process"), folder_lock(tmp_path):
            pass
    with folder_lock(tmp_path):
        pass


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "a" * 244, "x.png"])
def test_longest_file_name_can_be_written(tmp_path, name):
    with atomic_path(tmp_path / name) as part:
        part.write_bytes(b"1")
    assert (tmp_path / name).read_bytes() == b"1"
    assert len(list(tmp_path.iterdir())) == 1
