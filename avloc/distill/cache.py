"""Run the teachers, or import arrays, and write the hints."""

from __future__ import annotations

from collections.abc import Container
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from avloc.distill.imported import imported_sources
from avloc.distill.plan import DistillOptions, DistillReport, TeacherReport
from avloc.distill.sources import HintSource, teacher_sources
from avloc.errors import InputError, NoInputLeft
from avloc.files import json_lines, read_json_lines, write_bytes
from avloc.progress import Listener, Notice, Progress, silent
from avloc.sharding import JobShard, lock_shard, lock_shared_files, remove_partial_files
from avloc.store.hints import FAILED

if TYPE_CHECKING:
    from avloc.store import Store


def distill_cache(store: Path, options: DistillOptions, listener: Listener = silent) -> DistillReport:
    """Compute the missing hints of all clips in a store. Finished hints are kept after an interrupt.

    Raises:
        UsageError: an invalid option.
        WeightsError: a teacher's weights are absent or invalid; nothing was computed.
        StoreNotFound: `store` is not a prepared store.
        Refused: the store is locked by another job, or has hints with other settings.
        NoInputLeft: no clip has a hint, although the shard has clips.
    """
    from avloc.store import Store

    opened = Store(store)
    with lock_shard(store, options.shard, "distill-cache"):
        if options.import_npy is not None:
            sources = imported_sources(options.import_npy, options.teachers, listener)
        else:
            sources = teacher_sources(opened, options, listener)
        reports = tuple(_add_hints(opened, source, options.shard, listener) for source in sources)
    report = DistillReport(shard=options.shard.label, teachers=reports)
    if not any(teacher.done + teacher.already for teacher in reports):
        reasons = [reason for teacher in reports for reason in teacher.failed.values()]
        if not report.shard or reasons:
            first = f"; the first error: {reasons[0]}" if reasons else ""
            where = f"shard {report.shard}" if report.shard else "the store"
            raise NoInputLeft(f"no clip of {where} has a hint{first}")
        listener(Notice(f"shard {report.shard} has no clips with available hints"))  # may be empty by chance
    return report


def _add_hints(store: Store, source: HintSource, shard: JobShard, listener: Listener) -> TeacherReport:
    from avloc.store import HintWriter, hint_folder
    from avloc.store.shards import ShardFolder

    teacher = source.stamp.teacher
    folder = hint_folder(store.folder, teacher)
    tried: dict[str, bool] = {}  # clip id -> False for "no hint"
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        with lock_shared_files(store.folder, shard):
            writer = stack.enter_context(HintWriter(store.folder, source.stamp, shard=shard))
            remove_partial_files(folder, shard)
        known = ShardFolder(folder)
        ids = [clip_id for clip_id in store.ids if shard.contains(clip_id)]
        absent = [clip_id for clip_id in ids if clip_id not in known]
        todo = [clip_id for clip_id in absent if source.has(clip_id)]
        try:
            with closing(source.hints(todo)) as hints:
                for clip_id, hint in hints:
                    tried[clip_id] = hint is not None
                    if isinstance(hint, InputError):
                        failed[clip_id] = str(hint)
                    else:
                        writer.add(clip_id, hint)
                    listener(Progress(task=f"hints of {teacher}", done=len(tried), total=len(todo)))
        finally:
            with lock_shared_files(store.folder, shard):
                _update_failures(folder, tried, failed)
    return TeacherReport(
        teacher=teacher,
        folder=str(folder),
        done=len(tried) - len(failed),
        already=len(ids) - len(absent),
        missing=len(absent) - len(todo),
        no_hint=list(tried.values()).count(False),
        failed=failed,
    )


def _update_failures(folder: Path, tried: Container[str], failed: dict[str, str]) -> None:
    """Update `failed.jsonl`, sorted by id: remove the clips that were retried, add those that failed."""
    path = folder / FAILED
    older = {str(entry.get("id")): str(entry.get("reason")) for entry in read_json_lines(path)}
    now = {clip_id: reason for clip_id, reason in older.items() if clip_id not in tried} | failed
    if now:
        write_bytes(path, json_lines({"id": clip_id, "reason": now[clip_id]} for clip_id in sorted(now)))
    else:
        path.unlink(missing_ok=True)
