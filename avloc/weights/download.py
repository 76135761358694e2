"""The cache folder of downloads; downloading one published file, and checking its hash against the published one.

A published hash is written `<algorithm>:<hex digits>`, where the digits may be the leading ones; '' is none.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avloc import __version__
from avloc.errors import WeightsAbsent, WeightsError
from avloc.files import atomic_path, parse_json
from avloc.progress import Listener, Notice, Progress
from avloc.weights.catalog import WeightFile

_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60.0
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.pth$")


OTHER_CACHE = "Set XDG_CACHE_HOME to a folder that can be written, or name a folder that has them with --weights-dir."


def cache_folder() -> Path:
    """Folder of downloads: `$XDG_CACHE_HOME` or `~/.cache`, then `avloc/weights`."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "avloc" / "weights"
    except RuntimeError as error:
        raise WeightsAbsent(f"the cache folder is not known: {error}", hint=OTHER_CACHE) from error


def hash_in_name(name: str) -> str:
    """The published hash that the name of a file contains."""
    match = _HASH_IN_NAME.search(name)
    return f"sha256:{match[1]}" if match else ""


def check(path: Path, shown: Path, published: str) -> None:
    """Raise WeightsError if the file at `path`, called `shown` in messages, has another hash than the published one."""
    if not published:
        return
    algorithm, _, digits = published.partition(":")
    found = _digest(path, algorithm)
    if not found.startswith(digits):
        reason = f"{shown} is not the published file: its {algorithm} is {found[: len(digits)]}, not {digits}"
        raise WeightsError(reason, hint=f"Delete {shown} and run again, or put the right file there.")


def _digest(path: Path, algorithm: str) -> str:
    if algorithm == "git-blob":  # the ETag that the hub gives a file outside large-file storage
        data = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def download(file: WeightFile, path: Path, listener: Listener) -> str:
    """Download one file, check it, then move it to `path`.

    Returns:
        The published hash that it was checked against, or ''.

    Raises:
        requests.RequestException: it cannot be downloaded.
        WeightsError: it has another hash than the published one.
    """
    published = hash_in_name(file.name) or _recorded_hash(file)
    listener(Notice(f"downloading {file.name} from {file.url} to {path.parent}"))
    with atomic_path(path) as part:
        etag = _fetch(file, part, listener)
        if not published and not file.record:
            published = _etag_hash(etag)
        check(part, path, published)
    return published


def _recorded_hash(file: WeightFile) -> str:
    if not file.record:
        return ""
    with _open(file.record) as response:
        record = response.content
    try:
        checksums = {entry["key"]: str(entry["checksum"]) for entry in parse_json(record)["files"]}
    except (ValueError, KeyError, TypeError):
        return ""
    published = checksums.get(file.name, "")
    return published if published.partition(":")[0] in hashlib.algorithms_guaranteed else ""


def _etag_hash(etag: str) -> str:
    value = etag.removeprefix("W/").strip('"').lower()
    algorithm = {64: "sha256", 40: "git-blob"}.get(len(value))
    return f"{algorithm}:{value}" if algorithm and re.fullmatch("[0-9a-f]+", value) else ""


def _fetch(file: WeightFile, part: Path, listener: Listener) -> str:
    """Write the response to `part`; returns the first X-Linked-ETag of the redirects, else the ETag."""
    import requests

    with _open(file.url) as response, part.open("wb") as out:
        total, done = int(response.headers.get("Content-Length", 0)) or None, 0
        for block in response.iter_content(_BLOCK_BYTES):
            out.write(block)
            done += len(block)
            listener(Progress(task=f"download {file.name}", done=done, total=total))
        if total is not None and done != total:
            raise requests.ConnectionError(f"the connection ended after {done} of {total} bytes")
        linked = [step.headers.get("X-Linked-ETag") for step in (*response.history, response)]
        return str(next(filter(None, linked), response.headers.get("ETag", "")))


@contextmanager
def _open(url: str) -> Iterator[Any]:
    import requests

    headers = {"User-Agent": f"avloc/{__version__}", "Accept-Encoding": "identity"}
    with (
        requests.Session() as session,
        session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response,
    ):
        response.raise_for_status()
        yield response
