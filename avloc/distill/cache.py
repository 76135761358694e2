"""Filling the folders of hints."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from avloc.distill.imported import imported_sources
from avloc.distill.plan import DistillOptions, DistillReport, TeacherReport
from avloc.distill.sources import HintSource, teacher_sources
from avloc.errors import InputError, NoInputLeft
from avloc.events import Listener, Progress, silent
from avloc.files import folder_lock, remove_leftovers, write_bytes
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
        Refused: it is being written to, or holds hints made otherwise.
        NoInputLeft: not one clip has a hint.
    """
    from avloc.store import Store

    opened = Store(store)
    with folder_lock(store):
        if options.import_npy is not None:
            sources = imported_sources(options.import_npy, options.teachers, listener)
        else:
            sources = teacher_sources(opened, options, listener)
        report = DistillReport(teachers=tuple(_fill(opened, source, listener) for source in sources))
    _check_any(report)
    return report


def _check_any(report: DistillReport) -> None:
    if any(teacher.done + teacher.already for teacher in report.teachers):
        return
    reasons = [reason for teacher in report.teachers for reason in teacher.failed.values()]
    first = f"; the first reason: {reasons[0]}" if reasons else ""
    raise NoInputLeft(f"not one clip of the store has a hint{first}")


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


def _fill(store: Store, source: HintSource, listener: Listener) -> TeacherReport:
    from avloc.store import HintWriter, hint_folder
    from avloc.store.shards import ShardFolder

    teacher = source.stamp.teacher
    folder = hint_folder(store.folder, teacher)
    tally = _Tally()
    with HintWriter(store.folder, source.stamp) as writer:
        remove_leftovers(folder)
        known = ShardFolder(folder)
        absent = [clip_id for clip_id in store.ids if clip_id not in known]
        wanted = [clip_id for clip_id in absent if source.has(clip_id)]
        try:
            with closing(source.answers(wanted)) as answers:
                for clip_id, answer in answers:
                    tally.take(clip_id, answer, writer)
                    listener(Progress(task=f"hints of {teacher}", done=len(tally.tried), total=len(wanted)))
        finally:
            _keep_failures(folder, tally)
    return TeacherReport(
        teacher=teacher,
        folder=str(folder),
        done=tally.done,
        already=len(store) - len(absent),
        missing=len(absent) - len(wanted),
        no_hint=tally.no_hint,
        failed=tally.failed,
    )


def _keep_failures(folder: Path, tally: _Tally) -> None:
    """Bring `failed.jsonl` up to date: what was tried again leaves it, unless it failed again."""
    path = folder / FAILED
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    older = {entry["id"]: entry["reason"] for entry in map(json.loads, lines)}
    now = {clip_id: reason for clip_id, reason in older.items() if clip_id not in tally.tried} | tally.failed
    if now:
        rows = [json.dumps({"id": clip_id, "reason": now[clip_id]}, ensure_ascii=False) for clip_id in sorted(now)]
        write_bytes(path, ("\n".join(rows) + "\n").encode())
    else:
        path.unlink(missing_ok=True)
