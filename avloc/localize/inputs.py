"""Expand the inputs typed on the command line to files: globs, folders, lists, standard input."""

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
from avloc.media.pictures import PICTURE_SUFFIXES, VIDEO_SUFFIXES

STDIN = "-"
_LIST_MARK = "@"


def expand_inputs(typed: Sequence[str], *, pictures: bool) -> list[str]:
    """Expand globs, folders and lists to paths, in the order typed; `-` is kept.

    Args:
        typed: paths; patterns such as `clips/*.mp4`; folders, for the videos directly in them; `@list.txt`, a file with
            one path per line, where blank lines and lines starting with # are ignored.
        pictures: whether pictures in a folder are inputs too.

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
        raise UsageError(f"{folder} contains no video; valid: a folder with videos directly in it, files, or patterns")
    return found


def _in_list(path: Path) -> list[str]:
    try:
        text = os.fsdecode(path.read_bytes().removeprefix(codecs.BOM_UTF8))  # as the shell would have typed it
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


def existing_path(text: str, flag: str = "") -> Path:
    """Path of a file, a pipe or `-`.

    Raises:
        UsageError: no such file; the message begins with `flag`.
    """
    path = Path(text)
    if text != STDIN and not path.is_file() and not path.is_fifo():
        raise UsageError(f"{flag}{text} is not a file" if path.exists() else f"{flag}no such file: {text}")
    return path


@contextmanager
def seekable_files(names: Sequence[str], typed: Sequence[str]) -> Iterator[list[Path]]:
    """Paths of the inputs as seekable files, within the context.

    Standard input and pipes that were `typed` are copied to temporary files; a pipe found in a folder is not read.
    """
    with ExitStack() as stack:
        yield [
            _copied(Path(name), stack) if name == STDIN or _is_typed_pipe(name, typed) else Path(name) for name in names
        ]


def _is_typed_pipe(name: str, typed: Sequence[str]) -> bool:
    """A named pipe, or process substitution such as `<(command)`."""
    return name in typed and Path(name).is_fifo()


def _copied(path: Path, stack: ExitStack) -> Path:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="avloc-"))
    copy = Path(folder) / "stdin"
    with ExitStack() as files:
        source = sys.stdin.buffer if str(path) == STDIN else files.enter_context(path.open("rb"))
        shutil.copyfileobj(source, files.enter_context(copy.open("wb")))
    return copy
