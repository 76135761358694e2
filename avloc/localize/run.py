"""Inputs through the model, one after the other, and the results to where they belong."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from avloc.errors import InputError, UsageError
from avloc.localize.inputs import STDIN, as_files, check_named, expand_inputs
from avloc.localize.model import Model, load
from avloc.localize.moments import (
    Scene,
    SoundSource,
    Times,
    WindowSpec,
    check_whole,
    remarks_on,
    scene_times,
    scenes_at,
)
from avloc.localize.options import InputDone, Localization, LocalizeOptions
from avloc.localize.outputs import (
    ARRAY,
    TIME,
    VIDEO,
    Stack,
    at_time,
    check_apart,
    plan_outputs,
    write_array,
    write_picture,
)
from avloc.localize.prefetch import read_ahead
from avloc.localize.result import Result
from avloc.localize.verdict import Verdict, summary, warning
from avloc.media import SoundWindow, is_picture, probe
from avloc.progress import Listener, Notice, Progress, silent

JUDGED = 5
"""Moments of an overlay video, evenly spread, on which the verdict rests."""
VIDEO_STEP_S = 0.5
"""Seconds from one map of an overlay video to the next, where `every` does not say; between them it interpolates."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One input: its name as shown, its file, and where its results go."""

    number: int
    name: str
    source: Path
    out: Path | None
    sound: SoundSource

    @property
    def suffix(self) -> str:
        return self.out.suffix.lower() if self.out else ""

    def path_at(self, time_s: float) -> Path | None:
        """The file of one moment; None where there is none, or one file holds all moments."""
        if self.out is None or self.suffix == VIDEO:
            return None
        return at_time(self.out, time_s)

    def has(self, time_s: float | None) -> bool:
        """Whether the file of a moment is there already; the middle has no time by which to look for it."""
        path = None if time_s is None else self.path_at(time_s)
        return path is not None and path.exists()


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What the reading thread hands over: a scene, or why there is none; neither where all output is there already."""

    job: _Job
    time_s: float | None = None
    """As it was asked for; None is the middle."""
    count: int = 1
    """Moments of this input that are worked on."""
    scene: Scene | None = None
    error: str = ""


def localize(options: LocalizeOptions, listener: Listener = silent) -> Generator[Localization | InputDone, None, None]:
    """Localize every moment of every input in turn; an input that fails yields its reason, and the rest goes on.

    Raises:
        UsageError: a path does not exist, or the outputs or times cannot be meant.
        WeightsError: the model or a prior cannot be read.
    """
    names = expand_inputs(options.inputs, pictures=options.audio is not None)
    wanted = bool(options.out) or not options.as_json
    outputs = plan_outputs(names, options.out, pictures=wanted, every=options.times.every is not None)
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
    with as_files([*names, *audio], [*options.inputs, *audio]) as files:
        sound = SoundSource(file=files[-1] if audio else None, name=f"--audio {options.audio}", track=options.track)
        jobs = [
            _Job(number=number, name=name, source=file, out=out, sound=sound)
            for number, (name, file, out) in enumerate(zip(names, files, outputs, strict=False))
        ]
        worker = _Worker(model, options, listener, len(jobs))
        reads = (read for job in jobs for read in _reads(job, options, model))
        with closing(read_ahead(reads)) as coming:
            for job, of_job in groupby(coming, attrgetter("job")):
                yield from worker.one_input(job, of_job)


def _check(options: LocalizeOptions, names: Sequence[str], outputs: Sequence[Path | None]) -> None:
    sources = [Path(name) for name in names if name != STDIN]
    if options.audio is not None:
        if len(names) != 1:
            raise UsageError(f"--audio goes with one picture or video, not with {len(names)} inputs")
        sources.append(check_named(str(options.audio), "--audio: "))
        if str(options.audio) == STDIN in names:
            raise UsageError("standard input (-) can be read once")
    if options.times.at is not None and any(path and path.suffix.lower() == VIDEO for path in outputs):
        raise UsageError(f"--at is one moment and --out {options.out} a video; valid: --start and --end")
    check_apart(options.out, outputs, sources)


def _reads(job: _Job, options: LocalizeOptions, spec: WindowSpec) -> Iterator[_Read]:
    """The scenes of an input as they are decoded, without those whose output is there already."""
    if options.skip_existing and job.out is not None and job.out.exists():
        yield _Read(job=job)
        return
    try:
        if job.suffix == VIDEO and is_picture(job.source):
            raise InputError("is a picture; an overlay video is made of a video")
        sampled = _sampled(job, options)
        times = scene_times(job.source, sampled, job.sound)
        left = [time_s for time_s in times if not (options.skip_existing and job.has(time_s))]
        asked = sampled.given or sampled.several > 1  # the time of a file's middle is not known beforehand
        for time_s, scene in zip(left, scenes_at(job.source, left, spec, job.sound), strict=True):
            yield _Read(job=job, time_s=time_s if asked else None, count=len(left), scene=scene)
        if not left:
            yield _Read(job=job)
        check_whole(job.source, sampled, job.sound)
    except InputError as error:
        yield _Read(job=job, error=str(error))


def _sampled(job: _Job, options: LocalizeOptions) -> Times:
    """The moments that are looked at one by one; a video's own maps are made as it is written."""
    if job.suffix == VIDEO and not (options.as_json and options.times.every is not None):
        return replace(options.times, every=None, several=JUDGED)
    return options.times


class _Worker:
    """Runs the model over what was read and writes the results."""

    def __init__(self, model: Model, options: LocalizeOptions, listener: Listener, inputs: int) -> None:
        self.model, self.options, self.listener = model, options, listener
        self.inputs, self.moments = inputs, 0
        self.counts: dict[int, int] = {}

    def one_input(self, job: _Job, reads: Iterator[_Read]) -> Iterator[Localization | InputDone]:
        """The moments of one input, then what became of it."""
        verdicts: list[Verdict] = []
        missing: list[str] = []
        said: set[str] = set()
        try:
            with ExitStack() as files:
                stack = Stack(job.out, files) if job.out is not None and self._is_stack(job.out) else None
                for number, read in enumerate(reads):
                    if read.scene is not None:
                        self._remark(read.scene.sound, job, said)
                        result = self.model.localize_scene(read.scene)
                        verdicts.append(result.verdict)
                        written = self._write(job, read, result, stack)
                        yield Localization(input=job.name, result=result, written=written)
                    self._tell(job, read)
                    if read.error and not number:
                        raise InputError(read.error)
                    missing += [read.error] if read.error else []
                whole = self._whole(job, stack, verdicts, missing) if verdicts else None
        except InputError as error:
            yield self._failure(job, str(error))
            yield InputDone(input=job.name, failed=True)
            return
        if missing:
            yield self._failure(job, missing[0])
        skipped = not verdicts
        yield InputDone(
            input=job.name, incomplete=bool(missing), skipped=skipped, written=whole, summary=summary(verdicts)
        )

    def _failure(self, job: _Job, reason: str) -> Localization:
        return Localization(input=job.name, error=reason, model=self.model.name, protocol=self.model.protocol)

    def _is_stack(self, out: Path) -> bool:
        return out.suffix.lower() == ARRAY and TIME not in str(out) and self.options.times.every is not None

    def _remark(self, sound: SoundWindow, job: _Job, said: set[str]) -> None:
        """Say what a person should know of the sound of an input, each once."""
        remarks = [*remarks_on(sound)]
        if sound.source_rate < sound.rate and job.suffix != VIDEO:  # who writes the video says it himself
            remarks.append(f"sampled at {sound.source_rate} Hz; the model takes {sound.rate} Hz")
        others = probe(job.sound.of(job.source), job.sound.track).other_tracks
        if others and job.sound.track is None:
            remarks.append(f"{others}; --track chooses")
        for remark in remarks:
            if remark not in said:
                self.listener(Notice(f"{job.name}: {remark}"))
        said.update(remarks)

    def _write(self, job: _Job, read: _Read, result: Result, stack: Stack | None) -> Path | None:
        """Write what belongs to one moment; the path if that is a file of its own."""
        if stack is not None:
            stack.add(result)
            return None
        path = job.path_at(result.time_s if read.time_s is None else read.time_s)
        if path is None:
            return None
        if path.suffix.lower() == ARRAY:
            write_array(path, result)
        else:
            write_picture(path, result.overlay(self.options.style))
        return path

    def _whole(self, job: _Job, stack: Stack | None, verdicts: Sequence[Verdict], missing: list[str]) -> Path | None:
        """Finish the file of all moments, where there is one; `missing` gets what a video lacks at its end."""
        if stack is not None:
            stack.finish()
            return stack.path
        if job.out is None or job.suffix != VIDEO:
            return None
        from avloc.localize.video import write_video

        times = self.options.times
        movie = write_video(
            job.source,
            job.out,
            self.model,
            every=times.every or VIDEO_STEP_S,
            start=times.start,
            end=times.end,
            sound=job.sound,
            style=self.options.style,
            caption=warning(verdicts),
            listener=self.listener,
        )
        missing += [movie.missing] if movie.missing else []
        return job.out

    def _tell(self, job: _Job, read: _Read) -> None:
        """Progress in moments; inputs to come are taken to have as many as those so far."""
        self.moments += 1
        self.counts[job.number] = read.count
        total = round(sum(self.counts.values()) * self.inputs / len(self.counts))
        self.listener(Progress(task="localizing", done=self.moments, total=total, detail=job.name))
