"""Inputs through the model, one after the other, and the results to where they belong."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from avloc.errors import InputError, UsageError
from avloc.events import Listener, Notice, Progress, silent
from avloc.localize.ahead import read_ahead
from avloc.localize.inputs import STDIN, as_files, expand_inputs
from avloc.localize.model import Model, load
from avloc.localize.moments import Hears, Scene, Times, scene_times, scenes_at
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
from avloc.localize.result import FIELDS, SCHEMA, Result
from avloc.localize.style import Style
from avloc.localize.verdict import Verdict, summary, warning
from avloc.media import is_picture
from avloc.protocols import Protocol

JUDGED = 5
"""Moments of an overlay video, evenly spread, on which the verdict rests."""
VIDEO_STEP_S = 0.5
"""Seconds from one map of an overlay video to the next, where `every` does not say; between them it interpolates."""


@dataclass(frozen=True, kw_only=True)
class LocalizeOptions:
    """What to localize, with what, and where to put it."""

    inputs: tuple[str, ...]
    """Files, patterns, folders and `@lists`; `-` is standard input."""
    audio: Path | None = None
    """Sound for a single picture, or for a single video in place of its own."""
    times: Times = field(default_factory=Times)
    """Which moments of the videos."""
    model: Path | None = None
    prior: str = ""
    """Object prior; see `avloc.localize.model.load`."""
    weights: Mapping[str, float] = field(default_factory=dict)
    weights_dir: Path | None = None
    out: str = ""
    """As the user typed it: a trailing slash means a folder."""
    as_json: bool = False
    """Every moment is wanted as a line, and no picture is written where `out` is empty."""
    style: Style = field(default_factory=Style)
    skip_existing: bool = False
    """Leave out what is there already."""
    device: str = "auto"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        Protocol(precision=self.precision)
        if self.skip_existing and self.as_json and not self.out:
            raise UsageError("--skip-existing needs --out: lines of JSON are nowhere to be found again")
        if self.skip_existing and TIME in self.out and not self.times.given:
            unknown = f"--skip-existing cannot know the time in --out {self.out} beforehand"
            raise UsageError(f"{unknown}; add --every or --at, or take a name without it")


@dataclass(frozen=True, kw_only=True)
class Localization:
    """What was found in one moment of one input, or why nothing could be."""

    input: str
    error: str = ""
    result: Result | None = None
    written: Path | None = None
    """The file of this moment, where it has one of its own."""
    model: str = ""
    protocol: str = ""

    def as_json(self) -> dict[str, Any]:
        """One line of `--json`; pixels are those of the shown frame."""
        known = self.result.as_json() if self.result else {"model": self.model, "protocol": self.protocol}
        return {"schema": SCHEMA, "input": self.input, **dict.fromkeys(FIELDS), **known, "error": self.error or None}


@dataclass(frozen=True, kw_only=True)
class InputDone:
    """One input is finished with."""

    input: str
    failed: bool = False
    skipped: bool = False
    """Its output was there already."""
    written: Path | None = None
    """The file that holds all its moments, where there is one."""
    summary: str = ""
    """The verdict for a person."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One input: its name as shown, its file, and where its results go."""

    number: int
    name: str
    source: Path
    out: Path | None

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
    with as_files(names) as files:
        triples = enumerate(zip(names, files, outputs, strict=True))
        jobs = [_Job(number=number, name=name, source=file, out=out) for number, (name, file, out) in triples]
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
        if not options.audio.is_file():
            raise UsageError(f"--audio: no such file: {options.audio}")
        sources.append(options.audio)
    if options.times.at is not None and any(path and path.suffix.lower() == VIDEO for path in outputs):
        raise UsageError(f"--at is one moment and --out {options.out} a video; valid: --start and --end")
    check_apart(options.out, outputs, sources)


def _reads(job: _Job, options: LocalizeOptions, hears: Hears) -> Iterator[_Read]:
    """The scenes of an input as they are decoded, without those whose output is there already."""
    if options.skip_existing and job.out is not None and job.out.exists():
        yield _Read(job=job)
        return
    try:
        if job.suffix == VIDEO and is_picture(job.source):
            raise InputError("is a picture; an overlay video is made of a video")
        times = scene_times(job.source, _sampled(job, options), options.audio)
        left = [time_s for time_s in times if not (options.skip_existing and job.has(time_s))]
        for time_s, scene in zip(left, scenes_at(job.source, left, hears, options.audio), strict=True):
            yield _Read(job=job, time_s=time_s, count=len(left), scene=scene)
        if not left:
            yield _Read(job=job)
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
        try:
            with ExitStack() as files:
                stack = Stack(job.out, files) if job.out is not None and self._is_stack(job.out) else None
                for read in reads:
                    if read.scene is not None:
                        result = self._result(read.scene, job, is_first=not verdicts)
                        verdicts.append(result.verdict)
                        written = self._write(job, read, result, stack)
                        yield Localization(input=job.name, result=result, written=written)
                    self._tell(job, read)
                    if read.error:
                        raise InputError(read.error)
            whole = self._whole(job, stack, verdicts) if verdicts else None
        except InputError as error:
            yield Localization(input=job.name, error=str(error), model=self.model.name, protocol=self.model.protocol)
            yield InputDone(input=job.name, failed=True)
            return
        yield InputDone(input=job.name, skipped=not verdicts, written=whole, summary=summary(verdicts))

    def _is_stack(self, out: Path) -> bool:
        return out.suffix.lower() == ARRAY and TIME not in str(out) and self.options.times.every is not None

    def _result(self, scene: Scene, job: _Job, *, is_first: bool) -> Result:
        sound = scene.sound
        if is_first and sound.source_rate < sound.rate and job.suffix != VIDEO:  # who writes the video says it himself
            text = f"{job.name}: sampled at {sound.source_rate} Hz; the model hears {sound.rate} Hz"
            self.listener(Notice(text))
        return self.model.localize_scene(scene)

    def _write(self, job: _Job, read: _Read, result: Result, stack: Stack | None) -> Path | None:
        """Write what belongs to one moment; the path if that is a file of its own."""
        if stack is not None:
            stack.add(result, read.count)
            return None
        path = job.path_at(result.time_s if read.time_s is None else read.time_s)
        if path is None:
            return None
        if path.suffix.lower() == ARRAY:
            write_array(path, result)
        else:
            write_picture(path, result, self.options.style)
        return path

    def _whole(self, job: _Job, stack: Stack | None, verdicts: Sequence[Verdict]) -> Path | None:
        """Finish the file of all moments, where there is one."""
        if job.out is None or job.suffix != VIDEO:
            return stack.path if stack else None
        from avloc.localize.video import write_video

        times = self.options.times
        job.out.parent.mkdir(parents=True, exist_ok=True)
        write_video(
            job.source,
            job.out,
            self.model,
            every=times.every or VIDEO_STEP_S,
            start=times.start,
            end=times.end,
            audio=self.options.audio,
            style=self.options.style,
            caption=warning(verdicts),
            listener=self.listener,
        )
        return job.out

    def _tell(self, job: _Job, read: _Read) -> None:
        """Progress in moments; inputs to come are taken to have as many as those so far."""
        self.moments += 1
        self.counts[job.number] = read.count
        total = round(sum(self.counts.values()) * self.inputs / len(self.counts))
        self.listener(Progress(task="localizing", done=self.moments, total=total, detail=job.name))
