"""Imports the features that AVE's authors released as hints of a store.

They are `visual_feature.h5`, or `visual_feature_vec.h5` with the means over cells, and `audio_feature.h5`. A row is a
clip, in the order of `Annotations.txt`; files with `_noisy` before the dot contain clips of noise. They are several GB
of float64, which are read row by row and stored as float16.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.ave.annotations import LABELS_KEY, open_data_set
from avloc.ave.event_table import AUDIO_HINTS, POOLED_HINTS, VISUAL_HINTS
from avloc.errors import UsageError
from avloc.files import sha256_of
from avloc.progress import Listener, Notice, Progress
from avloc.store import HintStamp, HintWriter
from avloc.store.hints import hint_folder
from avloc.store.shards import ShardFolder

_AUDIO_FILE = ("audio_feature.h5", AUDIO_HINTS, (10, 128))
_VISUAL_FILES = (
    ("visual_feature.h5", VISUAL_HINTS, (10, 7, 7, 512)),
    ("visual_feature_vec.h5", POOLED_HINTS, (10, 512)),
)
_LARGEST = float(np.finfo(np.float16).max)
_SHARD_CLIPS = 64


@dataclass(frozen=True)
class FeatureFile:
    """A file of features, one row per clip, and its file of noise."""

    path: Path
    teacher: str
    shape: tuple[int, ...]
    """Shape of a row."""
    noise: Path | None

    def absent(self, names: Sequence[str], out: Path) -> list[str]:
        """The clips whose features are not in the store yet."""
        known = ShardFolder(hint_folder(out, self.teacher))
        return [name for name in names if name not in known]

    def check(self, clips: int) -> None:
        """Check that there is one row for each clip.

        Raises:
            UsageError: there are more or fewer.
        """
        if (rows := self.count(self.path)) != clips:
            raise UsageError(f"{self.path} has {rows} rows, but there are {clips} annotations")

    def take(self, clips: Sequence[str], noise: Sequence[str], out: Path, listener: Listener) -> int:
        """Store the rows that are not stored yet, and return their number.

        Raises:
            UsageError: a row cannot be read, or exceeds the range of float16.
            Refused: the store contains other hints of this teacher.
        """
        listener(Notice(f"reading {self.path.name} once for its SHA-256"))
        paths = [self.path, *([self.noise] if self.noise and noise else [])]
        settings = {"imported": sha256_of(*paths), "files": len(paths)}
        # Means over cells are stored as one cell.
        shape = self.shape if self.teacher != POOLED_HINTS else (self.shape[0], 1, 1, self.shape[1])
        stamp = HintStamp(teacher=self.teacher, shape=shape, settings=settings)
        taken, total = 0, len(clips) + len(noise)
        with HintWriter(out, stamp, shard_clips=_SHARD_CLIPS) as writer:
            absent = frozenset(self.absent((*clips, *noise), out))
            for path, names in zip(paths, (clips, noise), strict=False):
                with closing(self._values(path, names, absent)) as values:
                    for name, value in values:
                        writer.add(name, value.reshape(shape))
                        taken += 1
                        listener(Progress(task=path.name, done=taken, total=total, detail=name))
        return taken

    def count(self, path: Path) -> int:
        """Number of rows of `path` or `noise`."""
        with self._opened(path) as values:
            return len(values)

    @contextmanager
    def _opened(self, path: Path) -> Iterator[Any]:
        with open_data_set(path, LABELS_KEY, "features of AVE") as values:
            if values.shape[1:] != self.shape or values.dtype.kind != "f":
                expected = f"floats of [rows, {', '.join(map(str, self.shape))}]"
                raise UsageError(f"{path} contains {values.dtype} {values.shape}, not {expected}")
            yield values

    def _values(
        self, path: Path, names: Sequence[str], absent: Collection[str]
    ) -> Generator[tuple[str, NDArray[np.floating]]]:
        """The rows of the absent clips, each with its clip."""
        with self._opened(path) as rows:
            for number, name in enumerate(names):
                if name not in absent:
                    continue
                value: NDArray[np.floating] = rows[number]
                if not np.isfinite(value).all() or np.abs(value).max(initial=0) > _LARGEST:
                    raise UsageError(f"{path} contains numbers beyond the range of float16 in row {number}")
                yield name, value


def find_features(files: Mapping[str, Path]) -> list[FeatureFile]:
    """The feature files among `files` (name -> path), if any.

    Raises:
        UsageError: audio without visual features, or the reverse.
    """

    def found(name: str, teacher: str, shape: tuple[int, ...]) -> list[FeatureFile]:
        noise = files.get(name.replace(".h5", "_noisy.h5"))
        return [FeatureFile(files[name], teacher, shape, noise)] if name in files else []

    audio, visual = found(*_AUDIO_FILE), [one for kind in _VISUAL_FILES for one in found(*kind)]
    if bool(audio) != bool(visual):
        absent = _AUDIO_FILE[0] if visual else _VISUAL_FILES[0][0]
        raise UsageError(f"{(audio or visual)[0].path} exists without {absent}; both are needed")
    return [*audio, *visual]


def count_noise(released: Sequence[FeatureFile], listener: Listener) -> int:
    """Number of rows of noise; 0 unless there are files of noise for both audio and visual features.

    Raises:
        UsageError: the two differ in length.
    """
    needed = [one for one in released if one.teacher != POOLED_HINTS]
    absent = [one.path.name for one in needed if one.noise is None]
    if len(needed) < 2 or absent:
        if released and len(absent) < len(needed):
            listener(Notice(f"the files of noise are not used: {', '.join(absent) or _VISUAL_FILES[0][0]} has none"))
        return 0
    counts = {one.count(one.noise) for one in needed if one.noise}
    if len(counts) > 1:
        raise UsageError(f"the files of noise differ in length: {', '.join(map(str, sorted(counts)))} rows")
    return counts.pop()
