"""Run `localize`: decode the inputs ahead in a thread, run the model, write the outputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from avloc.errors import InputError, UsageError
from avloc.localize.inputs import LIST_MARK, STDIN, expand_inputs, seekable_files
from avloc.localize.model import Model, load
from avloc.localize.options import InputDone, Localization, LocalizeOptions
from avloc.localize.outputs import (
    RECORDS,
    VIDEO,
    OutputFile,
    at_time,
    check_inputs_kept,
    plan_outputs,
    write_result,
)
from avloc.localize.result import Result
from avloc.localize.result_files import ResultFiles
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
    """One input: its name as printed, its file and its outputs."""

    number: int
    name: str
    source: Path
    outputs: tuple[OutputFile, ...]
    sound: SoundSource

    @property
    def videos(self) -> list[Path]:
        """The overlay videos to write."""
        return [file.path for file in self.outputs if file.suffix == VIDEO]

    def exists(self) -> bool:
        """Whether all outputs exist."""
        return all(file.path.exists() for file in self.outputs)

    def exists_at(self, time_s: float | None) -> bool:
        """Whether all outputs of a time exist, each a file of its own; not known in advance for the middle (None)."""
        paths = [at_time(file.path, time_s or 0.0) for file in self.outputs if file.per_time]
        return time_s is not None and len(paths) == len(self.outputs) and all(path.exists() for path in paths)


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """Item from the decoding thread: a scene, or an error; neither if all output exists."""

    job: _Job
    time_s: float | None = None
    """Requested time; None is the middle."""
    count: int = 1
    """Number of times of this input."""
    has_files: bool = True
    """Whether files of one time are written; of the five times of an overlay video, for the middle."""
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
    if options.skip_existing:  # an existing file may hold inputs that are skipped
        outputs = [tuple(file for file in of_input if not _is_kept(file)) for of_input in outputs]
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
            _Job(number=number, name=name, source=file, outputs=of_input, sound=sound)
            for number, (name, file, of_input) in enumerate(zip(names, files, outputs, strict=False))
        ]
        decoded = (item for job in jobs for item in _decode(job, options, model))
        with ResultFiles(chain.from_iterable(outputs), model) as results, closing(prefetch(decoded)) as items:
            worker = _Worker(model, options, results, listener, len(jobs))
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


def _is_kept(file: OutputFile) -> bool:
    return file.suffix in RECORDS and file.path.exists()


def _check(options: LocalizeOptions, names: Sequence[str], outputs: Sequence[Sequence[OutputFile]]) -> None:
    lists = [text.removeprefix(LIST_MARK) for text in options.inputs if text.startswith(LIST_MARK)]
    sources = [Path(name) for name in (*names, *lists) if name != STDIN]
    if options.audio is not None:
        if len(names) != 1:
            raise UsageError(f"--audio needs exactly one picture or video; there are {len(names)} inputs")
        if str(options.audio) == STDIN in names:
            raise UsageError("standard input (-) can be read once")
        if str(options.audio) != STDIN and not options.audio.is_file() and not options.audio.is_fifo():
            path = options.audio
            raise UsageError(f"--audio: {path} is not a file" if path.exists() else f"--audio: no such file: {path}")
        sources.append(options.audio)
    files = [*chain.from_iterable(outputs)]
    video = next((file.path for file in files if file.suffix == VIDEO), None)
    if options.times.at is not None and video is not None:
        raise UsageError(f"--at is a single time and --out {video} a video; valid: --start and --end")
    check_inputs_kept(files, sources)


def _decode(job: _Job, options: LocalizeOptions, spec: WindowSpec) -> Iterator[_Decoded]:
    """Decode the scenes of an input, except those to skip because their output exists."""
    if options.skip_existing and job.exists():
        yield _Decoded(job=job)
        return
    try:
        if job.videos and is_picture(job.source):
            raise InputError("is a picture; an overlay video needs a video")
        sampled = _sampled_times(job, options)
        times = scene_times(job.source, sampled, job.sound)
        remaining = [time_s for time_s in times if not (options.skip_existing and job.exists_at(time_s))]
        scenes = read_scenes(job.source, remaining, spec, job.sound)
        for number, (time_s, scene) in enumerate(zip(remaining, scenes, strict=True)):
            yield _Decoded(
                job=job,
                time_s=time_s if sampled.is_set else None,  # the time of the middle is not known in advance
                count=len(remaining),
                has_files=sampled == options.times or number == len(remaining) // 2,
                scene=scene,
            )
        if not remaining:
            yield _Decoded(job=job)
        check_complete(job.source, sampled, job.sound)
    except InputError as error:
        yield _Decoded(job=job, error=str(error))


def _sampled_times(job: _Job, options: LocalizeOptions) -> Times:
    """Times with a result each; the maps of an overlay video are computed separately while it is written."""
    is_listed = options.as_json or len(job.outputs) > len(job.videos)
    if job.videos and not (is_listed and options.times.every is not None):
        return replace(options.times, every=None, count=VERDICT_TIMES)
    return options.times


class _Worker:
    """Runs the model on decoded scenes and writes the results."""

    def __init__(
        self, model: Model, options: LocalizeOptions, files: ResultFiles, listener: Listener, inputs: int
    ) -> None:
        self.model, self.options, self.files, self.listener = model, options, files, listener
        self.inputs, self.done = inputs, 0
        self.counts: dict[int, int] = {}

    def process(self, job: _Job, items: Iterator[_Decoded]) -> Iterator[Localization | InputDone]:
        """Yield the results of one input, then its final record."""
        judgements: list[Judgement] = []
        missing: list[str] = []
        warned: set[str] = set()
        videos: list[Path] = []
        text, failed = "", False
        try:
            for number, item in enumerate(items):
                if item.scene is not None:
                    self._warn(item.scene.sound, job, warned)
                    result = self.model.localize_scene(item.scene)
                    judgements.append(result.judgement)
                    yield self._write(job, item, result)
                self._report_progress(job, item)
                if item.error and not number:
                    raise InputError(item.error)
                missing += [item.error] if item.error else []
            if judgements:
                clip = self.model.rule.judge_clip(judgements)
                videos = [self._write_video(job, path, clip.caption, missing) for path in job.videos]
                text = summary(clip, judgements)
        except InputError as error:
            missing, failed = [str(error)], True
        if missing:
            yield self._failure(job, missing[0])
        yield InputDone(
            input=job.name,
            failed=failed,
            incomplete=bool(missing) and not failed,
            skipped=not judgements and not failed,
            written=(*videos, *self.files.finish(job.outputs)),
            summary=text,
        )

    def _failure(self, job: _Job, reason: str) -> Localization:
        record = Localization(input=job.name, error=reason, model=self.model.name, protocol=self.model.protocol)
        self.files.add(job.outputs, record)
        return record

    def _warn(self, sound: SoundWindow, job: _Job, warned: set[str]) -> None:
        """Report each warning about the sound of an input once."""
        warnings = []
        if sound.channel is not None:
            used = f"channel {sound.channel} alone is used"
            warnings.append(f"the channels of its sound all but cancel in their mean; {used}")
        if sound.lost_s:
            warnings.append("some of its sound cannot be decoded, and is replaced by silence")
        if sound.source_rate < sound.rate and not job.videos:  # write_video has this warning itself
            warnings.append(f"its sound is sampled at {sound.source_rate} Hz; the model takes {sound.rate} Hz")
        others = probe(job.sound.path(job.source), job.sound.track).other_tracks
        if others and job.sound.track is None:
            warnings.append(f"{others}; --track chooses")
        for text in warnings:
            if text not in warned:
                self.listener(Notice(f"{job.name}: {text}"))
        warned.update(warnings)

    def _write(self, job: _Job, item: _Decoded, result: Result) -> Localization:
        """Write the files of one time, and add it to those that hold several times."""
        time_s = result.time_s if item.time_s is None else item.time_s
        files = [file for file in job.outputs if file.per_time and item.has_files]
        written = tuple(at_time(file.path, time_s) for file in files)
        for file, path in zip(files, written, strict=True):
            write_result(file, path, result, self.options.style)
        record = Localization(input=job.name, result=result, written=written, is_picture=is_picture(job.source))
        self.files.add(job.outputs, record)
        return record

    def _write_video(self, job: _Job, out: Path, caption: str, missing: list[str]) -> Path:
        """Write an overlay video; appends to `missing` why it is incomplete."""
        from avloc.localize.video import write_video

        times = self.options.times
        video = write_video(
            job.source,
            out,
            self.model,
            every=times.every or VIDEO_STEP_S,
            start=times.start,
            end=times.end,
            sound=job.sound,
            style=self.options.style,
            caption=caption,
            listener=self.listener,
        )
        missing += [video.missing] if video.missing else []
        return out

    def _report_progress(self, job: _Job, item: _Decoded) -> None:
        """Report the times done; remaining inputs are assumed to have as many as the mean so far."""
        self.done += 1
        self.counts[job.number] = item.count
        total = round(sum(self.counts.values()) * self.inputs / len(self.counts))
        self.listener(Progress(task="localizing", done=self.done, total=total, detail=job.name))
