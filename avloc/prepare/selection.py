"""Select inputs: clips to make, already stored, skipped or left out as test clips; and write `skipped.jsonl`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avloc.annotations.testsets import pair_only_ids, test_ids
from avloc.errors import InputError, Refused
from avloc.files import json_lines, read_json_lines, write_bytes
from avloc.prepare.clips import Job
from avloc.prepare.plan import PrepareOptions, StorePlan
from avloc.prepare.sources import FoundInputs, Skip, Source, without_duplicates
from avloc.progress import Listener, Notice

SKIPPED = "skipped.jsonl"
MAX_LISTED = 20
"""Failures listed in the output; `skipped.jsonl` has all of them."""

_LISTED = "VGG-SS or Flickr-SoundNet"
_PAIRED = "SLAVC's extended VGG-SS"


@dataclass(kw_only=True)
class Overlap:
    """Test clips among the inputs of a training store, by test set: published counts are of the listed ones only."""

    listed: list[Source] = field(default_factory=list)
    """Test clips of VGG-SS or Flickr-SoundNet."""
    paired: list[Source] = field(default_factory=list)
    """Clips that only the silent pairs of `vggss-ext` use."""

    def __len__(self) -> int:
        return len(self.listed) + len(self.paired)

    def add(self, source: Source) -> bool:
        """Add `source` if it is a test clip or shares the picture of one; return whether it is."""
        ids = {source.id, source.frame_id} & test_ids()
        if ids:
            (self.paired if ids <= pair_only_ids() else self.listed).append(source)
        return bool(ids)

    def groups(self) -> list[tuple[list[Source], str]]:
        """Clips and test set of each group that is not empty."""
        return [(sources, name) for sources, name in ((self.listed, _LISTED), (self.paired, _PAIRED)) if sources]


@dataclass(kw_only=True)
class Selection:
    """The inputs, grouped by their use."""

    found: int
    jobs: list[Job] = field(default_factory=list)
    already: int = 0
    skips: list[Skip] = field(default_factory=list)
    overlap: Overlap = field(default_factory=Overlap)
    outside: int = 0
    inputs: set[str] = field(default_factory=set)
    """All inputs of this run; entries of earlier runs about them are obsolete."""

    def missing(self, plan: StorePlan, options: PrepareOptions, in_store: Iterable[str]) -> tuple[str, ...]:
        """Ids of this shard that were requested or annotated and are not in `in_store`."""
        wanted = plan.ids.ids if plan.ids else plan.header.expected
        present = set(in_store)
        if not options.allow_test_overlap:
            present.update(source.id for source in (*self.overlap.listed, *self.overlap.paired))
        return tuple(clip_id for clip_id in wanted if options.shard.contains(clip_id) and clip_id not in present)


def select_inputs(found: FoundInputs, plan: StorePlan, options: PrepareOptions, stored: frozenset[str]) -> Selection:
    """Group the inputs."""
    skips = list(found.skips)
    sources = without_duplicates(found.sources, skips)
    selection = Selection(
        found=len(sources) + len(skips), inputs={s.input for s in found.sources} | {s.input for s in skips}
    )
    listed = frozenset(plan.ids.ids) if plan.ids else None
    selection.skips = [skip for skip in skips if listed is None or not skip.id or skip.id in listed]
    selection.outside = len(skips) - len(selection.skips)
    for source in sources:
        if listed is not None and source.id not in listed:
            selection.outside += 1
            continue
        if plan.header.kind == "train" and selection.overlap.add(source) and not options.allow_test_overlap:
            continue
        if source.id in stored:
            selection.already += 1
        else:
            _add_job(selection, source, plan, options)
    return selection


def _add_job(selection: Selection, source: Source, plan: StorePlan, options: PrepareOptions) -> None:
    try:
        found = plan.annotations.find(source.id, *source.annotated_as) if plan.annotations else None
    except InputError as error:
        selection.skips.append(Skip(id=source.id, input=source.input, reason=str(error)))
        return
    spec, at, track, window = plan.header.spec, options.at, options.track, options.window
    selection.jobs.append(Job(source=source, spec=spec, at=at, track=track, window=window, annotation=found))


def emit_notices(selection: Selection, plan: StorePlan, options: PrepareOptions, listener: Listener) -> None:
    """Emit notices about the selection, before the clips are made."""
    if not (options.shard.is_unsharded or selection.jobs or selection.already or selection.skips):
        inputs = f"{selection.found} inputs, {selection.outside} not in --ids, {len(selection.overlap)} test clips"
        listener(Notice(f"shard {options.shard} has nothing to store: {inputs}"))
    verdict = "kept, as requested" if options.allow_test_overlap else "left out; --allow-test-overlap keeps them"
    for sources, name in selection.overlap.groups():
        listener(Notice(f"test clips of {name} among the inputs: {len(sources)}, {verdict}"))
    if plan.header.kind == "test":
        _notice_unannotated(selection.jobs, listener)
    for skip in selection.skips[:MAX_LISTED]:
        listener(Notice(f"{skip.input} {skip.reason}"))
    if len(selection.skips) > MAX_LISTED:
        listener(Notice(f"{len(selection.skips) - MAX_LISTED} more inputs cannot be used; {SKIPPED} names them"))


def _notice_unannotated(jobs: Sequence[Job], listener: Listener) -> None:
    """Count clips without boxes and mask; clips that only silent pairs use never have any."""
    annotated = {job.source.id for job in jobs if job.annotation and (len(job.annotation.boxes) or job.annotation.mask)}
    ids = {job.source.id for job in jobs} - annotated
    silent = len(pair_only_ids().intersection(ids))
    if silent:
        listener(Notice(f"clips of the silent pairs of vggss-ext, which have no boxes: {silent}"))
    if len(ids) > silent:
        listener(Notice(f"clips without annotation: {len(ids) - silent}; kept, but cannot be scored"))


def write_skips(out: Path, selection: Selection, options: PrepareOptions, stored: frozenset[str]) -> None:
    """Rewrite `skipped.jsonl`: failures of this run, and earlier ones of other inputs, sorted by input.

    Call it under `lock_shared_files`.
    """
    path = out / SKIPPED
    earlier = [_skip(line) for line in read_json_lines(path)]
    obsolete = [skip.input in selection.inputs or skip.id in stored for skip in earlier]
    kept = [skip for skip, old in zip(earlier, obsolete, strict=True) if not (old and skip.in_shard(options.shard))]
    tests = [
        Skip(id=source.id, input=source.input, reason=f"is a test clip of {name}; --allow-test-overlap keeps it")
        for sources, name in selection.overlap.groups()
        for source in sources
    ]
    entries = [*kept, *selection.skips, *([] if options.allow_test_overlap else tests)]
    entries.sort(key=lambda skip: (skip.input, skip.id, skip.reason))
    write_bytes(path, json_lines(map(asdict, entries)))


def _skip(line: dict[str, Any]) -> Skip:
    try:
        return Skip(id=str(line["id"]), input=str(line["input"]), reason=str(line["reason"]))
    except KeyError as error:
        raise Refused(f"{SKIPPED} has a line without {error}", hint="Delete it and run again.") from None
