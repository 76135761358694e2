"""Atomic writes and locks: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avloc.errors import Refused

PART_SUFFIX = ".part"
LOCK = ".lock"
_BLOCK_BYTES = 1 << 20


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success flush it to disk and rename it to `path`.

    On any failure, an interrupt included, the temporary file is removed and `path` is untouched.
    """
    # Not named by the process's number: two machines that share a folder can have the same.
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}{PART_SUFFIX}")
    try:
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.chmod(0o666 & ~_umask())  # some writers make private files; a result has the permissions of any other
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


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


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
