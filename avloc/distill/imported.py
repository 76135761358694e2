"""Import of AVC's precomputed hints: `audio_feats/<id>.flac.npy` and `detr_dec_feats/<id>.jpg.npy`.

They are not normalised again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avloc.annotations.testsets import canonical_id, media_id
from avloc.distill.sources import HintResults, HintSource
from avloc.errors import InputError, UsageError
from avloc.files import sha256_of
from avloc.npy import parse_npy
from avloc.progress import Listener, Notice, Progress

if TYPE_CHECKING:
    from avloc.teachers.base import Hint

LAYOUT = {"panns": ("audio_feats", (2048,)), "detr": ("detr_dec_feats", (25, 25))}
"""Teacher -> folder, and shape of a hint after squeezing."""


def imported_sources(folder: Path, teachers: Sequence[str], listener: Listener) -> list[HintSource]:
    """Sources of the hints in `folder`; a teacher without a subfolder is skipped with a notice.

    Raises:
        UsageError: there is nothing to import.
    """
    found = {name: folder / LAYOUT[name][0] for name in teachers if (folder / LAYOUT[name][0]).is_dir()}
    if not found:
        expected = " or ".join(f"{LAYOUT[name][0]}/" for name in teachers)
        raise UsageError(f"--import-npy {folder} has no {expected}")
    for name in set(teachers) - set(found):
        listener(Notice(f"{folder} has no {LAYOUT[name][0]}/: no hints of {name} are imported"))
    return [_source(name, subfolder, listener) for name, subfolder in found.items()]


def _source(teacher: str, folder: Path, listener: Listener) -> HintSource:
    from avloc.store import HintStamp

    shape = LAYOUT[teacher][1]
    paths = sorted(folder.rglob("*.npy"))
    by_id: dict[str, list[Path]] = {}
    for path in paths:
        by_id.setdefault(media_id(path, to_first_dot=True), []).append(path)

    def hints(ids: Sequence[str]) -> HintResults:
        for clip_id in ids:
            try:
                yield clip_id, read_hint(by_id[canonical_id(clip_id)], shape)
            except InputError as error:
                yield clip_id, error

    digest = hashlib.sha256()  # of names and contents of all files, in place of the hashes of a teacher's weights
    for number, path in enumerate(paths, start=1):
        digest.update(f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n".encode())
        listener(Progress(task=f"reading {folder.name}", done=number, total=len(paths)))
    settings = {"imported": digest.hexdigest(), "files": len(paths)}
    stamp = HintStamp(teacher=teacher, shape=shape, settings=settings)
    return HintSource(stamp=stamp, has=lambda clip_id: canonical_id(clip_id) in by_id, hints=hints)


def read_hint(paths: Sequence[Path], shape: tuple[int, ...]) -> Hint:
    """Read a clip's hint; None if it contains NaN, which is AVC's "no hint".

    Raises:
        InputError: more than one file, or an invalid array: unreadable, another shape, beyond float16.
    """
    if len(paths) > 1:
        raise InputError(f"several files have its id: {', '.join(sorted(path.name for path in paths))}")
    (path,) = paths
    try:
        value = parse_npy(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} is not a readable array: {error}") from error
    squeezed = value.squeeze()
    if squeezed.shape != shape or value.dtype.kind != "f":
        raise InputError(f"{path.name} contains {value.dtype} {value.shape}, not floats that squeeze to {shape}")
    if np.isnan(squeezed).any():
        return None
    if np.abs(squeezed).max() > np.finfo(np.float16).max:
        raise InputError(f"{path.name} contains numbers beyond the range of float16")
    return squeezed.astype(np.float32)
