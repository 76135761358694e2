"""Run `prepare`: find and select inputs, make clips, store them and report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from avloc.annotations.testsets import IdList
from avloc.errors import NoInputLeft, Refused, UsageError
from avloc.files import real_path
from avloc.option_rules import MODES
from avloc.prepare import packed
from avloc.prepare.clips import make_clip
from avloc.prepare.plan import PrepareOptions, StorePlan, make_plan, merge_header
from avloc.prepare.selection import MAX_LISTED, SKIPPED, Selection, emit_notices, select_inputs, write_skips
from avloc.prepare.sources import FoundInputs, Skip, Source, classify, files_in
from avloc.prepare.workers import make_clips
from avloc.progress import Listener, Notice, Progress, silent
from avloc.registry import resolve
from avloc.sharding import JobShard, lock_shard, lock_shared_files, remove_partial_files, worker_count
from avloc.store import Store, StoreWriter
from avloc.store.shards import shard_paths

_SAMPLE = 4
"""Clips made by a dry run to estimate sizes."""


@dataclass(frozen=True, kw_only=True)
class PrepareReport:
    """Result of `prepare`; a dry run reports what would be done.

    A shard counts its own inputs; only `flags` and `bytes` are of the whole store.
    """

    shard: str | None = None
    """Shard of this report, such as `2/4`; None if unsharded."""
    found: int
    """Inputs found, usable or not."""
    stored: int
    """Clips stored by this run."""
    already: int
    """Clips stored before."""
    failed: int
    """Inputs that cannot be used; listed in `skipped.jsonl`."""
    outside: int
    """Inputs that are not in `--ids`."""
    flags: dict[str, int] = field(default_factory=dict)
    """Number of clips of the store with each flag."""
    overlap: tuple[str, ...] = ()
    """Test clips of VGG-SS or Flickr-SoundNet among the inputs of a training store."""
    overlap_paired: tuple[str, ...] = ()
    """More test clips, used only by the silent pairs of SLAVC's extended VGG-SS."""
    overlap_kept: bool = False
    """Whether test clips were kept (`--allow-test-overlap`)."""
    missing: tuple[str, ...] = ()
    """Ids that were requested or annotated and are not in the store."""
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
    """Convert videos, frame + sound folders or packed sets to the store `out`; resumes an unfinished one.

    `sources` are files, folders and globs. Without `options.ids`, only the clips of `named` are used, if given.

    Raises:
        UsageError: a source does not exist, there are no inputs, or an option is invalid.
        NoInputLeft: every input failed, or an unsharded run has no clip left to store.
        Refused: another process that is not a shard of this job writes to `out`, or its store has other settings.
        OSError: the disk is full or not writable.
    """
    if (mode := MODES["prepare"]["layout"].get(options.layout)) and mode.run:
        report: PrepareReport = resolve(mode.run)(sources, out, options, listener)
        return report
    started = time.monotonic()
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; valid: a new folder or an existing store")
    plan = make_plan(options, named)
    masks = options.annotations if plan.header.box_rule == "mask" else None
    found = _find_inputs(sources, out, options, masks, listener).within(options.shard)
    merge_header(out, plan.header, options.shard)
    if options.dry_run:
        return replace(_dry_run(found, out, plan, options, listener), seconds=time.monotonic() - started)
    with lock_shard(out, options.shard, "prepare"):
        with lock_shared_files(out, options.shard):
            remove_partial_files(out, options.shard)
        selection = select_inputs(found, plan, options, _stored_ids(out))
        emit_notices(selection, plan, options, listener)
        stored = _make_clips(selection, out, plan, options, listener)
        if not stored and _stored_ids(out):  # a killed run may not have updated the counts
            with lock_shared_files(out, options.shard):
                Store(out).count()
        in_store = _stored_ids(out)
        flags = Store(out).flag_counts() if in_store else {}
        report = _report(selection, plan, options, stored=stored, in_store=in_store)
        report = replace(report, flags=flags, bytes=_size(out))
    _check_result(selection, report, out, options)
    return replace(report, seconds=time.monotonic() - started)


def _find_inputs(
    sources: Sequence[str], out: Path, options: PrepareOptions, masks: Path | None, listener: Listener
) -> FoundInputs:
    """Find all inputs; PNG files in the folder of masks are no frames."""
    paths = files_in(sources, out)
    if masks is not None:
        folder = real_path(masks)
        paths = [path for path in paths if path.suffix.lower() != ".png" or folder not in real_path(path).parents]
    found = classify(paths, options.layout, named=frozenset(Path(text) for text in sources))
    found.sources += packed.packed_sources(found.packed, found.skips)
    if not found.sources and not found.skips:
        raise UsageError(f"nothing to prepare in {', '.join(sources)} (--layout {options.layout}, {len(paths)} files)")
    kinds = {source.kind for source in found.sources}
    for flag, given, used_by, what in (
        ("--frame", options.at, {"video"}, "video"),
        ("--track", options.track, {"video", "pair"}, "video or sound file"),
    ):
        if kinds and given is not None and not kinds & used_by:
            listener(Notice(f"{flag} has no effect: no input is a {what}"))
    if found.ignored:
        listener(Notice(f"{found.ignored} pictures and sounds are not part of a pair and are ignored"))
    if sharing := [source for source in found.sources if source.frame_id != source.id]:
        frames = len({source.path for source in sharing})
        example = f"{sharing[0].sound} goes with {sharing[0].path}"
        listener(Notice(f"{len(sharing)} sounds share {frames} pictures, by their names less the last part: {example}"))
    return found


def _check_result(selection: Selection, report: PrepareReport, out: Path, options: PrepareOptions) -> None:
    """Raise an error if no clip was stored; a shard may be empty by chance."""
    if selection.skips and not report.stored + report.already:
        first = selection.skips[0]
        raise NoInputLeft(
            f"every input failed ({len(selection.skips)}); the first: {first.input} {first.reason}",
            hint=f"{out / SKIPPED} gives the reason for each.",
        )
    if not options.shard.is_unsharded or _stored_ids(out):
        return
    outside = f"{selection.outside} not in --ids {options.ids}"
    if not selection.overlap:
        raise UsageError(f"no clip to store: inputs {outside}", hint="Ids are file names without their ending.")
    reasons = [f"{len(tests)} test clips of {name} left out" for tests, name in selection.overlap.groups()]
    reasons += [outside] if selection.outside else []
    raise NoInputLeft(f"no clip to store: {', '.join(reasons)}", hint="--allow-test-overlap keeps test clips.")


def _stored_ids(out: Path) -> frozenset[str]:
    if (out / "store.json").is_file():
        return frozenset(Store(out).ids)
    if shard_paths(out):
        hint = "Put it back, or delete the folder and prepare it again."
        raise Refused(f"{out} holds shards but no store.json", hint=hint)
    return frozenset()


def _size(out: Path) -> int:
    return sum(path.stat().st_size for path in out.glob("shard-*.h5"))


def _make_clips(selection: Selection, out: Path, plan: StorePlan, options: PrepareOptions, listener: Listener) -> int:
    """Make and store the clips, and return their number; finished clips are kept on interruption."""
    stored, named, remarked, total = 0, len(selection.skips), 0, len(selection.jobs)
    try:
        with ExitStack() as stack:
            made = stack.enter_context(closing(make_clips(selection.jobs, worker_count(options.workers))))
            writer: StoreWriter | None = None
            for done, result in enumerate(made, 1):
                if isinstance(result, Skip):
                    selection.skips.append(result)
                    named += 1
                    if named <= MAX_LISTED:
                        listener(Notice(f"{result.input} {result.reason}"))
                else:
                    writer = writer or _open_writer(stack, selection, out, plan, options.shard)
                    writer.add(result.clip)
                    stored += 1
                    for remark in result.remarks[: MAX_LISTED - remarked]:
                        listener(Notice(f"{selection.jobs[done - 1].source.input} {remark}"))
                    remarked += len(result.remarks)
                listener(Progress(task="prepare", done=done, total=total, detail=selection.jobs[done - 1].source.id))
        if remarked > MAX_LISTED:
            listener(Notice(f"{remarked - MAX_LISTED} more remarks like these"))
    finally:
        with lock_shared_files(out, options.shard):
            write_skips(out, selection, options, _stored_ids(out))
    return stored


def _open_writer(stack: ExitStack, selection: Selection, out: Path, plan: StorePlan, shard: JobShard) -> StoreWriter:
    """Open the writer at the first clip; checks again that a store created by another shard is compatible."""
    with lock_shared_files(out, shard):
        header = merge_header(out, plan.header, shard)
        if any(job.source.kind == "packed" for job in selection.jobs) and "sound" not in header.provenance:
            header = replace(header, provenance={**header.provenance, "sound": packed.PACKED_NOTE})
        return stack.enter_context(StoreWriter(out, header, shard=shard))


def _report(
    selection: Selection, plan: StorePlan, options: PrepareOptions, *, stored: int, in_store: frozenset[str]
) -> PrepareReport:
    return PrepareReport(
        shard=options.shard.label,
        found=selection.found,
        stored=stored,
        already=selection.already,
        failed=len(selection.skips),
        outside=selection.outside,
        overlap=tuple(source.id for source in selection.overlap.listed),
        overlap_paired=tuple(source.id for source in selection.overlap.paired),
        overlap_kept=options.allow_test_overlap,
        missing=selection.missing(plan, options, in_store),
    )


def _dry_run(
    found: FoundInputs, out: Path, plan: StorePlan, options: PrepareOptions, listener: Listener
) -> PrepareReport:
    """Count inputs by names and sizes, and estimate bytes from a few clips."""
    stored = _stored_ids(out)
    selection = select_inputs(found, plan, options, stored)
    empty = [job for job in selection.jobs if _is_empty(job.source)]
    selection.jobs = [job for job in selection.jobs if not _is_empty(job.source)]
    selection.skips += [Skip(id=job.source.id, input=job.source.input, reason="is empty (0 bytes)") for job in empty]
    emit_notices(selection, plan, options, listener)
    sample = [make_clip(job) for job in selection.jobs[:: max(1, len(selection.jobs) // _SAMPLE)][:_SAMPLE]]
    sizes = [len(one.clip.picture) + one.clip.sound.nbytes for one in sample if not isinstance(one, Skip)]
    planned = stored | {job.source.id for job in selection.jobs}
    return replace(
        _report(selection, plan, options, stored=len(selection.jobs), in_store=planned),
        bytes=_size(out) + (round(sum(sizes) / len(sizes) * len(selection.jobs)) if sizes else 0),
        dry_run=True,
    )


def _is_empty(source: Source) -> bool:
    return any(path is not None and path.stat().st_size == 0 for path in (source.path, source.sound))
