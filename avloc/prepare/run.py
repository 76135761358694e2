"""`prepare` itself: find, choose, make, store, report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from avloc.annotations import pair_only_ids
from avloc.errors import InputError, NoInputLeft, UsageError
from avloc.events import Listener, Notice, Progress, silent
from avloc.files import folder_lock, remove_leftovers, write_bytes
from avloc.prepare import packed
from avloc.prepare.clips import Job, make_clip
from avloc.prepare.finding import find
from avloc.prepare.overlap import Overlap
from avloc.prepare.plan import Plan, PrepareOptions, fitting_header, make_plan
from avloc.prepare.sources import Found, Skip, Source, without_doubles
from avloc.prepare.workers import results, worker_count
from avloc.store import Store, StoreHeader, StoreWriter

SKIPPED = "skipped.jsonl"
_SAMPLE = 4
"""Clips that a dry run makes to estimate sizes."""
_NAMED = 20
"""Failures named one by one on the way; all of them stand in `skipped.jsonl`."""


@dataclass(frozen=True, kw_only=True)
class PrepareReport:
    """What was done, or in a dry run would be."""

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


@dataclass(kw_only=True)
class _Choice:
    """The inputs, sorted by what becomes of them."""

    found: int
    jobs: list[Job] = field(default_factory=list)
    already: int = 0
    skips: list[Skip] = field(default_factory=list)
    overlap: Overlap = field(default_factory=Overlap)
    outside: int = 0
    inputs: set[str] = field(default_factory=set)
    """Every input of this run: what earlier runs said of them is out of date."""


def prepare(sources: Sequence[str], out: Path, options: PrepareOptions, listener: Listener = silent) -> PrepareReport:
    """Turn videos, frame + sound folders or packed sets into a store; finish one that was begun.

    Args:
        sources: files, folders and globs.
        out: the store.
        options: what to prepare.
        listener: hears progress, and a notice for each thing a person should know.

    Raises:
        UsageError: a source does not exist, nothing is found or named by `--ids`, or an option cannot be meant.
        NoInputLeft: every input failed or was left out.
        Refused: another process writes to `out`, or it holds a store made otherwise.
        OSError: the disk is full or not writable.
    """
    started = time.monotonic()
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; valid: a folder, new or a store begun earlier")
    plan = make_plan(options)
    masks = options.annotations if plan.header.box_rule == "mask" else None
    found = find(sources, out, layout=options.layout, masks=masks, listener=listener)
    header = fitting_header(out, plan.header)
    if options.dry_run:
        return replace(_rehearse(found, out, plan, options, listener), seconds=time.monotonic() - started)
    with folder_lock(out):
        remove_leftovers(out)
        header = fitting_header(out, plan.header)
        choice = _choose(found, plan, options, _stored_ids(out))
        _announce(choice, plan, options, listener)
        stored = _make(choice, out, header, options, listener)
        report = _report(choice, plan, options, out, stored)
    if choice.skips and not report.stored + report.already:
        first = choice.skips[0]
        raise NoInputLeft(
            f"every input failed ({len(choice.skips)}); the first: {first.input} {first.reason}",
            hint=f"{out / SKIPPED} gives the reason for each.",
        )
    if not _stored_ids(out):
        _explain_nothing(choice, options)
    return replace(report, seconds=time.monotonic() - started)


def _explain_nothing(choice: _Choice, options: PrepareOptions) -> NoReturn:
    """No input failed, and still there is no store."""
    outside = f"{choice.outside} not in --ids {options.ids}"
    if not choice.overlap:
        raise UsageError(f"no clip to store: inputs {outside}", hint="Ids are file names without their ending.")
    left_out = choice.overlap.left_out()
    reason = f"{left_out}, {outside}" if choice.outside else left_out
    raise NoInputLeft(f"no clip to store: {reason}", hint="--allow-test-overlap keeps test clips.")


def _stored_ids(out: Path) -> frozenset[str]:
    return frozenset(Store(out).ids) if (out / "store.json").is_file() else frozenset()


def _choose(found: Found, plan: Plan, options: PrepareOptions, stored: frozenset[str]) -> _Choice:
    """Decide for every input what becomes of it."""
    skips = list(found.skips)
    sources = without_doubles(found.sources, skips)
    choice = _Choice(
        found=len(sources) + len(skips), inputs={s.input for s in found.sources} | {s.input for s in skips}
    )
    listed = frozenset(plan.ids.ids) if plan.ids else None
    choice.skips = [skip for skip in skips if listed is None or not skip.id or skip.id in listed]
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
    choice.outside += len(skips) - len(choice.skips)
    return choice


def _add_job(choice: _Choice, source: Source, plan: Plan, options: PrepareOptions) -> None:
    job = Job(source=source, spec=plan.header.spec, at=options.at)
    try:
        found = plan.annotations.find(source.id, *source.annotated_as) if plan.annotations else None
    except InputError as error:
        choice.skips.append(Skip(id=source.id, input=source.input, reason=str(error)))
        return
    choice.jobs.append(replace(job, annotation=found))


def _announce(choice: _Choice, plan: Plan, options: PrepareOptions, listener: Listener) -> None:
    for text in choice.overlap.notices(kept=options.allow_test_overlap):
        listener(Notice(text))
    if plan.header.kind == "test":
        _announce_bare([job.source.id for job in choice.jobs if not _is_annotated(job)], listener)
    for skip in choice.skips[:_NAMED]:
        listener(Notice(f"{skip.input} {skip.reason}"))
    if len(choice.skips) > _NAMED:
        listener(Notice(f"{len(choice.skips) - _NAMED} more inputs cannot be used; {SKIPPED} names them"))


def _is_annotated(job: Job) -> bool:
    return job.annotation is not None and bool(len(job.annotation.boxes) or job.annotation.mask)


def _announce_bare(ids: Sequence[str], listener: Listener) -> None:
    """Say which clips have neither boxes nor a mask. Those that only silent pairs use have none by right."""
    silent = len(pair_only_ids().intersection(ids))
    if silent:
        listener(Notice(f"clips of the silent pairs of vggss-ext, which have no boxes: {silent}"))
    if len(ids) > silent:
        listener(Notice(f"clips without annotation: {len(ids) - silent}; kept, but no score can count them"))


def _make(choice: _Choice, out: Path, header: StoreHeader, options: PrepareOptions, listener: Listener) -> int:
    """Make and store the clips; returns how many. What is finished is kept on any interruption."""
    if any(job.source.kind == "packed" for job in choice.jobs) and "sound" not in header.provenance:
        header = replace(header, provenance={**header.provenance, "sound": packed.PACKED_NOTE})
    stored, named, total = 0, len(choice.skips), len(choice.jobs)
    try:
        with ExitStack() as stack:
            made = stack.enter_context(closing(results(choice.jobs, worker_count(options.workers))))
            writer: StoreWriter | None = None
            for done, result in enumerate(made, 1):
                if isinstance(result, Skip):
                    choice.skips.append(result)
                    named += 1
                    if named <= _NAMED:
                        listener(Notice(f"{result.input} {result.reason}"))
                else:
                    writer = writer or stack.enter_context(StoreWriter(out, header))
                    writer.add(result)
                    stored += 1
                listener(Progress(task="prepare", done=done, total=total, detail=choice.jobs[done - 1].source.id))
    finally:
        _write_skips(out, choice, keep_overlap=options.allow_test_overlap)
    return stored


def _write_skips(out: Path, choice: _Choice, *, keep_overlap: bool) -> None:
    """Rewrite `skipped.jsonl`: this run's failures, and earlier ones of inputs that this run did not see."""
    stored = _stored_ids(out)
    path = out / SKIPPED
    earlier = [Skip(**json.loads(line)) for line in _lines(path)]
    kept = [skip for skip in earlier if skip.input not in choice.inputs and skip.id not in stored]
    entries = [*kept, *choice.skips, *([] if keep_overlap else choice.overlap.skips())]
    text = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries)
    write_bytes(path, text.encode())


def _lines(path: Path) -> Iterable[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else ()


def _report(choice: _Choice, plan: Plan, options: PrepareOptions, out: Path, stored: int) -> PrepareReport:
    there = _stored_ids(out)
    return PrepareReport(
        found=choice.found,
        stored=stored,
        already=choice.already,
        failed=len(choice.skips),
        outside=choice.outside,
        flags=Store(out).flag_counts() if there else {},
        overlap=tuple(source.id for source in choice.overlap.listed),
        overlap_paired=tuple(source.id for source in choice.overlap.paired),
        overlap_kept=options.allow_test_overlap,
        missing=_missing(choice, plan, options, there),
        bytes=sum(path.stat().st_size for path in out.glob("shard-*.h5")),
    )


def _missing(choice: _Choice, plan: Plan, options: PrepareOptions, there: Iterable[str]) -> tuple[str, ...]:
    wanted = plan.ids.ids if plan.ids else plan.header.expected
    present = {*there, *(() if options.allow_test_overlap else choice.overlap.ids)}
    return tuple(clip_id for clip_id in wanted if clip_id not in present)


def _rehearse(found: Found, out: Path, plan: Plan, options: PrepareOptions, listener: Listener) -> PrepareReport:
    """A dry run: counts from names and sizes, bytes from a few clips made and thrown away."""
    stored = _stored_ids(out)
    choice = _choose(found, plan, options, stored)
    empty = [job for job in choice.jobs if _is_empty(job.source)]
    choice.jobs = [job for job in choice.jobs if not _is_empty(job.source)]
    choice.skips += [Skip(id=job.source.id, input=job.source.input, reason="is empty (0 bytes)") for job in empty]
    _announce(choice, plan, options, listener)
    sample = [make_clip(job) for job in choice.jobs[:: max(1, len(choice.jobs) // _SAMPLE)][:_SAMPLE]]
    sizes = [len(clip.picture) + clip.sound.nbytes for clip in sample if not isinstance(clip, Skip)]
    planned = {job.source.id for job in choice.jobs}
    return PrepareReport(
        found=choice.found,
        stored=len(choice.jobs),
        already=choice.already,
        failed=len(choice.skips),
        outside=choice.outside,
        overlap=tuple(source.id for source in choice.overlap.listed),
        overlap_paired=tuple(source.id for source in choice.overlap.paired),
        overlap_kept=options.allow_test_overlap,
        missing=_missing(choice, plan, options, stored | planned),
        bytes=sum(path.stat().st_size for path in out.glob("shard-*.h5"))
        + (round(sum(sizes) / len(sizes) * len(choice.jobs)) if sizes else 0),
        dry_run=True,
    )


def _is_empty(source: Source) -> bool:
    return any(path is not None and path.stat().st_size == 0 for path in (source.path, source.sound))
