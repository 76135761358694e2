"""Filling the folders of hints."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field
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
    from avloc.store import HintWriter, Store
    from avloc.teachers import Hint


def distill_cache(store: Path, options: DistillOptions, listener: Listener = silent) -> DistillReport:
    """Give every clip of a store the hints of the teachers asked for.

    What is finished when it is interrupted is kept.

    Args:
        store: a prepared store.
        options: which teachers, and how.
        listener: hears progress and notices.

    Raises:
        UsageError: an option cannot be meant.
        WeightsError: a teacher's weights are absent or wrong; nothing has been done then.
        StoreNotFound: `store` is no prepared store.
        Refused: it is being written to, and not by another shard of this, or holds hints made otherwise.
        NoInputLeft: not one clip has a hint, and that is not because a shard is empty.
    """
    from avloc.store import Store

    opened = Store(store)
    with lock_shard(store, options.shard, "distill-cache"):
        if options.import_npy is not None:
            sources = imported_sources(options.import_npy, options.teachers, listener)
        else:
            sources = teacher_sources(opened, options, listener)
        filled = tuple(_fill(opened, source, options.shard, listener) for source in sources)
    report = DistillReport(shard=options.shard.label, teachers=filled)
    _check_any(report, listener)
    return report


def _check_any(report: DistillReport, listener: Listener) -> None:
    if any(teacher.done + teacher.already for teacher in report.teachers):
        return
    reasons = [reason for teacher in report.teachers for reason in teacher.failed.values()]
    if report.shard and not reasons:  # a shard may be empty by chance
        listener(Notice(f"shard {report.shard} has no clips for which there can be hints"))
        return
    first = f"; the first reason: {reasons[0]}" if reasons else ""
    asked = f"shard {report.shard}" if report.shard else "the store"
    raise NoInputLeft(f"not one clip of {asked} has a hint{first}")


@dataclass
class _Tally:
    """What came of the clips asked about so far."""

    tried: set[str] = field(default_factory=set)
    done: int = 0
    no_hint: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def take(self, clip_id: str, answer: Hint | InputError, writer: HintWriter) -> None:
        self.tried.add(clip_id)
        if isinstance(answer, InputError):
            self.failed[clip_id] = str(answer)
            return
        writer.add(clip_id, answer)
        self.done += 1
        self.no_hint += answer is None


def _fill(store: Store, source: HintSource, shard: JobShard, listener: Listener) -> TeacherReport:
    from avloc.store import HintWriter, hint_folder
    from avloc.store.shards import ShardFolder

    teacher = source.stamp.teacher
    folder = hint_folder(store.folder, teacher)
    tally = _Tally()
    with ExitStack() as stack:
        with lock_shared_files(store.folder, shard):
            writer = stack.enter_context(HintWriter(store.folder, source.stamp, shard=shard))
            remove_partial_files(folder, shard)
        known = ShardFolder(folder)
        asked = [clip_id for clip_id in store.ids if shard.contains(clip_id)]
        absent = [clip_id for clip_id in asked if clip_id not in known]
        wanted = [clip_id for clip_id in absent if source.has(clip_id)]
        try:
            with closing(source.answers(wanted)) as answers:
                for clip_id, answer in answers:
                    tally.take(clip_id, answer, writer)
                    listener(Progress(task=f"hints of {teacher}", done=len(tally.tried), total=len(wanted)))
        finally:
            with lock_shared_files(store.folder, shard):
                _keep_failures(folder, tally)
    return TeacherReport(
        teacher=teacher,
        folder=str(folder),
        done=tally.done,
        already=len(asked) - len(absent),
        missing=len(absent) - len(wanted),
        no_hint=tally.no_hint,
        failed=tally.failed,
    )


def _keep_failures(folder: Path, tally: _Tally) -> None:
    """Bring `failed.jsonl` up to date, in order of ids: what was tried again leaves it, unless it failed again."""
    path = folder / FAILED
    older = {str(entry.get("id")): str(entry.get("reason")) for entry in read_json_lines(path)}
    now = {clip_id: reason for clip_id, reason in older.items() if clip_id not in tally.tried} | tally.failed
    if now:
        write_bytes(path, json_lines({"id": clip_id, "reason": now[clip_id]} for clip_id in sorted(now)))
    else:
        path.unlink(missing_ok=True)
