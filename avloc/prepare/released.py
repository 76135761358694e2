"""The features that AVE's authors released, into hints of a store.

`visual_feature.h5` (or `visual_feature_vec.h5`, their means over cells) with `audio_feature.h5`: a row is a clip, in
the order of `Annotations.txt`. The same with `_noisy` before the dot hold clips of background alone. They are several
GB of float64: read row by row and kept as float16.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.annotations.ave import LABELS_KEY
from avloc.errors import InputError, UsageError
from avloc.files import check_regular_file, sha256_of
from avloc.hdf5 import local_data_set
from avloc.progress import Listener, Notice, Progress
from avloc.store import HintStamp, HintWriter
from avloc.store.events import HEARD, POOLED, SEEN
from avloc.store.hints import hint_folder
from avloc.store.shards import ShardFolder

_HEARD = ("audio_feature.h5", HEARD, (10, 128))
_SEEN = (
    ("visual_feature.h5", SEEN, (10, 7, 7, 512)),
    ("visual_feature_vec.h5", POOLED, (10, 512)),
)
_LARGEST = float(np.finfo(np.float16).max)
_SHARD_CLIPS = 64


@dataclass(frozen=True)
class Released:
    """One file of features: its rows are clips in order, `noise` behind them in a file of its own."""

    path: Path
    teacher: str
    shape: tuple[int, ...]
    """Of one row in the file."""
    noise: Path | None

    @property
    def hint_shape(self) -> tuple[int, ...]:
        """Means over cells are kept as pictures of one cell."""
        return self.shape if self.teacher != POOLED else (self.shape[0], 1, 1, self.shape[1])

    def absent(self, names: Sequence[str], out: Path) -> list[str]:
        """Those of the clips whose features are not in the store yet."""
        known = ShardFolder(hint_folder(out, self.teacher))
        return [name for name in names if name not in known]

    def check(self, clips: int) -> None:
        """One row for each clip.

        Raises:
            UsageError: there are more or fewer.
        """
        if (rows := _count(self.path, self.shape)) != clips:
            raise UsageError(f"{self.path} has {rows} rows, but there are {clips} annotations")

    def take(self, clips: Sequence[str], noise: Sequence[str], out: Path, listener: Listener) -> int:
        """Keep the rows that are not kept yet; returns how many.

        Raises:
            UsageError: a row cannot be read, or holds what float16 cannot.
            Refused: the store holds hints of this teacher that were made otherwise.
        """
        listener(Notice(f"reading {self.path.name} once for its SHA-256"))
        paths = [self.path, *([self.noise] if self.noise and noise else [])]
        settings = {"imported": sha256_of(*paths), "files": len(paths)}
        stamp = HintStamp(teacher=self.teacher, shape=self.hint_shape, settings=settings)
        taken, total = 0, len(clips) + len(noise)
        with HintWriter(out, stamp, shard_clips=_SHARD_CLIPS) as writer:
            wanted = frozenset(self.absent((*clips, *noise), out))
            for path, names in zip(paths, (clips, noise), strict=False):
                with closing(_values(path, self.shape, names, wanted)) as values:
                    for name, value in values:
                        writer.add(name, value.reshape(self.hint_shape))
                        taken += 1
                        listener(Progress(task=path.name, done=taken, total=total, detail=name))
        return taken


def find_released(files: Mapping[str, Path]) -> list[Released]:
    """The feature files among files by their names; none where there are none.

    Raises:
        UsageError: only half of them.
    """

    def found(name: str, teacher: str, shape: tuple[int, ...]) -> list[Released]:
        noise = files.get(name.replace(".h5", "_noisy.h5"))
        return [Released(files[name], teacher, shape, noise)] if name in files else []

    heard, seen = found(*_HEARD), [one for kind in _SEEN for one in found(*kind)]
    if bool(heard) != bool(seen):
        absent = _HEARD[0] if seen else _SEEN[0][0]
        raise UsageError(f"{(heard or seen)[0].path} is there without {absent}; both are needed")
    return [*heard, *seen]


def noise_count(released: Sequence[Released], listener: Listener) -> int:
    """Rows of background alone, where sounds and cells of pictures both have a partner with them.

    Raises:
        UsageError: the two have not as many.
    """
    needed = [one for one in released if one.teacher != POOLED]
    absent = [one.path.name for one in needed if one.noise is None]
    if len(needed) < 2 or absent:
        if released and len(absent) < len(needed):
            listener(Notice(f"the files of noise are not used: {', '.join(absent) or _SEEN[0][0]} has none"))
        return 0
    counts = {_count(one.noise, one.shape) for one in needed if one.noise}
    if len(counts) > 1:
        raise UsageError(f"the files of noise differ in length: {', '.join(map(str, sorted(counts)))} rows")
    return counts.pop()


@contextmanager
def _opened(path: Path, shape: tuple[int, ...]) -> Iterator[Any]:
    """The data set of [rows, *shape] in a file.

    Raises:
        UsageError: it is none.
    """
    import h5py

    try:
        check_regular_file(path)
        file = h5py.File(path, "r", locking=False)
    except (InputError, OSError) as error:
        raise UsageError(f"{path} cannot be read as features of AVE: {error}") from error
    with file:
        try:
            values = local_data_set(file, LABELS_KEY)
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
            raise UsageError(f"{path} cannot be read as features of AVE: {error}") from error
        if values.shape[1:] != shape or values.dtype.kind != "f":
            wanted = f"floats of [rows, {', '.join(map(str, shape))}]"
            raise UsageError(f"{path} holds {values.dtype} {values.shape}, not {wanted}")
        yield values


def _count(path: Path, shape: tuple[int, ...]) -> int:
    with _opened(path, shape) as values:
        return len(values)


def _values(
    path: Path, shape: tuple[int, ...], names: Sequence[str], wanted: Collection[str]
) -> Generator[tuple[str, NDArray[np.floating]]]:
    """The rows of the clips that are wanted, each with its clip."""
    with _opened(path, shape) as rows:
        for number, name in enumerate(names):
            if name not in wanted:
                continue
            try:
                value: NDArray[np.floating] = rows[number]
            except (OSError, RuntimeError, ValueError) as error:
                raise UsageError(f"{path} cannot be read at row {number}: {error}") from error
            if not np.isfinite(value).all() or np.abs(value).max(initial=0) > _LARGEST:
                raise UsageError(f"{path} holds numbers beyond the range of float16 in row {number}")
            yield name, value
