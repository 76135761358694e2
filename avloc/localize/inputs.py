"""Expand the inputs typed on the command line to files: globs, folders, lists, standard input."""

from __future__ import annotations

import codecs
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from avloc.errors import UsageError
from avloc.files import refuse_url
from avloc.media.pictures import PICTURE_SUFFIXES, VIDEO_SUFFIXES

STDIN = "-"
LIST_MARK = "@"


def expand_inputs(typed: Sequence[str], *, pictures: bool) -> list[str]:
    """Expand arguments to paths, in the same order; `-` is kept.

    An argument is a path; a pattern such as `clips/*.mp4`; a folder, for the videos directly in it (and the pictures,
    with `pictures`); or `@list.txt`, a file with one path per line, where blank lines and lines with # are ignored.

    Raises:
        UsageError: a path does not exist, or a pattern, folder or list is empty.
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
    if text.startswith(LIST_MARK):
        return _in_list(Path(text.removeprefix(LIST_MARK)))
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
        raise UsageError(f"{folder} contains no video; valid: a folder with videos directly in it, files, or patterns")
    return found


def _in_list(path: Path) -> list[str]:
    try:
        text = os.fsdecode(path.read_bytes().removeprefix(codecs.BOM_UTF8))  # decoded like a command-line argument
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"no such list: {path}", hint="@FILE names a file with one path per line.") from None
    lines = [line.strip() for line in text.splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    absent = next((name for name in names if not Path(name).is_file()), None)
    if absent is not None:
        refuse_url(absent)
        raise UsageError(f"no such file: {absent}, in the list {path}")
    if not names:
        raise UsageError(f"the list {path} is empty")
    return names


@contextmanager
def seekable_files(names: Sequence[str], typed: Sequence[str]) -> Iterator[list[Path]]:
    """Paths of the inputs as seekable files, within the context.

    Standard input and pipes that were `typed` are copied to temporary files; a pipe found in a folder is not read.
    """
    with ExitStack() as stack:
        yield [_seekable(name, typed, stack) for name in names]


def _seekable(name: str, typed: Sequence[str], stack: ExitStack) -> Path:
    """The file, or the copy of a pipe: standard input, a named one, or process substitution such as `<(command)`."""
    if name != STDIN and not (name in typed and Path(name).is_fifo()):
        return Path(name)
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="avloc-"))) / "stdin"
    with copy.open("wb") as out, nullcontext(sys.stdin.buffer) if name == STDIN else Path(name).open("rb") as pipe:
        shutil.copyfileobj(pipe, out)
    return copy
