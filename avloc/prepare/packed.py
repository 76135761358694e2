"""Read the HDF5 sets of SSPL and SACL, row by row.

`h5py_{train,test}_frames_<set>.h5` holds [N, 256, 256, 3] float32 RGB in 0..255, the file with `audios` in its name
[N, 48000] float32 at 16 kHz, min-max normalised by the authors. The 144k set is ten files. Ids are in a CSV beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.annotations.testsets import media_id, published_list
from avloc.errors import InputError
from avloc.hdf5 import local_data_set
from avloc.prepare.sources import Skip, Source

PACKED_RATE = 16_000
"""Sample rate of packed sounds in Hz."""
PACKED_NOTE = "16 kHz sound, min-max normalised by the packer of the HDF5 set"
TEST_ROWS_LIST = "vggss_test_4692"
"""Published list with the clips of the packed test files, in order."""

_MAX_ROW_BYTES = 1 << 28
"""Largest frame or sound; rows may be compressed, so the file size is no bound."""

_SET = re.compile(r"_(?P<set>\d+k)(?:_(?P<shard>\d+))?$")


def packed_sources(paths: list[Path], skips: list[Skip]) -> Iterator[Source]:
    """The clips of packed sets; files without a partner are added to `skips`. Spectrogram files are ignored."""
    names = {path: path.name for path in sorted(paths, key=_sort_key)}
    partners = {path: path.with_name(name.replace("frames", "audios")) for path, name in names.items()}
    used = set()
    for path, name in names.items():
        if "frames" not in name:
            continue
        sound = partners[path]
        used.add(sound)
        try:
            ids = _ids(path, _shared_rows(path, sound))
        except InputError as error:
            skips.append(Skip(id="", input=str(path), reason=str(error)))
            continue
        yield from (
            Source(id=clip_id, kind="packed", path=path, sound=sound, row=row) for row, clip_id in enumerate(ids)
        )
    for path, name in names.items():
        if "frames" not in name and "spects" not in name and path not in used:
            skips.append(Skip(id="", input=str(path), reason="is an HDF5 file without a frames file"))


def _sort_key(path: Path) -> tuple[str, int, str]:
    match = _SET.search(path.stem)
    return str(path.parent), int(match["shard"] or 0) if match else 0, path.name


def _shared_rows(frames: Path, sounds: Path) -> int:
    if not sounds.is_file():
        raise InputError(f"has no sounds: {sounds.name} is not beside it")
    counts = [len(_values(path, part)) for path, part in ((frames, "frames"), (sounds, "audios"))]
    if counts[0] != counts[1]:
        raise InputError(f"holds {counts[0]} frames, but {sounds.name} holds {counts[1]} sounds")
    return counts[0]


@lru_cache(maxsize=4)
def _open(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read as HDF5 ({error})") from error


def _values(path: Path, part: str) -> Any:
    file = _open(path)
    key = next((key for key in file if key.endswith(part)), None)
    if key is None:
        raise InputError(f"{path.name} has no data set whose name ends in {part!r}")
    try:
        values = local_data_set(file, key)
    except (ValueError, OSError, RuntimeError, TypeError, KeyError) as error:
        raise InputError(f"{path.name} cannot be used: {error}") from error
    if not values.ndim or values.dtype.kind not in "fiu" or values.nbytes > len(values) * _MAX_ROW_BYTES:
        raise InputError(f"{path.name} cannot be used: {key} has shape {values.shape} and type {values.dtype}")
    return values


def _ids(path: Path, count: int) -> list[str]:
    """Ids of the rows: from the published list, the CSV beside the set, or derived from the file name."""
    if "test" in path.name and count == len(published_list(TEST_ROWS_LIST)):
        return list(published_list(TEST_ROWS_LIST))
    match = _SET.search(path.stem)
    if match and count:
        listed = _listed_ids(path, match["set"], count)
        start = (int(match["shard"] or 1) - 1) * count
        if len(listed) >= start + count:
            return listed[start : start + count]
    return [f"{path.stem}-{row:06d}" for row in range(count)]


def _listed_ids(path: Path, name: str, count: int) -> list[str]:
    """Ids in the CSV beside a set or one folder up; none if its length is not a multiple of `count`."""
    lists = [entry for folder in (path.parent, path.parent.parent) for entry in sorted(folder.glob(f"*_{name}.csv"))]
    if not lists:
        return []
    lines = [line for line in lists[0].read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    lines = lines[len(lines) % count :] if len(lines) % count <= 1 else []  # an extra line is a header
    return [media_id(PurePath(line.split(",")[0].strip()), to_first_dot=True) for line in lines]


def read_row(source: Source) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Read frame [H, W, 3] RGB and sound [n] of one packed clip.

    Raises:
        InputError: the row cannot be read or has the wrong shape.
    """
    assert source.sound is not None
    try:
        frame = _values(source.path, "frames")[source.row]
        sound = _values(source.sound, "audios")[source.row]
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"row {source.row} cannot be read ({error})") from error
    if frame.ndim != 3 or frame.shape[2] != 3 or sound.ndim != 1:
        raise InputError(f"row {source.row} has shapes {frame.shape} and {sound.shape}, not [H, W, 3] and [n]")
    if not np.isfinite(frame).all():
        raise InputError(f"row {source.row} has NaN or infinite pixels")
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8), sound.astype(np.float32)
