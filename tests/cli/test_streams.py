"""Standard streams that are closed, have no reader, or cannot encode the text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.media_makers import make_video, tone
from tests.program import ROOT, avloc
from tests.small_models import save_small

COMMANDS = ("prepare", "distill-cache", "train", "eval", "localize")
PRINTS = ("train", "store", "--out", "run", "--print-config")
NARROW = [
    {"PYTHONIOENCODING": "cp1252"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


def run(*arguments: object, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run `avloc ARGUMENTS` in bash with the redirections `shell`; the exit code is avloc's."""
    command = f'set -o pipefail; "$@" {shell}'
    return subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-m", "avloc", *map(os.fsencode, map(str, arguments))],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    save_small(folder / "small.safetensors")
    make_video(folder / "日é.mp4", seconds=1.0, sound=tone(1.0, 16_000), rate=16_000)
    return folder


def localize(clips: Path, name: str) -> tuple[object, ...]:
    return ("localize", clips / name, "--model", clips / "small.safetensors", "--out", f"{clips}/out/")


@pytest.mark.parametrize(
    ("arguments", "shell"),
    [
        *((("--help",), shell) for shell in (">&-", "| true", ">&- <&-", "2>&- | true")),
        *(((name, "--help"), "| true") for name in COMMANDS),
        *((arguments, ">&-") for arguments in (("--version",), PRINTS)),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_printing_to_a_closed_pipe_exits_with_141_without_a_traceback(arguments, shell):
    done = run(*arguments, shell=shell)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("shell", [">&-", "2>&1 | true"])
def test_a_command_whose_reader_exits_exits_with_141(clips, shell):
    done = run(*localize(clips, "日é.mp4"), shell=shell)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr
    assert not list(clips.glob("out/.*")), "temporary files are removed on exit"


def test_closed_standard_error_loses_messages_but_not_results(clips):
    done = run(*localize(clips, "日é.mp4"), shell="2>&-")
    assert (done.returncode, done.stdout.decode()) == (0, f"{clips}/out/日é.png\n")
    assert run("localize", "nowhere.mp4", shell="2>&- <&- >&-").returncode == 2


def test_streams_on_a_full_disk_are_reported(clips):
    done = run(*localize(clips, "日é.mp4"), shell=">/dev/full")
    assert done.returncode == 5
    assert done.stderr.decode().splitlines()[-2].startswith("avloc: the disk is full")
    assert b"Traceback" not in done.stderr
    done = run(*localize(clips, "日é.mp4"), shell="2>/dev/full")
    assert (done.returncode, done.stdout.decode()) == (0, f"{clips}/out/日é.png\n")
    assert run("localize", "nowhere.mp4", shell="2>/dev/full").returncode == 2


def test_no_file_reuses_the_descriptor_of_a_closed_stream(tmp_path):
    """Otherwise output of libraries would be written to that file."""
    code = "from avloc.cli.streams import configure_streams; configure_streams(); "
    code += f"file = open({str(tmp_path / 'file')!r}, 'w'); raise SystemExit(file.fileno())"
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "{code}" <&- >&- 2>&-'], cwd=ROOT, check=False)
    assert done.returncode == 3


def printed(code: str, *names: bytes, **environment: str) -> bytes:
    """Run `code` with `names` as arguments after `configure_streams()`; return its standard output."""
    begin = "import sys; from pathlib import Path; from avloc.cli.streams import configure_streams; "
    begin += "from avloc.console import terminal"
    command = [sys.executable, "-c", f"{begin}; configure_streams(); {code}", *names]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=True).stdout


def test_localize_prints_json_to_an_ascii_stream(clips):
    done = run(*localize(clips, "日é.mp4"), "--json", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout.decode("ascii"))["input"] == f"{clips}/日é.mp4"


@pytest.mark.parametrize("environment", NARROW, ids=lambda each: next(iter(each.values())))
def test_json_is_escaped_if_the_stream_cannot_encode_it(environment):
    text = printed("terminal.print_json(['\\u65e5\\xe9\\U0001f600', *sys.argv[1:]])", b"b\xff", **environment)
    assert json.loads(text.decode("ascii")) == ["日é😀", "b\udcff"]


def test_paths_are_printed_escaped_or_as_their_raw_bytes():
    code, name = "terminal.print_paths([Path(sys.argv[1])])", "日é😀".encode()
    assert printed(code, name, PYTHONIOENCODING="ascii") == b"\\u65e5\\u00e9\\U0001f600\n"
    assert printed(code, name, PYTHONIOENCODING="cp1252") == b"\\u65e5\xe9\\U0001f600\n"
    assert printed(code, name) == name + b"\n"
    for environment in ({}, *NARROW):
        assert printed(code, b"b\xff.png", **environment) == b"b\xff.png\n"


@pytest.mark.parametrize("environment", NARROW, ids=lambda each: next(iter(each.values())))
@pytest.mark.parametrize("arguments", [("localize", "日本.mp4"), ("eval", "--日本"), ("prepare", "日", "--out", "本")])
def test_errors_about_unencodable_names_have_no_traceback(tmp_path, environment, arguments):
    done = run(*arguments, **environment)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_unencodable_settings_are_printed_as_valid_toml(tmp_path):
    import tomllib

    done = run(*PRINTS, "--init", "日é.pth", PYTHONIOENCODING="ascii")
    assert tomllib.loads(done.stdout.decode("ascii"))["init"] == "日é.pth"


def test_a_locale_that_cannot_encode_a_path_is_named(clips, tmp_path):
    store = tmp_path / "store"
    done = run("prepare", clips / "日é.mp4", "--out", store, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 3
    assert b"set PYTHONUTF8=1" in done.stderr


ESC = "\x1b"


def test_control_characters_in_names_are_escaped(tmp_path):
    """The name of a broken file sets the title and colour of the terminal and moves the cursor."""
    name = f"{ESC}]0;owned\x07{ESC}[31mred{ESC}[H.mp4"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"no video")
    done = avloc("prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert done.returncode
    assert ESC not in done.stderr + done.stdout
    assert "\x07" not in done.stderr + done.stdout
    assert "\\x1b[31mred" in done.stderr
    done = avloc("localize", str(tmp_path / "in" / name), "--model", str(save_small(tmp_path / "m.safetensors")))
    assert ESC not in done.stderr + done.stdout
