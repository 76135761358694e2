"""Published weight files: where they lie, where they come from, and how we know that they are what they should be.

Only what a source publishes is checked: torchvision's eight hex digits in the file name, the MD5 in Zenodo's record,
the hash in the hub's response header. No hash is written down here. A file that somebody put in place by hand and
whose name carries no hash is used as it is, with its SHA-256 recorded and `verified` false.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from enum import Enum
from pathlib import Path
from typing import Any

from avloc import __version__
from avloc.errors import UsageError, WeightsAbsent, WeightsError
from avloc.events import Listener, Notice, Progress, silent
from avloc.files import atomic_path, sha256_of

_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60.0
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)
_NAMED_HASH = re.compile(r"-([0-9a-f]{8,})\.pth$")


class HashSource(Enum):
    """Where the publisher says what a file hashes to."""

    FILE_NAME = "leading hex digits of the SHA-256 in the file name"
    RECORD = "checksum in the record's JSON, asked for when downloading"
    HEADER = "X-Linked-ETag or ETag of the response: SHA-256, or git blob hash of a small file"


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One file at its publisher."""

    name: str
    url: str
    hash_source: HashSource
    record: str = ""
    """Address of the record's JSON, for `HashSource.RECORD`."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One set of published weights: a file, or a folder of files."""

    name: str
    files: tuple[WeightFile, ...]
    folder: str = ""
    """Name of the folder that holds the files; '' for a file that lies by itself."""

    @property
    def label(self) -> str:
        """What a user looks for on disk: the file's name, or the folder's with its files."""
        names = ", ".join(file.name for file in self.files)
        return f"{self.folder}/ ({names})" if self.folder else names

    def under(self, place: Path) -> Path:
        """Where the weights lie inside a folder of weights."""
        return place / (self.folder or self.files[0].name)

    def files_under(self, place: Path) -> list[Path]:
        """The path of each file inside a folder of weights."""
        return [place / self.folder / file.name for file in self.files]


@dataclass(frozen=True, kw_only=True)
class Located:
    """Weights on disk."""

    path: Path
    """The file, or the folder that holds the files."""
    hashes: dict[str, str]
    """File name -> SHA-256 in hex, as computed here."""
    verified: bool
    """Whether every file agreed with a hash that its publisher states."""

    @property
    def sha256(self) -> str:
        """The file's SHA-256; for a folder, that of its `<hash>  <name>` lines."""
        if len(self.hashes) == 1:
            return next(iter(self.hashes.values()))
        lines = "".join(f"{value}  {name}\n" for name, value in sorted(self.hashes.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


CNN14 = Weight(
    name="cnn14",
    files=(
        WeightFile(
            name="Cnn14_mAP=0.431.pth",
            url="https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1",
            hash_source=HashSource.RECORD,
            record="https://zenodo.org/api/records/3987831",
        ),
    ),
)
"""PANNs Cnn14, AudioSet mAP 0.431 (Kong et al., 2020)."""

_DETR_ADDRESS = "https://huggingface.co/facebook/detr-resnet-50/resolve/no_timm"
DETR = Weight(
    name="detr",
    folder="detr-resnet-50",
    files=tuple(
        WeightFile(name=name, url=f"{_DETR_ADDRESS}/{name}", hash_source=HashSource.HEADER)
        for name in ("config.json", "model.safetensors")
    ),
)
"""DETR-R50 (Carion et al., 2020), revision `no_timm`: its backbone needs no `timm`."""


def imagenet_weights(trunk: str) -> Weight:
    """The IMAGENET1K_V1 weights of a torchvision network, at the address torchvision itself gives.

    Raises:
        UsageError: torchvision has no such network, or no such weights for it.
    """
    from torchvision.models import get_model_weights

    try:
        url = str(get_model_weights(trunk)["IMAGENET1K_V1"].url)
    except (ValueError, KeyError):
        raise UsageError(f"torchvision has no IMAGENET1K_V1 weights for {trunk!r}") from None
    file = WeightFile(name=url.rpartition("/")[2], url=url, hash_source=HashSource.FILE_NAME)
    return Weight(name=f"imagenet-{trunk}", files=(file,))


def cache_folder() -> Path:
    """Where downloads go: `$XDG_CACHE_HOME` or `~/.cache`, then `avloc/weights`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "avloc" / "weights"


def locate(weight: Weight, *, weights_dir: Path | None = None, listener: Listener = silent) -> Located:
    """Find published weights on disk, else download them into the cache folder.

    Searched in this order: `weights_dir`, `$AVLOC_WEIGHTS`, the cache folder. A set of several files must lie in one
    place.

    Args:
        weight: what to look for.
        weights_dir: the user's folder (`--weights-dir`).
        listener: hears the progress of a download in bytes, and a notice where nothing could be checked.

    Raises:
        UsageError: `weights_dir` is not a folder.
        WeightsError: a file does not agree with its published hash.
        WeightsAbsent: it is not there and cannot be downloaded.
    """
    if weights_dir is not None and not weights_dir.is_dir():
        raise UsageError(f"--weights-dir {weights_dir} is not a folder")
    places = _places(weights_dir)
    for place in places.values():
        if all(path.is_file() for path in weight.files_under(place)):
            return _found(weight, place)
    return _downloaded(weight, places, listener)


def _places(weights_dir: Path | None) -> dict[str, Path]:
    places = {"--weights-dir": weights_dir} if weights_dir is not None else {}
    if folder := os.environ.get("AVLOC_WEIGHTS"):
        places["$AVLOC_WEIGHTS"] = Path(folder)
    return {**places, "cache folder": cache_folder()}


def _found(weight: Weight, place: Path) -> Located:
    promises = [_named_promise(file) for file in weight.files]
    for path, promise in zip(weight.files_under(place), promises, strict=True):
        if promise:
            _check(path, path, promise)
    return _located(weight, place, verified=all(promises))


def _located(weight: Weight, place: Path, *, verified: bool) -> Located:
    hashes = {path.name: sha256_of(path) for path in weight.files_under(place)}
    return Located(path=weight.under(place), hashes=hashes, verified=verified)


def _named_promise(file: WeightFile) -> str:
    match = _NAMED_HASH.search(file.name) if file.hash_source is HashSource.FILE_NAME else None
    return f"sha256:{match[1]}" if match else ""


def _check(path: Path, shown: Path, promise: str) -> None:
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


def _downloaded(weight: Weight, places: dict[str, Path], listener: Listener) -> Located:
    place = cache_folder()
    promises = []
    for file, path in zip(weight.files, weight.files_under(place), strict=True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            promises.append(_download(file, path, listener))
        except (*_NETWORK_ERRORS, PermissionError) as error:
            searched = "; ".join(f"{name} {folder}" for name, folder in places.items())
            raise WeightsAbsent(
                f"weights {weight.label} are absent (looked in: {searched}) and cannot be downloaded from {file.url}: "
                f"{error}",
                hint=f"Get {file.name} from {file.url} and save it as {path}, or name its folder with --weights-dir.",
            ) from error
    if not all(promises):
        listener(Notice(f"{weight.label}: the publisher states no hash; the computed one is recorded, unverified"))
    return _located(weight, place, verified=all(promises))


def _download(file: WeightFile, path: Path, listener: Listener) -> str:
    """Fetch one file, check it, then put it in place; returns the promise that it kept, or ''."""
    promise = _named_promise(file) or _recorded_promise(file)
    listener(Notice(f"downloading {file.name} from {file.url} to {path.parent}"))
    with atomic_path(path) as part:
        etag = _fetch(file, part, listener)
        if file.hash_source is HashSource.HEADER:
            promise = _etag_promise(etag)
        if promise:
            _check(part, path, promise)
    return promise


def _recorded_promise(file: WeightFile) -> str:
    if file.hash_source is not HashSource.RECORD:
        return ""
    with _open(file.record) as (response, _):
        record = response.read()
    try:
        checksums = {entry["key"]: str(entry["checksum"]) for entry in json.loads(record)["files"]}
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
