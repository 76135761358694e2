"""Turns the folder of AVE into a store: its videos, or the features that its authors released.

Files may be at any depth: `Annotations.txt`; `{train,val,test}_order.h5` and `*_order_match.h5`; videos
`<VideoID>.mp4`, or files of features (see `released_features`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from avloc.annotations.testsets import IdList, media_id
from avloc.ave.annotations import AveRow, categories, read_order, read_rows
from avloc.ave.event_table import EVENTS, FIRST_SECONDS, NOISE, EventRow, EventTable
from avloc.ave.released_features import FeatureFile, count_noise, find_features
from avloc.errors import Refused, UsageError
from avloc.media.pictures import VIDEO_SUFFIXES
from avloc.option_rules import MODES, check_applies
from avloc.prepare import PrepareOptions, PrepareReport, prepare
from avloc.prepare.sources import files_in
from avloc.progress import Listener, Notice, silent
from avloc.registry import SPECS
from avloc.sharding import lock_shard
from avloc.store import WINDOW_KEY, StoreHeader

LABELS_FILE = "labels.h5"
_ANNOTATIONS = "Annotations.txt"
_METHOD = "ave"
_FEATURES = "features"
"""Key in the provenance of a store made from released features."""


def prepare_events(
    sources: Sequence[str], out: Path, options: PrepareOptions, listener: Listener = silent
) -> PrepareReport:
    """Turn AVE's folder into a store with `events.json`, and `labels.h5` in the format of its authors.

    Args:
        sources: the folder, or several that together contain its files.
        out: the store.
        options: `workers`, `shard` and `dry_run` apply; `layout` is ave.
        listener: receives progress and notices.

    Raises:
        UsageError: `options.method` is another one; there are no annotations, or neither videos nor features; files
            contradict each other.
        NoInputLeft: every video failed.
        Refused: another process writes to `out`, or it contains another store.
    """
    _check_options(options)
    files = _named(files_in(sources, out))
    if _ANNOTATIONS not in files:
        raise UsageError(f"no {_ANNOTATIONS} in {', '.join(sources)}", hint="--layout ave takes the folder of AVE.")
    rows = read_rows(files[_ANNOTATIONS])
    released = find_features(files)
    annotated = _table_rows(rows, files, repeated=bool(released))
    table = EventTable(classes=categories(rows), rows=(*annotated, *_noise_rows(count_noise(released, listener))))
    _check_table(table, out, bool(released))
    if released:
        if any(path.suffix.lower() in VIDEO_SUFFIXES for path in files.values()):
            listener(Notice("there are released features: the videos are not used"))
        report = _take_features(released, table, out, options, listener)
    else:
        named = IdList(ids=tuple(dict.fromkeys(row.clip for row in table.rows)), name="", is_test=False)
        how = replace(options, layout="videos", method=_METHOD, window=FIRST_SECONDS)
        report = prepare(sources, out, how, listener, named)
    if not options.dry_run:
        table.write(out)
        table.write_labels(out / LABELS_FILE)
    return report


def _check_options(options: PrepareOptions) -> None:
    """Refuse options that do not apply. The library does not know which were given: those with another value count."""
    values, default = vars(options), vars(PrepareOptions(layout=options.layout))
    given = {name: f"{name} = {value!r}" for name, value in values.items() if value != default[name]}
    check_applies(given, MODES["prepare"]["layout"][options.layout].unused(values), "does not apply to --layout ave")


def _check_table(table: EventTable, out: Path, released: bool) -> None:
    """Refuse an inconsistent table, and a store with other events or from another kind of source."""
    try:
        table.check()
    except ValueError as error:
        raise UsageError(f"{_ANNOTATIONS} contradicts itself: {error}") from error
    if not (out / "store.json").is_file():
        return
    from_files = _FEATURES in StoreHeader.read(out).provenance
    if from_files != released or ((out / EVENTS).is_file() and EventTable.of(out).hash() != table.hash()):
        hint = "Prepare into another folder with --out."
        raise Refused(f"{out} contains a store of other events, or of another kind", hint=hint)


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by name; a UsageError if two files to read have the same name."""
    files: dict[str, Path] = {}
    for path in paths:
        first = files.setdefault(path.name, path)
        if first is not path and (path.name == _ANNOTATIONS or path.suffix == ".h5"):
            raise UsageError(f"{first} and {path} both exist; valid: one {path.name}")
    return files


def _orders(files: dict[str, Path], suffix: str, rows: int) -> dict[int, str]:
    """Row -> part of the published split; empty without its three files."""
    names = {part: f"{part}_order{suffix}.h5" for part in ("train", "val", "test")}
    there = {part: files[name] for part, name in names.items() if name in files}
    if not there:
        return {}
    if len(there) < len(names):
        absent = next(name for part, name in names.items() if part not in there)
        raise UsageError(f"{absent} is missing, but {next(iter(there.values())).name} exists; a split has three files")
    parts: dict[int, str] = {}
    for part, path in there.items():
        for row in read_order(path, rows):
            if parts.setdefault(row, part) != part:
                raise UsageError(f"{path} names row {row}, which is in {parts[row]} already")
    return parts


def _table_rows(rows: Sequence[AveRow], files: dict[str, Path], *, repeated: bool) -> Iterator[EventRow]:
    """Each annotation with its clip; in released features, a repeated video is another clip."""
    split, match = (_orders(files, suffix, len(rows)) for suffix in ("", "_match"))
    earlier: Counter[str] = Counter()
    for number, row in enumerate(rows):
        name = media_id(PurePath(f"{row.video}.mp4"))
        if repeated and earlier[row.video]:
            name = f"{name}+{earlier[row.video]}"
        earlier[row.video] += 1
        yield EventRow(clip=name, annotation=row, split=split.get(number, ""), match=match.get(number, ""))


def _noise_rows(count: int) -> list[EventRow]:
    """Rows of noise, without an event."""
    names = [f"noise+{number:03d}" for number in range(count)]
    rows = [AveRow(video=name, category="", quality="", start=0, end=0) for name in names]
    return [EventRow(clip=row.video, annotation=row, split=NOISE) for row in rows]


def _take_features(
    released: Sequence[FeatureFile], table: EventTable, out: Path, options: PrepareOptions, listener: Listener
) -> PrepareReport:
    started = time.monotonic()
    clips = [row.clip for row in table.rows if row.split != NOISE]
    noise = [row.clip for row in table.part(NOISE)]
    if not options.shard.is_unsharded:
        raise UsageError(f"--shard {options.shard.label} does not apply to released features")
    for one in released:
        one.check(len(clips))
    if options.dry_run:
        stored = max(len(one.absent((*clips, *noise), out)) for one in released)
    else:
        with lock_shard(out, options.shard, "prepare"):
            out.mkdir(parents=True, exist_ok=True)
            provenance = {"method": _METHOD, WINDOW_KEY: FIRST_SECONDS, _FEATURES: "released by the authors of AVE"}
            StoreHeader(spec=SPECS[_METHOD].store, provenance=provenance).write(out, {"clips": 0})
            stored = max(one.take(clips, noise, out, listener) for one in released)
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
