"""Run `localize`: decode the inputs ahead in a thread, run the model, write the outputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from avloc.errors import InputError, UsageError
from avloc.localize.inputs import STDIN, expand_inputs, seekable_files
from avloc.localize.model import Model, load
from avloc.localize.options import InputDone, Localization, LocalizeOptions
from avloc.localize.outputs import (
    ARRAY,
    TIME,
    VIDEO,
    HeatMapStack,
    at_time,
    check_inputs_kept,
    plan_outputs,
    write_array,
    write_picture,
)
from avloc.localize.result import Result
from avloc.localize.scenes import Scene, SoundSource, Times, WindowSpec, check_complete, read_scenes, scene_times
from avloc.localize.verdict import Judgement, summary
from avloc.media.audio import SoundWindow
from avloc.media.pictures import is_picture
from avloc.media.probing import probe
from avloc.progress import Listener, Notice, Progress, silent

VERDICT_TIMES = 5
"""Number of evenly spread times that determine the verdict of an overlay video."""
VIDEO_STEP_S = 0.5
"""Default interval between the maps of an overlay video; frames in between are interpolated."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One input: its name as printed, its file and its output."""

    number: int
    name: str
    source: Path
    out: Path | None
    sound: SoundSource

    @property
    def suffix(self) -> str:
        return self.out.suffix.lower() if self.out else ""

    def path_at(self, time_s: float) -> Path | None:
        """Output file of one time; None if there is none, or one file holds all times."""
        if self.out is None or self.suffix == VIDEO:
            return None
        return at_time(self.out, time_s)

    def is_done(self, time_s: float | None) -> bool:
        """Whether the output of a time exists; the time of the middle (None) is not known in advance."""
        path = None if time_s is None else self.path_at(time_s)
        return path is not None and path.exists()


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """Item from the decoding thread: a scene, or an error; neither if all output exists."""

    job: _Job
    time_s: float | None = None
    """Requested time; None is the middle."""
    count: int = 1
    """Number of times of this input."""
    scene: Scene | None = None
    error: str = ""


def localize(options: LocalizeOptions, listener: Listener = silent) -> Generator[Localization | InputDone, None, None]:
    """Localize every time of every input; an input that fails yields its error, and the next one follows.

    Raises:
        UsageError: a path does not exist, or outputs or times are invalid.
        WeightsError: the model's or a prior's weights cannot be read.
    """
    names = expand_inputs(options.inputs, pictures=options.audio is not None)
    pictures = bool(options.out) or not options.as_json
    outputs = plan_outputs(names, options.out, pictures=pictures, every=options.times.every is not None)
    _check(options, names, outputs)
    model = load(
        options.model,
        device=options.device,
        precision=options.precision,
        prior=options.prior,
        weights=options.weights,
        weights_dir=options.weights_dir,
        listener=listener,
    )
    audio = [] if options.audio is None else [str(options.audio)]
    with seekable_files([*names, *audio], [*options.inputs, *audio]) as files:
        sound = SoundSource(file=files[-1] if audio else None, name=f"--audio {options.audio}", track=options.track)
        jobs = [
            _Job(number=number, name=name, source=file, out=out, sound=sound)
            for number, (name, file, out) in enumerate(zip(names, files, outputs, strict=False))
        ]
        worker = _Worker(model, options, listener, len(jobs))
        decoded = (item for job in jobs for item in _decode(job, options, model))
        with closing(prefetch(decoded)) as items:
            for job, of_job in groupby(items, attrgetter("job")):
                yield from worker.process(job, of_job)


def prefetch(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield the same items in order, computing up to `depth` of them ahead in a thread.

    An exception of `items` is raised in its item's place. Closing the generator computes no further item.
    """
    end: Any = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="avloc-read")
    try:
        pending: deque[Future[T]] = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, items, end))
            yield item
            del item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check(options: LocalizeOptions, names: Sequence[str], outputs: Sequence[Path | None]) -> None:
    sources = [Path(name) for name in names if name != STDIN]
    if options.audio is not None:
        if len(names) != 1:
            raise UsageError(f"--audio needs exactly one picture or video; there are {len(names)} inputs")
        if str(options.audio) == STDIN in names:
            raise UsageError("standard input (-) can be read once")
        if str(options.audio) != STDIN and not options.audio.is_file() and not options.audio.is_fifo():
            path = options.audio
            raise UsageError(f"--audio: {path} is not a file" if path.exists() else f"--audio: no such file: {path}")
        sources.append(options.audio)
    if options.times.at is not None and any(path and path.suffix.lower() == VIDEO for path in outputs):
        raise UsageError(f"--at is a single time and --out {options.out} a video; valid: --start and --end")
    check_inputs_kept(options.out, outputs, sources)


def _decode(job: _Job, options: LocalizeOptions, spec: WindowSpec) -> Iterator[_Decoded]:
    """Decode the scenes of an input, except those to skip because their output exists."""
    if options.skip_existing and job.out is not None and job.out.exists():
        yield _Decoded(job=job)
        return
    try:
        if job.suffix == VIDEO and is_picture(job.source):
            raise InputError("is a picture; an overlay video needs a video")
        sampled = _sampled_times(job, options)
        times = scene_times(job.source, sampled, job.sound)
        remaining = [time_s for time_s in times if not (options.skip_existing and job.is_done(time_s))]
        requested = sampled.is_set or sampled.count > 1  # the time of the middle is not known in advance
        for time_s, scene in zip(remaining, read_scenes(job.source, remaining, spec, job.sound), strict=True):
            yield _Decoded(job=job, time_s=time_s if requested else None, count=len(remaining), scene=scene)
        if not remaining:
            yield _Decoded(job=job)
        check_complete(job.source, sampled, job.sound)
    except InputError as error:
        yield _Decoded(job=job, error=str(error))


def _sampled_times(job: _Job, options: LocalizeOptions) -> Times:
    """Times with a result each; the maps of an overlay video are computed separately while it is written."""
    if job.suffix == VIDEO and not (options.as_json and options.times.every is not None):
        return replace(options.times, every=None, count=VERDICT_TIMES)
    return options.times


class _Worker:
    """Runs the model on decoded scenes and writes the results."""

    def __init__(self, model: Model, options: LocalizeOptions, listener: Listener, inputs: int) -> None:
        self.model, self.options, self.listener = model, options, listener
        self.inputs, self.done = inputs, 0
        self.counts: dict[int, int] = {}

    def process(self, job: _Job, items: Iterator[_Decoded]) -> Iterator[Localization | InputDone]:
        """Yield the results of one input, then its final record."""
        judgements: list[Judgement] = []
        missing: list[str] = []
        warned: set[str] = set()
        try:
            with ExitStack() as files:
                is_stack = job.suffix == ARRAY and TIME not in str(job.out) and self.options.times.every is not None
                stack = HeatMapStack(job.out, files) if job.out is not None and is_stack else None
                for number, item in enumerate(items):
                    if item.scene is not None:
                        self._warn(item.scene.sound, job, warned)
                        result = self.model.localize_scene(item.scene)
                        judgements.append(result.judgement)
                        written = self._write(job, item, result, stack)
                        yield Localization(input=job.name, result=result, written=written)
                    self._report_progress(job, item)
                    if item.error and not number:
                        raise InputError(item.error)
                    missing += [item.error] if item.error else []
                clip = self.model.rule.judge_clip(judgements)
                combined = self._finish(job, stack, clip, missing) if judgements else None
        except InputError as error:
            yield self._failure(job, str(error))
            yield InputDone(input=job.name, failed=True)
            return
        if missing:
            yield self._failure(job, missing[0])
        yield InputDone(
            input=job.name,
            incomplete=bool(missing),
            skipped=not judgements,
            written=combined,
            summary=summary(clip, judgements) if judgements else "",
        )

    def _failure(self, job: _Job, reason: str) -> Localization:
        return Localization(input=job.name, error=reason, model=self.model.name, protocol=self.model.protocol)

    def _warn(self, sound: SoundWindow, job: _Job, warned: set[str]) -> None:
        """Report each warning about the sound of an input once."""
        warnings = []
        if sound.channel is not None:
            used = f"channel {sound.channel} alone is used"
            warnings.append(f"the channels of its sound all but cancel in their mean; {used}")
        if sound.lost_s:
            warnings.append("some of its sound cannot be decoded, and is replaced by silence")
        if sound.source_rate < sound.rate and job.suffix != VIDEO:  # write_video has this warning itself
            warnings.append(f"its sound is sampled at {sound.source_rate} Hz; the model takes {sound.rate} Hz")
        others = probe(job.sound.path(job.source), job.sound.track).other_tracks
        if others and job.sound.track is None:
            warnings.append(f"{others}; --track chooses")
        for text in warnings:
            if text not in warned:
                self.listener(Notice(f"{job.name}: {text}"))
        warned.update(warnings)

    def _write(self, job: _Job, item: _Decoded, result: Result, stack: HeatMapStack | None) -> Path | None:
        """Write the output of one time; returns its path if it has a file of its own."""
        if stack is not None:
            stack.add(result)
            return None
        path = job.path_at(result.time_s if item.time_s is None else item.time_s)
        if path is None:
            return None
        if path.suffix.lower() == ARRAY:
            write_array(path, result)
        else:
            write_picture(path, result.overlay(self.options.style))
        return path

    def _finish(self, job: _Job, stack: HeatMapStack | None, clip: Judgement, missing: list[str]) -> Path | None:
        """Write or finish the file of all times, if there is one; appends to `missing` why a video is incomplete."""
        if stack is not None:
            stack.finish()
            return stack.path
        if job.out is None or job.suffix != VIDEO:
            return None
        from avloc.localize.video import write_video

        times = self.options.times
        video = write_video(
            job.source,
            job.out,
            self.model,
            every=times.every or VIDEO_STEP_S,
            start=times.start,
            end=times.end,
            sound=job.sound,
            style=self.options.style,
            caption=clip.caption,
            listener=self.listener,
        )
        missing += [video.missing] if video.missing else []
        return job.out

    def _report_progress(self, job: _Job, item: _Decoded) -> None:
        """Report the times done; remaining inputs are assumed to have as many as the mean so far."""
        self.done += 1
        self.counts[job.number] = item.count
        total = round(sum(self.counts.values()) * self.inputs / len(self.counts))
        self.listener(Progress(task="localizing", done=self.done, total=total, detail=job.name))
