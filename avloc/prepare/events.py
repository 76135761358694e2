"""AVE's folder into a store: its videos, or the features that its authors released.

Wherever they lie below the folder: `Annotations.txt`; `{train,val,test}_order.h5` and `*_order_match.h5`; videos
`<VideoID>.mp4`, or `visual_feature.h5` (or `visual_feature_vec.h5`) with `audio_feature.h5`, and the same with
`_noisy` before the dot. Feature files are several GB of float64: they are read row by row and kept as float16.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.annotations import IdList, media_id
from avloc.annotations.ave import LABELS_KEY, AveRow, class_names, read_order, read_rows, write_labels
from avloc.errors import InputError, Refused, UsageError
from avloc.events import Listener, Notice, Progress, silent
from avloc.files import check_ordinary, sha256_of
from avloc.media import VIDEO_SUFFIXES
from avloc.parts import claim
from avloc.prepare.plan import PrepareOptions
from avloc.prepare.run import PrepareReport, prepare
from avloc.prepare.sources import EVENT_LAYOUT, files_in
from avloc.published import StoreSpec
from avloc.store import HintStamp, HintWriter, StoreHeader
from avloc.store.events import EVENTS, HEARD, NOISE, POOLED, SEEN, EventRow, EventTable
from avloc.store.hints import hint_folder
from avloc.store.shards import ShardFolder, own_data_set

LABELS = "labels.h5"
_ANNOTATIONS = "Annotations.txt"
_METHOD = "ave"
_HEARD = ("audio_feature.h5", HEARD, (10, 128))
_SEEN = (
    ("visual_feature.h5", SEEN, (10, 7, 7, 512)),
    ("visual_feature_vec.h5", POOLED, (10, 512)),
)
_FEATURES = "features"
"""In the provenance of a store that has them from files."""
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class _Released:
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


def prepare_events(
    sources: Sequence[str], out: Path, options: PrepareOptions, listener: Listener = silent
) -> PrepareReport:
    """Turn AVE's folder into a store with `events.json`, and `labels.h5` in the format of its authors.

    Args:
        sources: the folder; its files may also lie in several.
        out: the store.
        options: how many processes, which part; `layout` is ave.
        listener: hears progress and notices.

    Raises:
        UsageError: there are no annotations, or neither videos nor features; files that contradict each other.
        NoInputLeft: every video failed.
        Refused: another process writes to `out`, or it holds a store made otherwise.
    """
    _check_options(options)
    files = _named(files_in(sources, out))
    rows = _rows(files, sources)
    orders = {name: _orders(files, suffix, len(rows)) for name, suffix in (("split", ""), ("match", "_match"))}
    released = _released(files)
    noise = _noise_rows(released, listener)
    table = EventTable(
        classes=class_names(rows),
        rows=(*_table_rows(rows, orders, repeated=bool(released)), *noise),
    )
    _check_table(table, out, bool(released))
    if released:
        if any(path.suffix.lower() in VIDEO_SUFFIXES for path in files.values()):
            listener(Notice("released features are there: the videos are not looked at"))
        report = _take_features(released, table, out, options, listener)
    else:
        named = IdList(ids=tuple(dict.fromkeys(row.clip for row in table.rows)), name="", is_test=False)
        how = replace(options, layout="videos", method=_METHOD, whole=True)
        report = prepare(sources, out, how, listener, named)
    if not options.dry_run:
        table.write(out)
        write_labels(out / LABELS, rows)
    return report


def _check_options(options: PrepareOptions) -> None:
    plain = PrepareOptions(layout=EVENT_LAYOUT)
    flags = {"method": "--for", "allow_test_overlap": "--allow-test-overlap"}
    for name in ("annotations", "ids", "method", "rate", "side", "frame", "kind", "allow_test_overlap"):
        if getattr(options, name) != getattr(plain, name) and (name, options.method) != ("method", _METHOD):
            raise UsageError(f"{flags.get(name, f'--{name}')} does not go with --layout ave; valid: without it")


def _check_table(table: EventTable, out: Path, released: bool) -> None:
    """The table makes sense, and a store that is there is one of the same events, from the same kind of source.

    Raises:
        UsageError: it does not.
        Refused: there is another store.
    """
    try:
        table.check()
    except ValueError as error:
        raise UsageError(f"{_ANNOTATIONS} contradicts itself: {error}") from error
    if not (out / "store.json").is_file():
        return
    from_files = _FEATURES in StoreHeader.read(out).provenance
    if from_files != released or ((out / EVENTS).is_file() and EventTable.of(out).hash() != table.hash()):
        hint = "Prepare into another folder with --out."
        raise Refused(f"{out} holds a store of other events, or of another kind", hint=hint)


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by their names.

    Raises:
        UsageError: one of those that are read is there twice.
    """
    files: dict[str, Path] = {}
    for path in paths:
        first = files.setdefault(path.name, path)
        if first is not path and (path.name == _ANNOTATIONS or path.suffix == ".h5"):
            raise UsageError(f"{first} and {path} are both there; valid: one {path.name}")
    return files


def _rows(files: dict[str, Path], sources: Sequence[str]) -> tuple[AveRow, ...]:
    if _ANNOTATIONS not in files:
        raise UsageError(f"no {_ANNOTATIONS} in {', '.join(sources)}", hint="--layout ave takes the folder of AVE.")
    return read_rows(files[_ANNOTATIONS])


def _orders(files: dict[str, Path], suffix: str, rows: int) -> dict[int, str]:
    """Row -> part of the published split; nothing where its files are not there.

    Raises:
        UsageError: only some are there, or a row is in two parts.
    """
    names = {part: f"{part}_order{suffix}.h5" for part in ("train", "val", "test")}
    there = {part: files[name] for part, name in names.items() if name in files}
    if not there:
        return {}
    if len(there) < len(names):
        absent = next(name for part, name in names.items() if part not in there)
        raise UsageError(f"{absent} is not there, but {next(iter(there.values())).name} is; a split has three files")
    parts: dict[int, str] = {}
    for part, path in there.items():
        for row in read_order(path, rows):
            if parts.setdefault(row, part) != part:
                raise UsageError(f"{path} names row {row}, which is in {parts[row]} already")
    return parts


def _table_rows(rows: Sequence[AveRow], orders: dict[str, dict[int, str]], *, repeated: bool) -> Iterator[EventRow]:
    """Each annotation with its clip. Released features have a row of their own for a video that is there again."""
    seen: Counter[str] = Counter()
    for number, row in enumerate(rows):
        again = seen[row.video]
        seen[row.video] += 1
        name = media_id(PurePath(f"{row.video}.mp4"))
        clip = f"{name}+{again}" if again and repeated else name
        yield EventRow(
            clip=clip, said=row, split=orders["split"].get(number, ""), match=orders["match"].get(number, "")
        )


def _released(files: dict[str, Path]) -> list[_Released]:
    """The feature files that are there; none where there are none.

    Raises:
        UsageError: only half of them.
    """

    def found(name: str, teacher: str, shape: tuple[int, ...]) -> list[_Released]:
        noise = files.get(name.replace(".h5", "_noisy.h5"))
        return [_Released(files[name], teacher, shape, noise)] if name in files else []

    heard, seen = found(*_HEARD), [one for kind in _SEEN for one in found(*kind)]
    if bool(heard) != bool(seen):
        absent = _HEARD[0] if seen else _SEEN[0][0]
        raise UsageError(f"{(heard or seen)[0].path} is there without {absent}; both are needed")
    return [*heard, *seen]


def _noise_rows(released: Sequence[_Released], listener: Listener) -> list[EventRow]:
    """Rows of background alone, where sounds and cells of pictures both have a partner with them."""
    needed = [one for one in released if one.teacher != POOLED]
    absent = [one.path.name for one in needed if one.noise is None]
    if len(needed) < 2 or absent:
        if released and len(absent) < len(needed):
            listener(Notice(f"the files of noise are not used: {', '.join(absent) or _SEEN[0][0]} has none"))
        return []
    counts = {_count(one.noise, one.shape) for one in needed if one.noise}
    if len(counts) > 1:
        raise UsageError(f"the files of noise differ in length: {', '.join(map(str, sorted(counts)))} rows")
    names = [f"noise+{number:03d}" for number in range(counts.pop())]
    blank = {"category": "", "quality": "", "start": 0, "end": 0}
    return [EventRow(clip=name, said=AveRow(video=name, **blank), split=NOISE) for name in names]  # type: ignore[arg-type]


def _opened(path: Path, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """File and data set of [rows, *shape]; the file has to be closed.

    Raises:
        UsageError: it is none.
    """
    import h5py

    try:
        check_ordinary(path)
        file = h5py.File(path, "r", locking=False)
        values = own_data_set(file, LABELS_KEY)
    except (InputError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise UsageError(f"{path} cannot be read as features of AVE: {error}") from error
    if values.shape[1:] != shape or values.dtype.kind != "f":
        raise UsageError(
            f"{path} holds {values.dtype} {values.shape}, not floats of [rows, {', '.join(map(str, shape))}]"
        )
    return file, values


def _count(path: Path, shape: tuple[int, ...]) -> int:
    file, values = _opened(path, shape)
    with file:
        return len(values)


def _take_features(
    released: Sequence[_Released], table: EventTable, out: Path, options: PrepareOptions, listener: Listener
) -> PrepareReport:
    started = time.monotonic()
    clips = [row.clip for row in table.rows if row.split != NOISE]
    noise = [row.clip for row in table.rows if row.split == NOISE]
    if not options.part.is_whole:
        raise UsageError(f"--shard {options.part.label} does not go with released features; valid: without it")
    for one in released:
        if (count := _count(one.path, one.shape)) != len(clips):
            raise UsageError(f"{one.path} has {count} rows, but there are {len(clips)} annotations")
    if options.dry_run:
        stored = max(len(_absent(one, (*clips, *noise), out)) for one in released)
    else:
        with claim(out, options.part, "prepare"):
            _write_header(out)
            stored = max(_take(one, clips, noise, out, listener) for one in released)
    return PrepareReport(
        found=len(table.rows),
        stored=stored,
        already=len(table.rows) - stored,
        failed=0,
        outside=0,
        bytes=sum(path.stat().st_size for path in out.glob("hints-*/shard-*.h5")),
        seconds=time.monotonic() - started,
        dry_run=options.dry_run,
    )


def _absent(one: _Released, names: Sequence[str], out: Path) -> list[str]:
    known = ShardFolder(hint_folder(out, one.teacher))
    return [name for name in names if name not in known]


def _write_header(out: Path) -> None:
    """A store without clips: whoever opens it finds out what it is."""
    out.mkdir(parents=True, exist_ok=True)
    provenance = {"method": _METHOD, _FEATURES: "released by the authors of AVE"}
    StoreHeader(spec=StoreSpec(seconds=10.0, rate=16_000), provenance=provenance).write(out, {"clips": 0})


def _take(one: _Released, clips: Sequence[str], noise: Sequence[str], out: Path, listener: Listener) -> int:
    """Keep the rows that are not kept yet; returns how many."""
    listener(Notice(f"reading {one.path.name} once for its SHA-256"))
    paths = [one.path, *([one.noise] if one.noise and noise else [])]
    settings = {"imported": sha256_of(*paths), "files": len(paths)}
    stamp = HintStamp(teacher=one.teacher, shape=one.hint_shape, settings=settings)
    taken = 0
    with HintWriter(out, stamp, shard_clips=64) as writer:
        wanted = frozenset(_absent(one, (*clips, *noise), out))
        for path, names in zip(paths, (clips, noise), strict=False):
            with closing(_values(path, one.shape, names, wanted)) as values:
                for name, value in values:
                    writer.add(name, value.reshape(one.hint_shape))
                    taken += 1
                    listener(Progress(task=path.name, done=taken, total=len(clips) + len(noise), detail=name))
    return taken


def _values(path: Path, shape: tuple[int, ...], names: Sequence[str], wanted: frozenset[str]) -> Any:
    """The rows of the clips that are wanted.

    Raises:
        UsageError: a row cannot be read, or holds what float16 cannot.
    """
    with ExitStack() as stack:
        file, rows = _opened(path, shape)
        stack.enter_context(file)
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
