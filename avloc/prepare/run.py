"""`prepare` itself: find, choose, make, store, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from avloc.annotations import IdList
from avloc.errors import NoInputLeft, Refused, UsageError
from avloc.prepare import packed
from avloc.prepare.clips import make_clip
from avloc.prepare.discovery import find
from avloc.prepare.plan import Plan, PrepareOptions, fitting_header, make_plan
from avloc.prepare.selection import NAMED, SKIPPED, Choice, announce, choose, write_skips
from avloc.prepare.sources import Found, Skip, Source
from avloc.prepare.workers import results, worker_count
from avloc.progress import Listener, Notice, Progress, silent
from avloc.registry import MODES, resolve
from avloc.sharding import Part, claim, clear, turn
from avloc.store import Store, StoreWriter
from avloc.store.shards import shard_paths

_SAMPLE = 4
"""Clips that a dry run makes to estimate sizes."""


@dataclass(frozen=True, kw_only=True)
class PrepareReport:
    """What was done, or in a dry run would be.

    A part counts what belongs to it; only `flags` and `bytes` are of the whole store as it is by then.
    """

    shard: str | None = None
    """Which part this is the report of, as `2/4`; None for the whole."""
    found: int
    """Inputs found, usable or not."""
    stored: int
    """Clips stored by this run."""
    already: int
    """Clips that were there before."""
    failed: int
    """Inputs that cannot be used; named in `skipped.jsonl`."""
    outside: int
    """Inputs that `--ids` does not name."""
    flags: dict[str, int] = field(default_factory=dict)
    """How many clips of the store carry each flag."""
    overlap: tuple[str, ...] = ()
    """Test clips of VGG-SS or Flickr-SoundNet among the inputs of a training store."""
    overlap_paired: tuple[str, ...] = ()
    """Further ones, which only the silent pairs of SLAVC's extended VGG-SS use."""
    overlap_kept: bool = False
    """They were kept, as `--allow-test-overlap` asks; else left out."""
    missing: tuple[str, ...] = ()
    """Ids that were asked for or annotated and are not in the store."""
    bytes: int = 0
    """Size of the shards; an estimate in a dry run."""
    seconds: float = 0.0
    """Time taken."""
    dry_run: bool = False

    @property
    def exit_code(self) -> int:
        """0, or 1 if some inputs failed."""
        return 1 if self.failed else 0


def prepare(
    sources: Sequence[str],
    out: Path,
    options: PrepareOptions,
    listener: Listener = silent,
    named: IdList | None = None,
) -> PrepareReport:
    """Turn videos, frame + sound folders or packed sets into a store; finish one that was begun.

    Args:
        sources: files, folders and globs.
        out: the store.
        options: what to prepare.
        listener: hears progress, and a notice for each thing a person should know.
        named: only these clips, where `options.ids` says nothing.

    Raises:
        UsageError: a source does not exist, nothing is found or named by `--ids`, or an option cannot be meant.
        NoInputLeft: every input failed, or all of the whole's were left out.
        Refused: another process writes to `out` and is no other part of this, or it holds a store made otherwise.
        OSError: the disk is full or not writable.
    """
    if options.layout in MODES["prepare"]:
        report: PrepareReport = resolve(MODES["prepare"][options.layout].run)(sources, out, options, listener)
        return report
    started = time.monotonic()
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; valid: a folder, new or a store begun earlier")
    plan = make_plan(options, named)
    masks = options.annotations if plan.header.box_rule == "mask" else None
    found = find(sources, out, layout=options.layout, masks=masks, listener=listener).of(options.part)
    fitting_header(out, plan.header, options.part)
    if options.dry_run:
        return replace(_rehearse(found, out, plan, options, listener), seconds=time.monotonic() - started)
    with claim(out, options.part, "prepare"):
        with turn(out, options.part):
            clear(out, options.part)
        choice = choose(found, plan, options, _stored_ids(out))
        announce(choice, plan, options, listener)
        stored = _make(choice, out, plan, options, listener)
        if not stored and _stored_ids(out):  # a run that was killed at its very end may have left them behind
            with turn(out, options.part):
                Store(out).count()
        there = _stored_ids(out)
        report = replace(
            _report(choice, plan, options, stored=stored, there=there),
            flags=Store(out).flag_counts() if there else {},
            bytes=_size(out),
        )
    _check_any(choice, report, out, options)
    return replace(report, seconds=time.monotonic() - started)


def _check_any(choice: Choice, report: PrepareReport, out: Path, options: PrepareOptions) -> None:
    """Refuse to have done nothing; but that no clip is left for one of several parts is chance."""
    if choice.skips and not report.stored + report.already:
        first = choice.skips[0]
        raise NoInputLeft(
            f"every input failed ({len(choice.skips)}); the first: {first.input} {first.reason}",
            hint=f"{out / SKIPPED} gives the reason for each.",
        )
    if options.part.is_whole and not _stored_ids(out):
        _explain_nothing(choice, options)


def _explain_nothing(choice: Choice, options: PrepareOptions) -> NoReturn:
    """No input failed, and still there is no store."""
    outside = f"{choice.outside} not in --ids {options.ids}"
    if not choice.overlap:
        raise UsageError(f"no clip to store: inputs {outside}", hint="Ids are file names without their ending.")
    left_out = choice.overlap.left_out()
    reason = f"{left_out}, {outside}" if choice.outside else left_out
    raise NoInputLeft(f"no clip to store: {reason}", hint="--allow-test-overlap keeps test clips.")


def _stored_ids(out: Path) -> frozenset[str]:
    if (out / "store.json").is_file():
        return frozenset(Store(out).ids)
    if shard_paths(out):
        hint = "Put it back, or delete the folder and prepare it anew."
        raise Refused(f"{out} holds shards but no store.json, which says what they are", hint=hint)
    return frozenset()


def _size(out: Path) -> int:
    return sum(path.stat().st_size for path in out.glob("shard-*.h5"))


def _make(choice: Choice, out: Path, plan: Plan, options: PrepareOptions, listener: Listener) -> int:
    """Make and store the clips; returns how many. What is finished is kept on any interruption."""
    stored, named, remarked, total = 0, len(choice.skips), 0, len(choice.jobs)
    try:
        with ExitStack() as stack:
            made = stack.enter_context(closing(results(choice.jobs, worker_count(options.workers))))
            writer: StoreWriter | None = None
            for done, result in enumerate(made, 1):
                if isinstance(result, Skip):
                    choice.skips.append(result)
                    named += 1
                    if named <= NAMED:
                        listener(Notice(f"{result.input} {result.reason}"))
                else:
                    writer = writer or stack.enter_context(_writer(choice, out, plan, options.part))
                    writer.add(result.clip)
                    stored += 1
                    for remark in result.remarks[: NAMED - remarked]:
                        listener(Notice(f"{choice.jobs[done - 1].source.input} {remark}"))
                    remarked += len(result.remarks)
                listener(Progress(task="prepare", done=done, total=total, detail=choice.jobs[done - 1].source.id))
        if remarked > NAMED:
            listener(Notice(f"{remarked - NAMED} more remarks like these"))
    finally:
        with turn(out, options.part):
            write_skips(out, choice, options, _stored_ids(out))
    return stored


@contextmanager
def _writer(choice: Choice, out: Path, plan: Plan, part: Part) -> Iterator[StoreWriter]:
    """Begin to write: only now is there a first clip, and another part may have begun a store made otherwise."""
    with ExitStack() as stack:
        with turn(out, part):
            header = fitting_header(out, plan.header, part)
            if any(job.source.kind == "packed" for job in choice.jobs) and "sound" not in header.provenance:
                header = replace(header, provenance={**header.provenance, "sound": packed.PACKED_NOTE})
            writer = stack.enter_context(StoreWriter(out, header, part=part))
        yield writer


def _report(
    choice: Choice, plan: Plan, options: PrepareOptions, *, stored: int, there: frozenset[str]
) -> PrepareReport:
    return PrepareReport(
        shard=options.part.label,
        found=choice.found,
        stored=stored,
        already=choice.already,
        failed=len(choice.skips),
        outside=choice.outside,
        overlap=tuple(source.id for source in choice.overlap.listed),
        overlap_paired=tuple(source.id for source in choice.overlap.paired),
        overlap_kept=options.allow_test_overlap,
        missing=choice.missing(plan, options, there),
    )


def _rehearse(found: Found, out: Path, plan: Plan, options: PrepareOptions, listener: Listener) -> PrepareReport:
    """A dry run: counts from names and sizes, bytes from a few clips made and thrown away."""
    stored = _stored_ids(out)
    choice = choose(found, plan, options, stored)
    empty = [job for job in choice.jobs if _is_empty(job.source)]
    choice.jobs = [job for job in choice.jobs if not _is_empty(job.source)]
    choice.skips += [Skip(id=job.source.id, input=job.source.input, reason="is empty (0 bytes)") for job in empty]
    announce(choice, plan, options, listener)
    sample = [make_clip(job) for job in choice.jobs[:: max(1, len(choice.jobs) // _SAMPLE)][:_SAMPLE]]
    sizes = [len(one.clip.picture) + one.clip.sound.nbytes for one in sample if not isinstance(one, Skip)]
    planned = stored | {job.source.id for job in choice.jobs}
    return replace(
        _report(choice, plan, options, stored=len(choice.jobs), there=planned),
        bytes=_size(out) + (round(sum(sizes) / len(sizes) * len(choice.jobs)) if sizes else 0),
        dry_run=True,
    )


def _is_empty(source: Source) -> bool:
    return any(path is not None and path.stat().st_size == 0 for path in (source.path, source.sound))
