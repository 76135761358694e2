"""Fetching one published file, and comparing it with the hash that its publisher states."""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any

from avloc import __version__
from avloc.errors import WeightsError
from avloc.files import atomic_path, parse_json
from avloc.progress import Listener, Notice, Progress
from avloc.weights.records import HashSource, WeightFile

NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)

_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60.0
_NAMED_HASH = re.compile(r"-([0-9a-f]{8,})\.pth$")


def named_promise(file: WeightFile) -> str:
    """`sha256:<leading hex digits>` as the file's name states them, or ''."""
    match = _NAMED_HASH.search(file.name) if file.hash_source is HashSource.FILE_NAME else None
    return f"sha256:{match[1]}" if match else ""


def check(path: Path, shown: Path, promise: str) -> None:
    """Compare the file at `path` with `<algorithm>:<leading hex digits>`; messages call it `shown`."""
    algorithm, _, promised = promise.partition(":")
    found = _digest(path, algorithm)
    if not found.startswith(promised):
        reason = f"{shown} is not the published file: its {algorithm} is {found[: len(promised)]}, not {promised}"
        raise WeightsError(reason, hint=f"Delete {shown} and run again, or put the right file there.")


def _digest(path: Path, algorithm: str) -> str:
    if algorithm == "git-blob":  # what git, and so the hub, calls a file that is not in large-file storage
        data = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def download(file: WeightFile, path: Path, listener: Listener) -> str:
    """Fetch one file, check it, then put it in place; returns the promise that it kept, or ''."""
    promise = named_promise(file) or _recorded_promise(file)
    listener(Notice(f"downloading {file.name} from {file.url} to {path.parent}"))
    with atomic_path(path) as part:
        etag = _fetch(file, part, listener)
        if file.hash_source is HashSource.HEADER:
            promise = _etag_promise(etag)
        if promise:
            check(part, path, promise)
    return promise


def _recorded_promise(file: WeightFile) -> str:
    if file.hash_source is not HashSource.RECORD:
        return ""
    with _open(file.record) as (response, _):
        record = response.read()
    try:
        checksums = {entry["key"]: str(entry["checksum"]) for entry in parse_json(record)["files"]}
    except (ValueError, KeyError, TypeError):
        return ""
    promise = checksums.get(file.name, "")
    return promise if promise.partition(":")[0] in hashlib.algorithms_guaranteed else ""


def _etag_promise(etag: str) -> str:
    value = etag.removeprefix("W/").strip('"').lower()
    algorithm = {64: "sha256", 40: "git-blob"}.get(len(value))
    return f"{algorithm}:{value}" if algorithm and re.fullmatch("[0-9a-f]+", value) else ""


def _fetch(file: WeightFile, part: Path, listener: Listener) -> str:
    """Stream one file to `part`; returns the ETag that names its content, or ''."""
    with _open(file.url) as (response, linked), part.open("wb") as out:
        length = response.headers.get("Content-Length")
        total, done = int(length) if length else None, 0
        while block := response.read(_BLOCK_BYTES):
            out.write(block)
            done += len(block)
            listener(Progress(task=f"download {file.name}", done=done, total=total))
        if total is not None and done != total:
            raise http.client.HTTPException(f"the connection ended after {done} of {total} bytes")
        return linked or str(response.headers.get("X-Linked-ETag") or response.headers.get("ETag") or "")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Remembers the hash that the hub states before it sends us on to its storage."""

    def __init__(self) -> None:
        self.linked = ""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        self.linked = self.linked or str(headers.get("X-Linked-ETag") or "")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


@contextmanager
def _open(url: str) -> Iterator[tuple[Any, str]]:
    """Yield the response and the hash that a redirect stated on the way to it, or ''."""
    redirects = _Redirects()
    request = urllib.request.Request(url, headers={"User-Agent": f"avloc/{__version__}"})
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()  # it is a response too, with a connection
        raise
    with response:
        yield response, redirects.linked
