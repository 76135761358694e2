"""Stores of clips: frame, sound, boxes or mask, and origin."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.config import from_dict
from avloc.errors import Refused, StoreNotFound, UsageError
from avloc.files import read_json, write_json
from avloc.registry import StoreSpec
from avloc.sharding import UNSHARDED, JobShard, lock_shared_files
from avloc.store.shard_file import ROWS, Column, Shard, ragged_columns
from avloc.store.shards import ShardFolder, ShardWriter, put_ragged, put_texts

SCHEMA = 2
TRACK = "sound track"
"""Key of the provenance with the selected sound track, if any."""
WINDOW_KEY = "window"
"""Key of the provenance with the seconds of each video, if not those around the frame (`registry.VIDEO_READERS`)."""
_SHARD_BYTES = 1 << 27
"""Size limit of a shard, since it is buffered in memory."""
FLAGS = ("silent", "still", "short", "narrowband")
"""silent: digital silence; still: the picture does not change; short: the sound was tiled; narrowband: the source has
a lower sample rate than the store."""

_TEXTS = ("id", "label", "sound_source", "split")
_NUMBERS = (("time_s", "f8"), ("window_s", "f8"), ("source_rate", "i4"), ("source_bytes", "i8"))
_COLUMNS = {
    **{part: column for name in _TEXTS for part, column in ragged_columns(name, "u1").items()},
    **{name: Column(kind) for name, kind in _NUMBERS},
    "frame_hw": Column("i4", (ROWS, 2)),
    "flags": Column("u1", (ROWS, len(FLAGS))),
    "digest": Column("u1", (ROWS, 32)),
    **ragged_columns("picture", "u1"),
    **ragged_columns("boxes", "f8", 4),
    **ragged_columns("mask", "u1"),
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A frame, its sound and annotation: the input of training and scoring."""

    id: str
    picture: bytes
    """Encoded RGB frame (JPEG, or the lossless original in a test store)."""
    sound: NDArray[np.int16]
    """[samples] mono at the store's rate."""
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    """[n, 4] x0, y0, x1, y1 in fractions of the picture, in the order of the annotation."""
    mask: bytes = b""
    """PNG mask of the sounding pixels (`avloc.media.pictures.decode_mask`), stretched over the frame; b'' for none."""
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Clip(Sample):
    """A sample with its origin."""

    frame_hw: tuple[int, int]
    """Height and width of the source frame as displayed, in pixels."""
    flags: tuple[str, ...] = ()
    split: str = ""
    sound_source: str = ""
    """Absolute path of the source of the sound; '' if it was in a packed data set."""
    source_bytes: int = 0
    """Size of that file, to detect a replaced one."""
    source_rate: int = 0
    """Its sample rate in Hz."""
    window_s: float = 0.0
    """Start of the sound window in that file, in seconds."""
    time_s: float = 0.0
    """Time stamp of the frame in its video, in seconds; 0 for a picture."""


def clip_digest(clip: Clip) -> bytes:
    """SHA-256 of a clip's content, independent of its shard."""
    digest = hashlib.sha256()
    parts = [clip.id.encode(), clip.picture, clip.sound.tobytes(), clip.boxes.tobytes()]
    for part in [*parts, clip.mask] if clip.mask else parts:  # the digest of clips without mask predates masks
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


@dataclass(frozen=True, kw_only=True)
class StoreHeader:
    """Content of `store.json`."""

    spec: StoreSpec
    kind: str = "train"
    """`train`, or `test`: original frames, no clip dropped."""
    box_rule: str = "union"
    """How boxes become ground truth: `union`, or Flickr's `consensus` of annotators; `mask` for masks."""
    testset: str = ""
    """Name of the published test list, if any."""
    expected: tuple[str, ...] = ()
    """Ids in a complete test store."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Version, frame selection, annotation file and so on."""

    @staticmethod
    def read(folder: Path) -> StoreHeader:
        """Read and validate `store.json`."""
        path = folder / "store.json"
        if not path.is_file():
            hint = f"Create one: avloc prepare VIDEOS --out {folder}"
            raise StoreNotFound(f"{folder} is not a prepared store: it has no store.json", hint=hint)
        try:
            data = read_json(path)
            if data["schema"] != SCHEMA:
                raise Refused(f"{path} has schema {data['schema']}; this avloc reads {SCHEMA}")
            fields = {k: v for k, v in data.items() if k in ("kind", "box_rule", "testset", "provenance")}
            header = StoreHeader(spec=from_dict(StoreSpec, data["spec"]), expected=tuple(data["expected"]), **fields)
            if header.kind not in ("train", "test") or header.box_rule not in ("union", "consensus", "mask"):
                raise ValueError(f"kind {header.kind!r} or box rule {header.box_rule!r} is unknown")
            if not isinstance(header.testset, str) or not all(isinstance(clip_id, str) for clip_id in header.expected):
                raise ValueError("testset or an expected id is not a string")
            if not isinstance(header.provenance, dict):
                raise ValueError("provenance is not a table")
            return header
        except (ValueError, KeyError, TypeError, AttributeError, UsageError, OSError) as error:
            raise Refused(f"{path} is not a readable store header: {error!r}") from error

    def write(self, folder: Path, counts: dict[str, int]) -> None:
        """Write `store.json` with the current counts."""
        write_json(folder / "store.json", {"schema": SCHEMA, **asdict(self), "counts": counts})


class Store:
    """Reader of a prepared store.

    Raises:
        StoreNotFound: the folder has no `store.json`.
        Refused: the store is invalid.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header = StoreHeader.read(folder)
        self.spec = self.header.spec
        self.shards = ShardFolder(folder, {**_COLUMNS, "sound": Column("i2", (ROWS, self.spec.samples))})

    @property
    def ids(self) -> list[str]:
        """All clip ids, sorted."""
        return self.shards.ids

    def __len__(self) -> int:
        return len(self.shards)

    def read(self, clip_id: str) -> Clip:
        """Read one clip with its origin."""
        file, row = self.shards.locate(clip_id)
        height, width = file.numbers("frame_hw", row).tolist()
        return Clip(
            **vars(self.sample(clip_id)),
            frame_hw=(height, width),
            flags=tuple(name for name, on in zip(FLAGS, file.numbers("flags", row), strict=True) if on),
            sound_source=file.text("sound_source", row),
            split=file.text("split", row),
            **{name: file.numbers(name, row).item() for name, _ in _NUMBERS},
        )

    def sample(self, clip_id: str) -> Sample:
        """Read one clip without its origin, with a third of the reads."""
        file, row = self.shards.locate(clip_id)
        return Sample(
            id=clip_id,
            picture=file.ragged("picture", row).tobytes(),
            sound=file.numbers("sound", row),
            boxes=file.ragged("boxes", row),
            mask=file.ragged("mask", row).tobytes(),
            label=file.text("label", row),
        )

    def column(self, name: str) -> list[Any]:
        """All values of a per-clip field such as `label` or `flags` (not media), in the order of `ids`."""
        out, whole = [], {}
        for clip_id in self.ids:
            path, row = self.shards.place(clip_id)
            if path not in whole:  # whole columns: row by row takes minutes on a large store
                shard = self.shards.shard(path)
                whole[path] = shard.texts(name) if name in _TEXTS else shard.numbers(name)
            out.append(whole[path][row])
        return out

    def picture_groups(self) -> dict[str, str]:
        """Clip id -> first 16 hex digits of the SHA-256 of its encoded frame; equal for byte-identical frames."""
        groups = {}
        for clip_id in sorted(self.ids, key=self.shards.place):
            file, row = self.shards.locate(clip_id)
            groups[clip_id] = hashlib.sha256(file.ragged("picture", row).tobytes()).hexdigest()[:16]
        return groups

    def annotated(self) -> list[str]:
        """Ids of the clips with a box or mask, sorted."""
        places = {clip_id: self.shards.place(clip_id) for clip_id in self.ids}
        paths = sorted({path for path, _ in places.values()})
        annotated = {path: _has_annotation(self.shards.shard(path)) for path in paths}
        return [clip_id for clip_id, (path, row) in places.items() if annotated[path][row]]

    def data_hash(self) -> str:
        """SHA-256 over all clips, independent of the shards."""
        digest = hashlib.sha256()
        for value in self.column("digest"):
            digest.update(value.tobytes())
        return digest.hexdigest()

    def count(self) -> None:
        """Update the counts in `store.json`; call it under `lock_shared_files`."""
        self.header.write(self.folder, {"clips": len(self), **self.flag_counts()})

    def flag_counts(self) -> dict[str, int]:
        """Number of clips with each flag."""
        rows = self.column("flags")
        return {name: int(sum(bool(row[i]) for row in rows)) for i, name in enumerate(FLAGS)}


def _has_annotation(file: Shard) -> NDArray[np.bool_]:
    counts = [np.diff(offsets) for name in ("boxes", "mask") if len(offsets := file.offsets(name))]
    annotated: NDArray[np.bool_] = np.sum(counts, axis=0) > 0
    return annotated


class StoreWriter(ShardWriter[Clip]):
    """Adds clips to a store; leaving the context also updates the counts in its header. See `ShardWriter`."""

    def __init__(
        self, folder: Path, header: StoreHeader, *, shard_clips: int = 512, shard: JobShard = UNSHARDED
    ) -> None:
        super().__init__(folder, shard_clips, shard)
        self.header = header
        self._bytes = 0

    def write_header(self) -> None:
        """Write `store.json` without counts."""
        self.header.write(self.folder, {})

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        with lock_shared_files(self.folder, self.shard):
            Store(self.folder).count()  # rereads the header: another shard may have changed it

    def add(self, clip: Clip) -> None:
        """Buffer a clip; a full buffer is written as a shard."""
        if clip.sound.shape != (self.header.spec.samples,):
            raise ValueError(f"clip {clip.id}: sound {clip.sound.shape}, expected ({self.header.spec.samples},)")
        self._bytes += len(clip.picture) + len(clip.mask) + clip.sound.nbytes
        self.append(clip)
        if self._bytes >= _SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the buffered clips to a shard."""
        super().flush()
        self._bytes = 0

    def fill(self, file: Any, rows: list[Clip]) -> None:
        """Write clips to an open HDF5 file."""
        for name in _TEXTS:
            put_texts(file, name, [getattr(clip, name) for clip in rows])
        for name, kind in _NUMBERS:
            file[name] = np.array([getattr(clip, name) for clip in rows], kind)
        file["frame_hw"] = np.array([clip.frame_hw for clip in rows], "i4")
        file["flags"] = np.array([[name in clip.flags for name in FLAGS] for clip in rows], "u1")
        file["digest"] = np.stack([np.frombuffer(clip_digest(clip), np.uint8) for clip in rows])
        sounds = np.stack([clip.sound for clip in rows])
        file.create_dataset("sound", data=sounds, chunks=(1, sounds.shape[1]))
        put_ragged(file, "picture", [np.frombuffer(clip.picture, np.uint8) for clip in rows])
        put_ragged(file, "boxes", [np.asarray(clip.boxes, np.float64).reshape(-1, 4) for clip in rows])
        if any(clip.mask for clip in rows):  # shards without masks keep the format from before masks
            put_ragged(file, "mask", [np.frombuffer(clip.mask, np.uint8) for clip in rows])
