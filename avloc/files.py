"""Atomic writes, checked reading and locks: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from avloc.errors import InputError, Refused, UsageError

if sys.platform != "win32":
    import fcntl

PART_SUFFIX = ".part"
_PART = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part", re.DOTALL)
_NO_FOLDER_FLUSH = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)
"""A folder that may be written and not read, and file systems that know no such thing."""
LOCK = ".lock"
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.ASCII | re.IGNORECASE)
_BLOCK_BYTES = 1 << 20
_ANEW = "Delete it and run the command that made it again."
_LONGEST_NAME, _DIGEST = 255 - len(f"..{8 * '0'}{PART_SUFFIX}"), 8
"""Bytes of a name that becomes a temporary one; most file systems hold 255. And of the digest in place of the rest."""
_LARGEST_JSON = 1 << 30
"""Bytes; the boxes of two million clips have 200 MB."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success flush it to disk and rename it to `path`.

    On any failure, an interrupt included, the temporary file is removed and `path` is untouched. One that a killed
    process left for the same path goes too.
    """
    name = _short(path.name)
    for left in _left_behind(path.parent).pop(name, ()):
        _remove_unheld(left)
    # Not named by the process's number: two machines that share a folder can have the same.
    part = path.with_name(f".{name}.{os.urandom(4).hex()}{PART_SUFFIX}")
    try:
        with _held(part):
            yield part
            with part.open("rb+") as written:
                os.fsync(written.fileno())
            part.chmod(0o666 & ~_umask())  # some writers make private files; a result has the permissions of any other
            part.replace(path)
        _keep_name(path)
    finally:
        part.unlink(missing_ok=True)


def _short(name: str) -> str:
    """A file name that leaves room for what a temporary name adds to it."""
    data = os.fsencode(name)
    if len(data) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(data).hexdigest()[:_DIGEST]
    return f"{os.fsdecode(data[: _LONGEST_NAME - _DIGEST - 1])}-{digest}"


@contextmanager
def _held(part: Path) -> Iterator[None]:
    """Make a file and hold it: as long as this process lives, `_remove_unheld` leaves it alone."""
    if sys.platform == "win32":  # an open file could not be renamed there; what is left behind stays
        yield
        return
    descriptor = _new(part)
    try:
        yield
    finally:
        os.close(descriptor)


def _new(part: Path) -> int:
    """The descriptor of a new file that this process holds."""
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # somebody took it for a leftover before it was held


@cache
def _left_behind(folder: Path) -> dict[str, list[Path]]:
    """Temporary files that lay in a folder when this process first wrote there, by the name that they were to get.

    Looked for once: folders can hold many files.
    """
    found: dict[str, list[Path]] = {}
    for part in folder.glob(f".*{PART_SUFFIX}"):
        if match := _PART.fullmatch(part.name):
            found.setdefault(match["name"], []).append(part)
    return found


def _remove_unheld(part: Path) -> None:
    """Delete a temporary file unless somebody is writing it."""
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(part, os.O_RDWR)
    except (FileNotFoundError, PermissionError):  # finished by now, or somebody else's
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink(missing_ok=True)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)


def _keep_name(path: Path) -> None:
    """Flush the folder too: else a power cut may take the new name back, and what comes after it not."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_image(path: Path, image: io.BytesIO) -> None:
    """Write a file that was built in memory to `path` atomically."""
    # Released even where the write fails: Python 3.12.1 crashes when it collects an image with such a view left.
    with image.getbuffer() as data:
        write_bytes(path, data)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON with sorted keys, atomically; a file that says so already is left alone."""
    data = (json_text(value, indent=2) + "\n").encode()
    if not path.is_file() or path.read_bytes() != data:
        write_bytes(path, data)


def real(path: Path) -> Path:
    """`path` made absolute, without links; links that lead in a circle stay as they are."""
    return Path(os.path.realpath(path))


def refuse_url(text: str, flag: str = "") -> None:
    """Refuse what is no file and looks like an address, whether or not `Path` has made one slash of two.

    Raises:
        UsageError: it is one.
    """
    match = _URL.match(text)
    if match and not os.path.lexists(text):
        url = f"{match[1]}://{text[match.end() :]}"
        raise UsageError(f"{flag} {url} is a URL".strip(), hint="avloc reads files; download it first.")


def check_ordinary(path: Path) -> None:
    """Raise InputError where a path from outside is no file: a named pipe would be waited for without end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("is no ordinary file")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error


def ordinary_bytes(path: Path) -> bytes:
    """All of a file from outside.

    Raises:
        InputError: it cannot be read, or is no ordinary file.
    """
    check_ordinary(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error


def json_text(value: object, *, indent: int | None = None) -> str:
    """JSON with sorted keys; lone surrogates, of a path that is no UTF-8, become JSON's escapes."""
    text = json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is no JSON, is no UTF-8, or is nested absurdly deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        ValueError: as in `parse_json`, or the file is absurdly large.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > _LARGEST_JSON:
        raise ValueError(f"it has {size} bytes; at most {_LARGEST_JSON} are read")
    return parse_json(path.read_bytes())


def read_table(path: Path) -> dict[str, Any]:
    """The table that a JSON file of our own is.

    Raises:
        Refused: it is none, or cannot be read.
    """
    try:
        table = read_json(path)
    except (ValueError, OSError) as error:
        raise Refused(f"{path} cannot be read: {error}", hint=_ANEW) from error
    if not isinstance(table, dict):
        raise Refused(f"{path} holds a {type(table).__name__}, not a table", hint=_ANEW)
    return table


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The tables of a file of JSON lines of our own; none if it is not there.

    Raises:
        Refused: a line is no table, or the file cannot be read.
    """
    if not path.is_file():
        return []
    try:
        lines = [parse_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (ValueError, OSError) as error:
        raise Refused(f"{path} cannot be read: {error}", hint=_ANEW) from error
    if not all(isinstance(line, dict) for line in lines):
        raise Refused(f"{path} has a line that is not a table", hint=_ANEW)
    return lines


def json_lines(tables: Iterable[Mapping[str, Any]]) -> bytes:
    """What `read_lines` reads; lone surrogates, of a file name that is no UTF-8, become JSON's escapes."""
    text = "".join(json.dumps(table, ensure_ascii=False) + "\n" for table in tables)
    return text.encode("utf-8", "backslashreplace")


def remove_leftovers(folder: Path, names: str = "*") -> None:
    """Delete temporary files that a killed writer left in `folder`, of files whose names match the glob `names`.

    Call it only where nobody else can be writing them.
    """
    for part in folder.glob(f".{names}{PART_SUFFIX}"):
        part.unlink(missing_ok=True)


@contextmanager
def folder_lock(folder: Path, name: str = LOCK, *, who: str = "", wait_s: float = 0.0) -> Iterator[None]:
    """Hold `folder` for one writer; the lock dies with the process.

    Args:
        folder: made if it is not there.
        name: file that is locked; writers who lock different ones do not hinder each other.
        who: what a refusal adds about the holder.
        wait_s: for how many seconds to wait for it.

    Raises:
        Refused: somebody else holds it.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / name, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout:
        hint = "Wait for it to end, or stop it."
        raise Refused(f"another avloc process is writing to {folder}{who}", hint=hint) from None
    try:
        yield
    finally:
        lock.release()


def sha256_of(*paths: Path) -> str:
    """Hex SHA-256 of a file, or of several one after another, read in blocks."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
