"""`avloc localize --events`: what happens in every second of a video, and where the sound says to look.

The seconds' features come from VGG19 and VGGish, as `distill-cache` makes them; the model sees windows of ten seconds,
every five, and what several windows say of a second is averaged. Attention depends on its second alone.

Shape letters: T seconds, K classes, background last.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avloc.errors import InputError, UsageError
from avloc.localize.events_video import write_events_video
from avloc.localize.inputs import STDIN, expand_inputs, seekable_files
from avloc.localize.outputs import PICTURES, STEM, TIME, VIDEO, check_inputs_kept, plan_outputs
from avloc.localize.timeline import write_timeline
from avloc.media import LATE_S, layout_of, picture_seconds, play_seconds, read_frame, square
from avloc.progress import Listener, Progress, silent
from avloc.transforms import MEL_RATE

if TYPE_CHECKING:
    import torch

    from avloc.engine.events import EventEngine
    from avloc.networks.vggish import VGGish
    from avloc.teachers import Vgg19Teacher

SCHEMA = "avloc.progress/1"
WINDOW, STEP = 10, 5
"""Length of the windows that the model sees, and from one to the next, in seconds."""
_SHOWN_SIDE = 112


@dataclass(frozen=True, kw_only=True)
class EventsOptions:
    """What to tell the events of, with what, and where to put it."""

    inputs: tuple[str, ...]
    model: Path | None = None
    weights_dir: Path | None = None
    out: str = ""
    as_json: bool = False
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Span:
    """Seconds in a row with the same event."""

    event: str
    start: int
    end: int
    """The second behind the last."""
    confidence: float
    """Mean probability of the event in its seconds."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What happens in every second of one video."""

    classes: tuple[str, ...]
    """Background last."""
    probabilities: NDArray[np.float32]
    """[T, K]."""
    attention: NDArray[np.float32]
    """[T, 7, 7], each second's adding up to 1."""
    pictures: NDArray[np.uint8]
    """[T, 112, 112, 3] from the middle of each second, stretched to a square."""
    aspect: float
    """Width of the video by its height."""
    silent: NDArray[np.bool_]
    """[T] seconds of digital silence, or past the end of the sound: nothing can be heard and seen there."""

    @property
    def told(self) -> NDArray[np.int64]:
        """[T] the most probable class of each second; in a silent one nothing can be heard and seen: background."""
        background = len(self.classes) - 1
        return np.where(self.silent, background, self.probabilities.argmax(1))

    @property
    def spans(self) -> list[Span]:
        """The events without background, in order."""
        out, start = [], 0
        for number, run in groupby(self.told.tolist()):
            end = start + len(list(run))
            if number != len(self.classes) - 1:
                mean = float(self.probabilities[start:end, number].mean())
                out.append(Span(event=self.classes[number], start=start, end=end, confidence=round(mean, 4)))
            start = end
        return out


@dataclass(frozen=True, kw_only=True)
class Told:
    """What was found in one input, or why nothing could be."""

    input: str
    model: str
    error: str = ""
    """Why there is no timeline, or none of all of it."""
    timeline: Timeline | None = None
    written: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """One line of `--json`; times in seconds, places in fractions of the frame."""
        line: dict[str, Any] = {"schema": SCHEMA, "input": self.input, "model": self.model}
        if self.timeline is None:
            return {**line, "seconds": None, "events": None, "per_second": None, "error": self.error}
        timeline = self.timeline
        per_second = [
            {
                "second": second,
                "event": timeline.classes[number],
                "silent": bool(quiet),
                "probability": None if quiet else round(float(timeline.probabilities[second, number]), 4),
                "attention_peak_xy": None if quiet else _peak(timeline.attention[second]),
            }
            for second, (number, quiet) in enumerate(zip(timeline.told.tolist(), timeline.silent, strict=True))
        ]
        events = [vars(span) for span in timeline.spans]
        seconds = {"seconds": len(per_second), "events": events, "per_second": per_second}
        return {**line, **seconds, "error": self.error or None}


def _peak(attention: NDArray[np.float32]) -> list[float]:
    row, column = np.unravel_index(attention.argmax(), attention.shape)
    height, width = attention.shape
    return [round((int(column) + 0.5) / width, 4), round((int(row) + 0.5) / height, 4)]


def localize_events(options: EventsOptions, listener: Listener = silent) -> Generator[Told]:
    """The timeline of each input, written where `out` says.

    Raises:
        UsageError: no model, one that tells no events, or an output that cannot be meant.
        WeightsError: weights of the model, VGG19 or VGGish are absent or wrong.
    """
    names = expand_inputs(options.inputs, pictures=False)
    out_name = options.out or ("" if options.as_json else f"{STEM}.events.png")
    outs = plan_outputs(names, out_name, pictures=not options.as_json, suffixes=(*PICTURES, VIDEO))
    check_inputs_kept(options.out, outs, [Path(name) for name in names if name != STDIN])
    for out in outs:
        if TIME in str(out):
            raise UsageError(f"--out {options.out}: a timeline holds all times; valid: a name without {TIME}")
    teller = Teller(options, listener)
    with seekable_files(names, options.inputs) as files:
        for name, source, out in zip(names, files, outs, strict=True):
            try:
                timeline = teller.timeline(source, listener)
                if out is not None:
                    _write(source, out, timeline, listener)
            except InputError as error:
                yield Told(input=name, model=teller.name, error=str(error))
            else:
                missing = layout_of(source).cut_off
                yield Told(input=name, model=teller.name, timeline=timeline, written=out, error=missing)


def _write(source: Path, out: Path, timeline: Timeline, listener: Listener) -> None:
    if out.suffix.lower() == VIDEO:
        write_events_video(source, out, timeline, listener)
    else:
        write_timeline(out, timeline)


class Teller:
    """A model of AVE with the networks that make its features.

    Raises:
        UsageError: there is no model, or it tells no events.
        WeightsError: weights are absent or wrong.
    """

    def __init__(self, options: EventsOptions, listener: Listener = silent) -> None:
        from avloc.checkpoint import load_model
        from avloc.engine.events import EventEngine, told_names
        from avloc.networks.vggish import load_vggish
        from avloc.registry import StoreSpec
        from avloc.teachers import Vgg19Teacher
        from avloc.weights import VGGISH, locate

        if options.model is None:
            hint = "Train one: avloc train STORE --method ave --out RUN"
            raise UsageError("--events needs --model; the model in the package makes maps", hint=hint)
        model = load_model(options.model)
        if model.config.method != "ave":
            raise UsageError(f"{options.model} is a model of {model.config.method}; --events takes one of --method ave")
        self.name = model.name
        self.classes = told_names(model)
        self.engine: EventEngine = EventEngine(model, options.device)
        instead = "Maps need no download: the model in the package makes them, without --events and --model."
        sound, sight = (
            locate(weight, weights_dir=options.weights_dir, listener=listener, instead=instead)
            for weight in (VGGISH, Vgg19Teacher.weight())
        )
        self.hears: VGGish = load_vggish(sound.path).to(self.engine.device)
        self.sees: Vgg19Teacher = Vgg19Teacher(StoreSpec(seconds=WINDOW, rate=MEL_RATE), sight, self.engine.device)

    def timeline(self, source: Path, listener: Listener = silent) -> Timeline:
        """What happens in every second of a video; the last may be short of half a second, as `prepare` has it.

        Raises:
            InputError: it has no pictures or no sound, is shorter than half a second, or cannot be decoded.
        """
        import torch

        seconds = math.floor(picture_seconds(source) + LATE_S)
        if seconds < 1:
            raise InputError(f"is shorter than {LATE_S:g} s")
        audio, without = self._heard(source, seconds)
        visual, pictures = self._seen(source, seconds, listener)
        probabilities = np.zeros((seconds, len(self.classes)), np.float32)
        attention: list[NDArray[np.float32]] = []
        counts = np.zeros((seconds, 1), np.float32)
        for start in window_starts(seconds):
            window = slice(start, start + WINDOW)
            seen, heard = torch.from_numpy(visual[window])[None], audio[:, window]
            told = self.engine.tell(seen, heard)
            probabilities[window] += told.probabilities[0].cpu().numpy()
            counts[window] += 1
            attention += list(told.attention[0].cpu().numpy())[len(attention) - start :]
        height, width = read_frame(source)[0].shape[:2]
        return Timeline(
            classes=self.classes,
            probabilities=probabilities / counts,
            attention=np.stack(attention),
            pictures=pictures,
            aspect=width / height,
            silent=without,
        )

    def _heard(self, source: Path, seconds: int) -> tuple[torch.Tensor, NDArray[np.bool_]]:
        """Features of every second [1, T, 128], heard where it is seen, and which seconds are silent."""
        import torch

        features, without = [], []
        with torch.inference_mode(), closing(play_seconds(source, seconds, MEL_RATE)) as windows:
            for window in windows:
                features.append(
                    self.hears.seconds(torch.from_numpy(window.waveform)[None].to(self.engine.device)).cpu()
                )
                without.append(window.silent)
        return torch.cat(features, 1), np.array(without)

    def _seen(self, source: Path, seconds: int, listener: Listener) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Features and the middle picture of every second; pictures of one second are in memory at a time."""
        from avloc.teachers.vgg19 import FRAMES, pictures

        features, middles, second = [], [], []
        for picture in pictures(source, 0.0, seconds):
            second.append(picture)
            if len(second) == FRAMES:
                features.append(self.sees.seen(np.stack(second))[0])
                middles.append(square(second[FRAMES // 2], _SHOWN_SIDE))
                second = []
                listener(Progress(task="seconds seen", done=len(features), total=seconds, detail=source.name))
        return np.stack(features), np.stack(middles)


def window_starts(seconds: int) -> list[int]:
    """Where the windows begin: every five seconds, and one that ends with the video; a short video is one window."""
    last = max(0, seconds - WINDOW)
    return sorted({*range(0, last, STEP), last})
