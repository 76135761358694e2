"""Inputs of `localize`: globs, folders and lists become files."""

from __future__ import annotations

from pathlib import Path

import pytest

from avloc.errors import UsageError
from avloc.localize.inputs import expand_inputs
from tests.clip_folder import write_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["a.mp4", "-", "a.mp4"], ["a.mp4", "-", "a.mp4"]),
        (["*.m*"], ["a.mp4", "b.mkv"]),
        (["b.mkv", "?.mp4"], ["b.mkv", "a.mp4"]),
        (["**/*.mp4"], ["a.mp4", "deeper.mp4/d.mp4"]),
        (["."], ["a.mp4", "b.mkv", "c.avi"]),
        (["deeper.mp4/"], ["deeper.mp4/d.mp4"]),
        (["@list.txt", "a.mp4"], ["b.mkv", "notes.txt", "a.mp4"]),
        (["[odd].mp4"], ["[odd].mp4"]),
    ],
)
def test_arguments_expand_to_inputs(clips, tmp_path, monkeypatch, typed, expected):
    for path in clips.iterdir():
        (tmp_path / path.name).symlink_to(path)
    if "[odd].mp4" in typed:
        (tmp_path / "[odd].mp4").symlink_to(clips / "a.mp4")
    (tmp_path / "list.txt").write_text("# mine\nb.mkv\n\n  notes.txt  \n")
    monkeypatch.chdir(tmp_path)
    assert expand_inputs(typed, pictures=False) == expected


def test_a_folder_includes_pictures_if_a_sound_is_given(clips):
    names = [Path(name).name for name in expand_inputs([str(clips)], pictures=True)]
    assert names == ["a.mp4", "b.mkv", "c.avi", "p.png"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["absent.mp4"], "no such file: absent.mp4"),
        (["x*.mp4"], r"no such file: x\*\.mp4 matches nothing"),
        (["deeper*"], "matches nothing"),
        (["@absent.txt"], "no such list: absent.txt"),
        (["@short.txt"], "no such file: gone.mp4, in the list short.txt"),
        (["@empty.txt"], "the list empty.txt is empty"),
        (["empty"], "empty contains no video"),
        (["-", "-"], "can be read once"),
    ],
)
def test_invalid_inputs(tmp_path, monkeypatch, typed, words):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "deeper"):
        Path(name).mkdir()
    Path("short.txt").write_text("gone.mp4\n")
    Path("empty.txt").write_text("# nothing\n")
    with pytest.raises(UsageError, match=words):
        expand_inputs(typed, pictures=False)
