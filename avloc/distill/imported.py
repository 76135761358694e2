"""Hints that AVC users already hold: `audio_feats/<id>.flac.npy` and `detr_dec_feats/<id>.jpg.npy`.

They are taken as they are, not normalised again: who made them chose their scale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avloc.annotations import canonical_id, media_id
from avloc.distill.sources import Answers, HintSource
from avloc.errors import InputError, UsageError
from avloc.files import sha256_of
from avloc.progress import Listener, Notice, Progress

if TYPE_CHECKING:
    from avloc.teachers import Hint

LAYOUT = {"panns": ("audio_feats", (2048,)), "detr": ("detr_dec_feats", (25, 25))}
"""Teacher -> folder and shape of one hint, once axes of length 1 are gone."""


def imported_sources(folder: Path, teachers: Sequence[str], listener: Listener) -> list[HintSource]:
    """The hints in `folder` of the teachers asked for; a teacher whose folder is not there is left out, with a notice.

    Raises:
        UsageError: there is nothing to import.
    """
    there = {name: folder / LAYOUT[name][0] for name in teachers if (folder / LAYOUT[name][0]).is_dir()}
    if not there:
        wanted = " or ".join(f"{LAYOUT[name][0]}/" for name in teachers)
        raise UsageError(f"--import-npy {folder} holds no {wanted}")
    for name in set(teachers) - set(there):
        listener(Notice(f"{folder} holds no {LAYOUT[name][0]}/: no hints of {name} are imported"))
    return [_source(name, place, listener) for name, place in there.items()]


def _source(teacher: str, folder: Path, listener: Listener) -> HintSource:
    from avloc.store import HintStamp

    shape = LAYOUT[teacher][1]
    paths = sorted(folder.rglob("*.npy"))
    by_id: dict[str, list[Path]] = {}
    for path in paths:
        by_id.setdefault(media_id(path, to_first_dot=True), []).append(path)

    def answers(ids: Sequence[str]) -> Answers:
        for clip_id in ids:
            yield clip_id, _read(by_id[canonical_id(clip_id)], shape)

    settings = {"imported": _digest(folder, paths, listener), "files": len(paths)}
    stamp = HintStamp(teacher=teacher, shape=shape, settings=settings)
    return HintSource(stamp=stamp, has=lambda clip_id: canonical_id(clip_id) in by_id, answers=answers)


def _digest(folder: Path, paths: Sequence[Path], listener: Listener) -> str:
    """SHA-256 over every file's name and content: it stands where a teacher's weights would."""
    digest = hashlib.sha256()
    for number, path in enumerate(paths, start=1):
        digest.update(f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n".encode())
        listener(Progress(task=f"reading {folder.name}", done=number, total=len(paths)))
    return digest.hexdigest()


def _read(paths: Sequence[Path], shape: tuple[int, ...]) -> Hint | InputError:
    try:
        return read_hint(paths, shape)
    except InputError as error:
        return error


def read_hint(paths: Sequence[Path], shape: tuple[int, ...]) -> Hint:
    """One clip's hint from the files that bear its id; None where it holds a NaN, AVC's way to say "no hint".

    Raises:
        InputError: several files, an unreadable one, another shape, or numbers that float16 cannot hold.
    """
    if len(paths) > 1:
        raise InputError(f"several files bear its id: {', '.join(sorted(path.name for path in paths))}")
    (path,) = paths
    try:
        with path.open("rb") as file:
            value = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise InputError(f"{path.name} is not a readable array: {error}") from error
    squeezed = value.squeeze()
    if squeezed.shape != shape or value.dtype.kind != "f":
        raise InputError(f"{path.name} holds {value.dtype} {value.shape}, not floats that squeeze to {shape}")
    if np.isnan(squeezed).any():
        return None
    if np.abs(squeezed).max() > np.finfo(np.float16).max:
        raise InputError(f"{path.name} holds numbers beyond the range of float16")
    return squeezed.astype(np.float32)
