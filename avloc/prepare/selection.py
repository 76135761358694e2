"""What becomes of each input: a clip to make, one that is stored already, one left out; and the record of the last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from avloc.annotations import pair_only_ids
from avloc.errors import InputError, Refused
from avloc.files import json_lines, read_lines, write_bytes
from avloc.prepare.clips import Job
from avloc.prepare.overlap import Overlap
from avloc.prepare.plan import Plan, PrepareOptions
from avloc.prepare.sources import Found, Skip, Source, without_doubles
from avloc.progress import Listener, Notice

SKIPPED = "skipped.jsonl"
NAMED = 20
"""Failures named one by one on the way; all of them stand in `skipped.jsonl`."""


@dataclass(kw_only=True)
class Choice:
    """The inputs, sorted by what becomes of them."""

    found: int
    jobs: list[Job] = field(default_factory=list)
    already: int = 0
    skips: list[Skip] = field(default_factory=list)
    overlap: Overlap = field(default_factory=Overlap)
    outside: int = 0
    inputs: set[str] = field(default_factory=set)
    """Every input of this run: what earlier runs said of them is out of date."""

    def missing(self, plan: Plan, options: PrepareOptions, there: Iterable[str]) -> tuple[str, ...]:
        """Ids of this run's part that were asked for or annotated and are not `there`."""
        wanted = plan.ids.ids if plan.ids else plan.header.expected
        present = {*there, *(() if options.allow_test_overlap else self.overlap.ids)}
        return tuple(clip_id for clip_id in wanted if options.part.has(clip_id) and clip_id not in present)


def choose(found: Found, plan: Plan, options: PrepareOptions, stored: frozenset[str]) -> Choice:
    """Decide for every input what becomes of it."""
    skips = list(found.skips)
    sources = without_doubles(found.sources, skips)
    choice = Choice(found=len(sources) + len(skips), inputs={s.input for s in found.sources} | {s.input for s in skips})
    listed = frozenset(plan.ids.ids) if plan.ids else None
    choice.skips = [skip for skip in skips if listed is None or not skip.id or skip.id in listed]
    choice.outside = len(skips) - len(choice.skips)
    for source in sources:
        if listed is not None and source.id not in listed:
            choice.outside += 1
            continue
        if plan.header.kind == "train" and choice.overlap.notes(source) and not options.allow_test_overlap:
            continue
        if source.id in stored:
            choice.already += 1
        else:
            _add_job(choice, source, plan, options)
    return choice


def _add_job(choice: Choice, source: Source, plan: Plan, options: PrepareOptions) -> None:
    job = Job(source=source, spec=plan.header.spec, at=options.at, track=options.track, whole=options.whole)
    try:
        found = plan.annotations.find(source.id, *source.annotated_as) if plan.annotations else None
    except InputError as error:
        choice.skips.append(Skip(id=source.id, input=source.input, reason=str(error)))
        return
    choice.jobs.append(replace(job, annotation=found))


def announce(choice: Choice, plan: Plan, options: PrepareOptions, listener: Listener) -> None:
    """Say what a person should know before the clips are made."""
    if not (options.part.is_whole or choice.jobs or choice.already or choice.skips):
        inputs = f"{choice.found} inputs, {choice.outside} not in --ids, {len(choice.overlap)} test clips"
        listener(Notice(f"part {options.part} has nothing to store: {inputs}"))
    for text in choice.overlap.notices(kept=options.allow_test_overlap):
        listener(Notice(text))
    if plan.header.kind == "test":
        _announce_bare([job.source.id for job in choice.jobs if not _is_annotated(job)], listener)
    for skip in choice.skips[:NAMED]:
        listener(Notice(f"{skip.input} {skip.reason}"))
    if len(choice.skips) > NAMED:
        listener(Notice(f"{len(choice.skips) - NAMED} more inputs cannot be used; {SKIPPED} names them"))


def _is_annotated(job: Job) -> bool:
    return job.annotation is not None and bool(len(job.annotation.boxes) or job.annotation.mask)


def _announce_bare(ids: Sequence[str], listener: Listener) -> None:
    """Say which clips have neither boxes nor a mask. Those that only silent pairs use have none by right."""
    silent = len(pair_only_ids().intersection(ids))
    if silent:
        listener(Notice(f"clips of the silent pairs of vggss-ext, which have no boxes: {silent}"))
    if len(ids) > silent:
        listener(Notice(f"clips without annotation: {len(ids) - silent}; kept, but no score can count them"))


def write_skips(out: Path, choice: Choice, options: PrepareOptions, stored: frozenset[str]) -> None:
    """Rewrite `skipped.jsonl`: this run's failures, and earlier ones of inputs that this run did not see.

    The lines are in the order of the inputs' names, whichever run or part they come from. Call it in a turn.
    """
    path = out / SKIPPED
    earlier = [_skip(line) for line in read_lines(path)]
    kept = [skip for skip in earlier if not skip.is_in(options.part) or _still_holds(skip, choice, stored)]
    entries = [*kept, *choice.skips, *([] if options.allow_test_overlap else choice.overlap.skips())]
    entries.sort(key=lambda skip: (skip.input, skip.id, skip.reason))
    write_bytes(path, json_lines(map(asdict, entries)))


def _skip(line: dict[str, Any]) -> Skip:
    try:
        return Skip(id=str(line["id"]), input=str(line["input"]), reason=str(line["reason"]))
    except KeyError as error:
        raise Refused(f"{SKIPPED} has a line without {error}", hint="Delete it and run again.") from None


def _still_holds(skip: Skip, choice: Choice, stored: frozenset[str]) -> bool:
    return skip.input not in choice.inputs and skip.id not in stored
