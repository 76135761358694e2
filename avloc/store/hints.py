"""Hints of teachers: one folder per teacher in the store, stamped with its weights and settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.errors import Refused
from avloc.files import read_json_lines, read_json_object, write_json
from avloc.sharding import UNSHARDED, JobShard
from avloc.store.shard_file import IDS, ROWS, Column
from avloc.store.shards import ShardFolder, ShardWriter, put_texts

SCHEMA = 2
STAMP = "stamp.json"
FAILED = "failed.jsonl"


def hint_folder(store: Path, teacher: str) -> Path:
    """Folder of a teacher's hints in a store."""
    return store / f"hints-{teacher}"


@dataclass(frozen=True, kw_only=True)
class HintStamp:
    """Teacher, weights and settings of hints. Adding hints with another stamp is refused."""

    teacher: str
    shape: tuple[int, ...]
    """Shape of one hint."""
    weights: dict[str, str] = field(default_factory=dict)
    """File name -> SHA-256."""
    settings: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data of `stamp.json`."""
        return json.loads(json.dumps({"schema": SCHEMA, **asdict(self)}))  # type: ignore[no-any-return]


def _changed(old: Any, new: dict[str, Any]) -> list[str]:
    older = old if isinstance(old, dict) else {}
    return sorted(key for key in {*older, *new} if older.get(key) != new.get(key))


def _precision(stamp: dict[str, Any]) -> Any:
    settings = stamp.get("settings")
    return settings.get("precision", "fp32") if isinstance(settings, dict) else "fp32"


class Hints:
    """Reader of one teacher's hints.

    Raises:
        Refused: there are none, or they are invalid.
    """

    def __init__(self, store: Path, teacher: str) -> None:
        self.folder = hint_folder(store, teacher)
        path = self.folder / STAMP
        if not path.is_file():
            hint = f"Create them: avloc distill-cache {store} --teacher {teacher}"
            raise Refused(f"{store} has no hints of {teacher}", hint=hint)
        self.stamp = read_json_object(path)
        if self.stamp.get("teacher") != teacher:
            raise Refused(f"{path} is not of {teacher}", hint="Delete the folder to recreate them.")
        shape = self.stamp.get("shape")
        if not isinstance(shape, list) or not all(isinstance(size, int) and size > 0 for size in shape):
            raise Refused(f"{path} lacks the shape of the hints", hint="Delete the folder to recreate them.")
        self.shards = ShardFolder(self.folder, {**IDS, "present": Column("u1"), "value": Column("f2", (ROWS, *shape))})

    @property
    def imported(self) -> bool:
        """Whether they were imported from arrays, which may not cover all clips."""
        settings = self.stamp.get("settings")
        return isinstance(settings, dict) and "imported" in settings

    @property
    def failed(self) -> set[str]:
        """Ids of the clips that failed (`failed.jsonl`)."""
        return {str(line["id"]) for line in read_json_lines(self.folder / FAILED) if "id" in line}

    def check_finished(self, ids: Sequence[str]) -> None:
        """Raise Refused if the teacher has not been run on one of the clips; it may have failed on them."""
        absent = [clip_id for clip_id in ids if clip_id not in self.shards]
        failed = self.failed if absent else set()
        if unfinished := [clip_id for clip_id in absent if clip_id not in failed]:
            teacher = self.stamp["teacher"]
            command = f"avloc distill-cache {self.folder.parent} --teacher {teacher}"
            hint = f"Finish them: {'repeat the command that imported them' if self.imported else command}"
            reason = f"{len(unfinished)} of {len(ids)} clips have no hints of {teacher}, first {unfinished[0]}"
            raise Refused(reason, hint=hint)

    def read(self, clip_id: str) -> NDArray[np.float16] | None:
        """Read the hint of one clip; None for "no hint" (no confident output).

        Raises:
            KeyError: the teacher has not been run on this clip.
        """
        file, row = self.shards.locate(clip_id)
        if not file.numbers("present", row):
            return None
        value: NDArray[np.float16] = file.numbers("value", row)
        return value


class HintWriter(ShardWriter[tuple[str, NDArray[Any] | None]]):
    """Adds a teacher's hints to a store. See `ShardWriter`.

    Raises:
        Refused: on entering the context: the folder contains hints with another stamp.
    """

    def __init__(self, store: Path, stamp: HintStamp, *, shard_clips: int = 512, shard: JobShard = UNSHARDED) -> None:
        super().__init__(hint_folder(store, stamp.teacher), shard_clips, shard)
        self.stamp = stamp

    def write_header(self) -> None:
        """Write `stamp.json`; another one is refused."""
        path, new = self.folder / STAMP, self.stamp.as_json()
        if path.is_file() and (old := read_json_object(path)) != new:
            names, inner = _changed(old, new), _changed(old.get("settings"), new["settings"])
            reason = f"{self.folder} contains hints with other settings: {', '.join(names)} differ"
            reason += f" ({', '.join(inner)})" if inner else ""
            precision = f": --precision {_precision(old)}" if _precision(old) != _precision(new) else ""
            keep = "" if inner == ["resize"] else f", or use the old settings{precision}"
            raise Refused(reason, hint=f"Delete {self.folder} to recreate them{keep}.")
        write_json(path, new)

    def add(self, clip_id: str, value: NDArray[Any] | None) -> None:
        """Buffer a hint of the stamp's shape; None is "no hint"."""
        if value is not None and value.shape != self.stamp.shape:
            raise ValueError(f"hint of {clip_id}: shape {value.shape}, expected {self.stamp.shape}")
        self.append((clip_id, value))

    def fill(self, file: Any, rows: list[tuple[str, NDArray[Any] | None]]) -> None:
        """Write hints to an open HDF5 file."""
        put_texts(file, "id", [clip_id for clip_id, _ in rows])
        file["present"] = np.array([value is not None for _, value in rows], "u1")
        blank = np.zeros(self.stamp.shape, np.float16)
        file["value"] = np.stack([blank if value is None else value.astype(np.float16) for _, value in rows])
