"""Atomic file writes, validated reads, JSON and folder locks."""

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

TEMPORARY_SUFFIX = ".part"
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part", re.DOTALL)
_NO_FOLDER_FLUSH = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)
"""fsync of a folder: no permission to read it, or not supported by the file system."""
LOCK = ".lock"
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.ASCII | re.IGNORECASE)
_BLOCK_BYTES = 1 << 20
RECREATE = "Delete it and run the command that made it again."
_MAX_NAME_BYTES, _DIGEST_CHARS = 255 - len(f"..{8 * '0'}{TEMPORARY_SUFFIX}"), 8
"""Longest name to which the rest of a temporary name can be added, and the digest that replaces what is cut off."""
_MAX_JSON_BYTES = 1 << 30
"""The boxes of two million clips take 200 MB."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success flush it to disk and rename it to `path`.

    On failure or interrupt the temporary file is deleted and `path` is unchanged. A temporary file left for the same
    path by a killed process is deleted too.
    """
    name = _shortened(path.name)
    for leftover in _leftovers(path.parent).pop(name, ()):
        _remove_unlocked(leftover)
    # Random rather than by process id, which is not unique between machines that share a folder.
    temporary = path.with_name(f".{name}.{os.urandom(4).hex()}{TEMPORARY_SUFFIX}")
    try:
        with _locked(temporary):
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            os.umask(umask := os.umask(0))
            temporary.chmod(0o666 & ~umask)  # some writers create private files
            temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _shortened(name: str) -> str:
    """`name`, cut so that a temporary name made of it is not too long."""
    data = os.fsencode(name)
    if len(data) <= _MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS]
    return f"{os.fsdecode(data[: _MAX_NAME_BYTES - _DIGEST_CHARS - 1])}-{digest}"


@contextmanager
def _locked(temporary: Path) -> Iterator[None]:
    """Create a file and lock it against `_remove_unlocked` of other processes."""
    if sys.platform == "win32":  # an open file cannot be renamed there; leftovers are kept
        yield
        return
    while True:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # another process deleted it as a leftover before it was locked
    try:
        yield
    finally:
        os.close(descriptor)


@cache
def _leftovers(folder: Path) -> dict[str, list[Path]]:
    """Final name -> temporary files found on this process's first write to a folder, which may hold many files."""
    found: dict[str, list[Path]] = {}
    for temporary in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        if match := _TEMPORARY.fullmatch(temporary.name):
            found.setdefault(match["name"], []).append(temporary)
    return found


def _remove_unlocked(temporary: Path) -> None:
    """Delete a temporary file that no process is writing."""
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(temporary, os.O_RDWR)
    except (FileNotFoundError, PermissionError):  # finished meanwhile, or another user's
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.unlink(missing_ok=True)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a rename survives a power failure."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_buffer(path: Path, buffer: io.BytesIO) -> None:
    """Write an in-memory file to `path` atomically."""
    # Released even if the write fails: Python 3.12.1 crashes when it collects a BytesIO with a view left.
    with buffer.getbuffer() as data:
        write_bytes(path, data)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON with sorted keys, atomically; an identical file is not rewritten."""
    data = (json_text(value, indent=2) + "\n").encode()
    if not path.is_file() or path.read_bytes() != data:
        write_bytes(path, data)


def real_path(path: Path) -> Path:
    """`path` made absolute, with symbolic links resolved; circular links are kept."""
    return Path(os.path.realpath(path))


def refuse_url(text: str, flag: str = "") -> None:
    """Raise UsageError for a URL in place of a path, also one in which `Path` has merged the slashes."""
    match = _URL.match(text)
    if match and not os.path.lexists(text):
        url = f"{match[1]}://{text[match.end() :]}"
        raise UsageError(f"{flag} {url} is a URL".strip(), hint="avloc reads files; download it first.")


def check_regular_file(path: Path) -> None:
    """Raise InputError if a path is not a regular file: reading a named pipe would block forever."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("is not a regular file")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error


def read_input(path: Path) -> bytes:
    """Read an input file. Raises InputError if it cannot be read or is not a regular file."""
    check_regular_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error


def json_text(value: object, *, indent: int | None = None) -> str:
    """JSON with sorted keys; lone surrogates (from paths that are not UTF-8) become JSON escapes."""
    text = json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError if it is not JSON, not UTF-8, or nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        ValueError: as in `parse_json`, or the file is too large.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > _MAX_JSON_BYTES:
        raise ValueError(f"it has {size} bytes; the limit is {_MAX_JSON_BYTES}")
    return parse_json(path.read_bytes())


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file written by avloc that holds one object.

    Raises:
        Refused: it cannot be read, or holds something else.
    """
    try:
        value = read_json(path)
    except (ValueError, OSError) as error:
        raise Refused(f"{path} cannot be read: {error}", hint=RECREATE) from error
    if not isinstance(value, dict):
        raise Refused(f"{path} holds a {type(value).__name__}, not a JSON object", hint=RECREATE)
    return value


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSON Lines file written by avloc; empty if it does not exist.

    Raises:
        Refused: it cannot be read, or a line is not an object.
    """
    if not path.is_file():
        return []
    try:
        lines = [parse_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (ValueError, OSError) as error:
        raise Refused(f"{path} cannot be read: {error}", hint=RECREATE) from error
    if not all(isinstance(line, dict) for line in lines):
        raise Refused(f"{path} has a line that is not a JSON object", hint=RECREATE)
    return lines


def json_lines(objects: Iterable[Mapping[str, Any]]) -> bytes:
    """Encode objects for `read_json_lines`; lone surrogates become JSON escapes."""
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)
    return text.encode("utf-8", "backslashreplace")


def remove_leftovers(folder: Path, names: str = "*") -> None:
    """Delete temporary files left in `folder` by killed writers, for final names that match the glob `names`.

    Call it only while no other process can be writing them.
    """
    for temporary in folder.glob(f".{names}{TEMPORARY_SUFFIX}"):
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_lock(folder: Path, name: str = LOCK, *, who: str = "", wait_s: float = 0.0) -> Iterator[None]:
    """Lock `folder`, which is created if absent, for one writer; the lock ends with the process.

    Lock files of different names are independent. `who` describes the holder in the error message.

    Raises:
        Refused: another process holds the lock.
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
    """Hex SHA-256 of the concatenated contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
