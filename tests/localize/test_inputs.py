"""Inputs of `localize`: globs, folders and lists become files."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from avloc.errors import UsageError
from avloc.localize.inputs import expand_inputs
from tests.json_output import json_lines
from tests.media_makers import make_sound, tone
from tests.processes import start
from tests.timed_video import film, without_length


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


def written_to_a_pipe(pipe: Path, data: bytes) -> threading.Thread:
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True)
    writer.start()
    return writer


def test_a_named_pipe_is_read_like_a_file(here, model, picture, tmp_path):
    sound = make_sound(tmp_path / "a.wav", tone(4, 16_000), 16_000)
    video = film(tmp_path / "a.mp4")
    run = ("localize", "--model", model, "--json")
    for files, piped in (((picture, "--audio", sound), 2), ((video,), 0)):
        (expected,) = json_lines(here(*run, *files).out)
        pipe = tmp_path / f"pipe{piped}"
        writer = written_to_a_pipe(pipe, files[piped].read_bytes())
        (line,) = json_lines(here(*run, *files[:piped], pipe, *files[piped + 1 :]).out)
        writer.join(timeout=10)
        assert {**line, "seconds": 0} == {**expected, "seconds": 0, "input": line["input"]}


def test_pipe_is_named_as_typed(here, model, picture, tmp_path):
    writer = written_to_a_pipe(tmp_path / "pipe", b"no sound at all")
    done = here("localize", picture, "--audio", tmp_path / "pipe", "--model", model)
    writer.join(timeout=10)
    assert done.code == 3
    assert f"--audio {tmp_path / 'pipe'}: cannot be decoded" in done.err


def test_named_pipe_in_a_folder_does_not_block(here, model, tmp_path):
    film(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "b.mp4")
    done = here("localize", tmp_path, "--model", model, "--json", "--out", f"{tmp_path}/out/")
    assert done.code == 1
    assert "b.mp4: is not a regular file" in done.err


def test_the_sound_can_come_from_standard_input(model, picture, tmp_path):
    sound = make_sound(tmp_path / "a.wav", tone(4, 16_000), 16_000)
    command = ("localize", picture, "--audio", "-", "--model", model, "--json")
    with sound.open("rb") as stdin:
        out, _ = start(*command, stdin=stdin).communicate(timeout=120)
    assert json_lines(out.decode())[0]["window_s"] == [0.5, 3.5]
    _, err = start("localize", "-", "--audio", "-", "--model", model, stdin=subprocess.DEVNULL).communicate(timeout=120)
    assert "standard input (-) can be read once" in err.decode()


def test_a_live_webm_on_standard_input_has_its_middle(model, tmp_path):
    with without_length(tmp_path, "live.webm").open("rb") as stdin:
        out, _ = start("localize", "-", "--model", model, "--json", stdin=stdin).communicate(timeout=120)
    (line,) = json_lines(out.decode())
    assert line["input"] == "-"
    assert line["time_s"] == pytest.approx(2.0, abs=0.03)
