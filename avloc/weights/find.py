"""Looking for published weights on disk."""

from __future__ import annotations

import errno
import os
from importlib.util import find_spec
from pathlib import Path

from avloc.errors import UsageError, WeightsAbsent
from avloc.files import sha256_of
from avloc.progress import Listener, Notice, silent
from avloc.weights.download import NETWORK_ERRORS, check, download, named_promise
from avloc.weights.records import Located, Weight

_OTHER_CACHE = "Set XDG_CACHE_HOME to a folder that can be written, or name a folder that has them with --weights-dir."


def cache_folder() -> Path:
    """Where downloads go: `$XDG_CACHE_HOME` or `~/.cache`, then `avloc/weights`."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "avloc" / "weights"
    except RuntimeError as error:
        raise WeightsAbsent(f"the cache folder is not known: {error}", hint=_OTHER_CACHE) from error


def locate(
    weight: Weight, *, weights_dir: Path | None = None, listener: Listener = silent, instead: str = ""
) -> Located:
    """Find published weights on disk, else download them into the cache folder.

    Searched in this order: `weights_dir`, `$AVLOC_WEIGHTS`, the cache folder, an installed package that carries them.
    A set of several files must lie in one place.

    Args:
        weight: what to look for.
        weights_dir: the user's folder (`--weights-dir`).
        listener: hears the progress of a download in bytes, and a notice where nothing could be checked.
        instead: what can be done without these weights: a sentence for the hint of `WeightsAbsent`.

    Raises:
        UsageError: `weights_dir` is not a folder.
        WeightsError: a file does not agree with its published hash.
        WeightsAbsent: it is not there and cannot be downloaded.
    """
    if weights_dir is not None and not weights_dir.is_dir():
        raise UsageError(f"--weights-dir {weights_dir} is not a folder")
    places = _places(weight, weights_dir)
    for place in places.values():
        if _is_in(place, weight):
            return _found(weight, place)
    searched = "; ".join(f"{name} {folder}" for name, folder in places.items())
    try:
        if not all(file.url for file in weight.files):
            raise _unreachable(weight, searched)
        return _downloaded(weight, searched, listener)
    except WeightsAbsent as error:
        error.hint = f"{error.hint} {instead}".strip()
        raise


def _is_in(place: Path, weight: Weight) -> bool:
    try:
        return all(path.is_file() for path in weight.files_under(place))
    except OSError:  # a folder that may not be read has nothing for us; it is named among those that were looked in
        return False


def _places(weight: Weight, weights_dir: Path | None) -> dict[str, Path]:
    places = {"--weights-dir": weights_dir} if weights_dir is not None else {}
    if folder := os.environ.get("AVLOC_WEIGHTS"):
        places["$AVLOC_WEIGHTS"] = Path(folder)
    return {**places, "cache folder": cache_folder(), **_inside_package(weight)}


def _inside_package(weight: Weight) -> dict[str, Path]:
    """The package's folder of weights, if it is installed; its code is not run."""
    spec = find_spec(weight.package) if weight.package else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return {f"package {weight.package}": Path(folders[0]) / "models"} if folders else {}


def _found(weight: Weight, place: Path) -> Located:
    promises = [named_promise(file) for file in weight.files]
    for path, promise in zip(weight.files_under(place), promises, strict=True):
        if promise:
            check(path, path, promise)
    return _located(weight, place, verified=all(promises))


def _located(weight: Weight, place: Path, *, verified: bool) -> Located:
    hashes = {path.name: sha256_of(path) for path in weight.files_under(place)}
    return Located(path=weight.under(place), hashes=hashes, verified=verified)


def _unreachable(weight: Weight, searched: str) -> WeightsAbsent:
    absent = weight.package and not _inside_package(weight)
    missing = f"; package {weight.package}, which is not installed" if absent else ""
    where = weight.under(cache_folder())
    return WeightsAbsent(
        f"weights {weight.label} are absent (looked in: {searched}{missing})",
        hint=f"{weight.advice} By hand, it goes to {where}, or into a folder named with --weights-dir.",
    )


def _make_writable(folder: Path, weight: Weight) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it may not be written")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = f"the cache folder {folder} cannot be used: {error.strerror}"
        raise WeightsAbsent(f"weights {weight.label} are absent, and {reason}", hint=_OTHER_CACHE) from error


def _downloaded(weight: Weight, searched: str, listener: Listener) -> Located:
    place = cache_folder()
    promises = []
    for file, path in zip(weight.files, weight.files_under(place), strict=True):
        _make_writable(path.parent, weight)
        try:
            promises.append(download(file, path, listener))
        except NETWORK_ERRORS as error:
            raise WeightsAbsent(
                f"weights {weight.label} are absent (looked in: {searched}) and cannot be downloaded from {file.url}: "
                f"{error}",
                hint=f"Get {file.name} from {file.url} and save it as {path}, or name its folder with --weights-dir.",
            ) from error
    if not all(promises):
        listener(Notice(f"{weight.label}: the publisher states no hash; the computed one is recorded, unverified"))
    return _located(weight, place, verified=all(promises))
