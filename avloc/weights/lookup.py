"""Locating published weights on disk, or downloading them."""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from avloc.errors import UsageError, WeightsAbsent
from avloc.files import sha256_of
from avloc.progress import Listener, Notice, silent
from avloc.weights.catalog import Weight
from avloc.weights.download import OTHER_CACHE, cache_folder, check, download, hash_in_name

SOURCE_HASH = "source_sha256"
"""Metadata key of a converted file: SHA-256 of the published file."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """Weights on disk."""

    path: Path
    """The file, or the folder that holds the files."""
    hashes: dict[str, str]
    """File name -> SHA-256 in hex: computed here, or the converted file's record of the file it was made from."""
    verified: bool
    """Whether every file has its published hash."""

    @property
    def name(self) -> str:
        """Name of the file, or of the folder."""
        return next(iter(self.hashes)) if len(self.hashes) == 1 else self.path.name

    @property
    def sha256(self) -> str:
        """The file's SHA-256; for a folder, that of its `<hash>  <name>` lines."""
        if len(self.hashes) == 1:
            return next(iter(self.hashes.values()))
        lines = "".join(f"{value}  {name}\n" for name, value in sorted(self.hashes.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def locate(
    weight: Weight, *, weights_dir: Path | None = None, listener: Listener = silent, instead: str = ""
) -> Located:
    """Locate published weights on disk, else download them into the cache folder.

    Searched in this order: `weights_dir`, `$AVLOC_WEIGHTS`, the cache folder, an installed package that carries them.
    All files of a set must be in one place.

    Args:
        weight: a file or set of files.
        weights_dir: the user's folder (`--weights-dir`).
        listener: receives the progress of a download in bytes, and a notice if no hash is published.
        instead: alternative to these weights: a sentence for the hint of `WeightsAbsent`.

    Raises:
        UsageError: `weights_dir` is not a folder.
        WeightsError: a file has another hash than the published one.
        WeightsAbsent: the files are absent and cannot be downloaded.
    """
    if weights_dir is not None and not weights_dir.is_dir():
        raise UsageError(f"--weights-dir {weights_dir} is not a folder")
    if (place := location(weight, weights_dir)) is not None:
        for path in weight.files_under(place):
            hash_agrees(path)
        return _located(weight, place, [hash_in_name(file.name) for file in weight.files])
    places = _places(weight, weights_dir)
    searched = "; ".join(f"{name} {folder}" for name, folder in places.items())
    try:
        if not all(file.url for file in weight.files):
            raise _without_address(weight, searched, [place / weight.original for place in places.values()])
        return _downloaded(weight, searched, listener)
    except WeightsAbsent as error:
        error.hint = f"{error.hint} {instead}".strip()
        raise


def location(weight: Weight, weights_dir: Path | None = None) -> Path | None:
    """The first of the places searched that has all files of a set; None if none has. No hash is checked."""
    places = _places(weight, weights_dir).values()
    return next((place for place in places if _are_files(weight.files_under(place))), None)


def hash_agrees(path: Path) -> bool:
    """Check a file against the hash in its name; False if there is none. WeightsError for another hash."""
    published = hash_in_name(path.name)
    check(path, path, published)
    return bool(published)


def _are_files(paths: list[Path]) -> bool:
    try:
        return all(path.is_file() for path in paths)
    except OSError:  # a folder without permission counts as empty; the error names it among those searched
        return False


def search_places(weights_dir: Path | None = None) -> dict[str, Path]:
    """The folders in which weights are looked for, in order; WeightsAbsent if the cache folder is not known."""
    places = {"--weights-dir": weights_dir} if weights_dir is not None else {}
    if folder := os.environ.get("AVLOC_WEIGHTS"):
        places["$AVLOC_WEIGHTS"] = Path(folder)
    return {**places, "cache folder": cache_folder()}


def _places(weight: Weight, weights_dir: Path | None) -> dict[str, Path]:
    return {**search_places(weights_dir), **_inside_package(weight)}


def _inside_package(weight: Weight) -> dict[str, Path]:
    """The package's folder of weights, if it is installed; its code is not run."""
    spec = find_spec(weight.package) if weight.package else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return {f"package {weight.package}": Path(folders[0]) / "models"} if folders else {}


def _located(weight: Weight, place: Path, published: list[str]) -> Located:
    hashes = {path.name: sha256_of(path) for path in weight.files_under(place)}
    if weight.original and (source := _source_hash(weight.under(place))):
        hashes = {weight.original: source}  # as in the hints and runs of avloc 0.1, which read that file
    return Located(path=weight.under(place), hashes=hashes, verified=all(published))


def _source_hash(path: Path) -> str:
    """SHA-256 of the file that a converted file was made from; '' if it has no such record."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get(SOURCE_HASH, ""))
    except SafetensorError:  # whoever loads the weights reports it
        return ""


def _without_address(weight: Weight, searched: str, originals: list[Path]) -> WeightsAbsent:
    uninstalled = weight.package and not _inside_package(weight)
    missing = f"; package {weight.package}, which is not installed" if uninstalled else ""
    reason, advice = f"weights {weight.label} are absent (looked in: {searched}{missing})", weight.advice
    if weight.original and (found := next((path for path in originals if _are_files([path])), None)):
        reason = f"{reason}; {found} has to be converted"
        advice = advice.replace("FILE.tflite", shlex.quote(str(found)))
    hint = f"{advice} By hand, it goes to {weight.under(cache_folder())}, or into a folder named with --weights-dir."
    return WeightsAbsent(reason, hint=hint)


def _make_writable(folder: Path, weight: Weight) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no permission to write")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = f"the cache folder {folder} cannot be used: {error.strerror}"
        raise WeightsAbsent(f"weights {weight.label} are absent, and {reason}", hint=OTHER_CACHE) from error


def _reason(error: Exception) -> str:
    """Why a request failed, without the connection objects that urllib3 names around it."""
    cause = str(getattr(next(iter(error.args), None), "reason", error))
    return cause.partition("): ")[2] or cause


def _downloaded(weight: Weight, searched: str, listener: Listener) -> Located:
    import requests

    place, published = cache_folder(), []
    for file, path in zip(weight.files, weight.files_under(place), strict=True):
        _make_writable(path.parent, weight)
        try:
            published.append(download(file, path, listener))
        except requests.RequestException as error:
            raise WeightsAbsent(
                f"weights {weight.label} are absent (looked in: {searched}) and cannot be downloaded from {file.url}: "
                f"{_reason(error)}",
                hint=f"Get {file.name} from {file.url} and save it as {path}, or name its folder with --weights-dir.",
            ) from error
    if not all(published):
        listener(Notice(f"{weight.label}: the publisher states no hash; the computed one is recorded, unverified"))
    return _located(weight, place, published)
