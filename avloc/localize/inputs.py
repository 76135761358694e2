"""What the user typed, as a list of files; standard input becomes one."""

from __future__ import annotations

import codecs
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from avloc.errors import UsageError
from avloc.files import refuse_url
from avloc.media import PICTURE_SUFFIXES, VIDEO_SUFFIXES

STDIN = "-"
_LIST_MARK = "@"


def expand_inputs(typed: Sequence[str], *, pictures: bool) -> list[str]:
    """Files, globs, folders and lists as paths, in the order typed; `-` stays itself.

    Args:
        typed: paths; patterns such as `clips/*.mp4`; folders, for the videos that lie directly in them; `@list.txt`, a
            file with one path a line, in which blank lines and lines with # count for nothing.
        pictures: whether pictures in a folder are inputs too.

    Raises:
        UsageError: a path does not exist, or a pattern, a folder or a list holds nothing.
    """
    out = [name for text in typed for name in _expanded(text, pictures=pictures)]
    if out.count(STDIN) > 1:
        raise UsageError("standard input (-) can be read once")
    return out


def _expanded(text: str, *, pictures: bool) -> list[str]:
    path = Path(text)
    if text == STDIN or path.is_file() or path.is_fifo():
        return [text]
    if path.is_dir():
        return _in_folder(path, VIDEO_SUFFIXES | PICTURE_SUFFIXES if pictures else VIDEO_SUFFIXES)
    if text.startswith(_LIST_MARK):
        return _in_list(Path(text.removeprefix(_LIST_MARK)))
    refuse_url(text)
    if not glob.has_magic(text):
        raise UsageError(f"no such file: {text}")
    found = [name for name in sorted(glob.glob(text, recursive=True)) if not Path(name).is_dir()]  # noqa: PTH207 (as typed)
    if not found:
        raise UsageError(f"no such file: {text} matches nothing")
    return found


def _in_folder(folder: Path, suffixes: frozenset[str]) -> list[str]:
    inside = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    found = [str(path) for path in inside if not path.is_dir() and not path.name.startswith(".")]
    if not found:
        raise UsageError(f"{folder} holds no video; valid: a folder with videos directly in it, files, or patterns")
    return found


def _in_list(path: Path) -> list[str]:
    try:
        text = os.fsdecode(path.read_bytes().removeprefix(codecs.BOM_UTF8))  # as the shell would have typed it
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"no such list: {path}", hint="@FILE names a file with one path a line.") from None
    lines = [line.strip() for line in text.splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    absent = next((name for name in names if not Path(name).is_file()), None)
    if absent is not None:
        refuse_url(absent)
        raise UsageError(f"no such file: {absent}, in the list {path}")
    if not names:
        raise UsageError(f"the list {path} names no file")
    return names


def check_named(text: str, flag: str = "") -> Path:
    """A file, a pipe or `-` that the user named.

    Raises:
        UsageError: there is no such file; begins with `flag`.
    """
    path = Path(text)
    if text != STDIN and not path.is_file() and not path.is_fifo():
        raise UsageError(f"{flag}{text} is no file" if path.exists() else f"{flag}no such file: {text}")
    return path


@contextmanager
def as_files(names: Sequence[str], typed: Sequence[str]) -> Iterator[list[Path]]:
    """The inputs as files that decoders can jump about in, while the context lasts.

    Standard input is copied to a file, and so is a pipe if it was `typed`; one that lies in a folder is not read.
    """
    with ExitStack() as stack:
        yield [
            _copied(Path(name), stack) if name == STDIN or _is_typed_pipe(name, typed) else Path(name) for name in names
        ]


def _is_typed_pipe(name: str, typed: Sequence[str]) -> bool:
    """A named pipe, or one of the shell's as in `<(command)`."""
    return name in typed and Path(name).is_fifo()


def _copied(path: Path, stack: ExitStack) -> Path:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="avloc-"))
    copy = Path(folder) / "stdin"
    with ExitStack() as files:
        source = sys.stdin.buffer if str(path) == STDIN else files.enter_context(path.open("rb"))
        shutil.copyfileobj(source, files.enter_context(copy.open("wb")))
    return copy
