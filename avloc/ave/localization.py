"""`avloc localize --events`: predicts the event of every second of a video, with its visual attention.

The features of each second come from VGG19 and VGGish, as in `distill-cache`. The model takes windows of ten seconds,
one every five; probabilities are averaged where windows overlap. Attention depends on its second alone.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from avloc.ave.inference import EventPredictor, model_classes
from avloc.ave.teachers import Vgg19Teacher, embed_seconds
from avloc.ave.timeline import Timeline, write_timeline, write_timeline_video
from avloc.ave.video_seconds import FRAMES_PER_SECOND, LATE_S, frames_by_second, sound_by_second
from avloc.checkpoint import load_model
from avloc.errors import InputError, UsageError
from avloc.localize.inputs import STDIN, expand_inputs, seekable_files
from avloc.localize.outputs import PICTURES, STEM, TIME, VIDEO, check_inputs_kept, plan_outputs
from avloc.media.pictures import square
from avloc.media.probing import probe
from avloc.media.video_frames import read_frame
from avloc.networks.base import deterministic_inference
from avloc.networks.vggish import load_vggish
from avloc.progress import Listener, Progress, silent
from avloc.registry import StoreSpec
from avloc.transforms import MEL_RATE
from avloc.weights import VGGISH, imagenet_weights, locate

SCHEMA = "avloc.events/1"
WINDOW_S, STEP_S = 10, 5
"""Length of a window of the model, and the step between windows, in seconds."""
_SHOWN_SIDE = 112


@dataclass(frozen=True, kw_only=True)
class VideoEvents:
    """The timeline of one input, or the reason why there is none."""

    input: str
    model: str
    error: str = ""
    """Why there is no timeline, or only one of a part of the video."""
    timeline: Timeline | None = None
    written: tuple[Path, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """One line of `--json`."""
        none = {"seconds": None, "events": None, "per_second": None}
        timeline = self.timeline.as_json() if self.timeline else none
        return {"schema": SCHEMA, "input": self.input, "model": self.model, **timeline, "error": self.error or None}


def localize_events(
    inputs: Sequence[str],
    model: Path | None,
    out: Sequence[str] = (),
    weights_dir: Path | None = None,
    device: str = "auto",
    listener: Listener = silent,
    *,
    as_json: bool = False,
) -> Generator[VideoEvents]:
    """Predict the timeline of each input and write it to its outputs; with `as_json`, only if `out` is given.

    Raises:
        UsageError: no model, a model of another method, or an invalid output.
        WeightsError: weights of the model, VGG19 or VGGish are absent or wrong.
    """
    names = expand_inputs(inputs, pictures=False)
    outs = out or ([] if as_json else [f"{STEM}.events.png"])
    outputs = plan_outputs(names, outs, pictures=False, suffixes=(*PICTURES, VIDEO))
    check_inputs_kept(chain.from_iterable(outputs), [Path(name) for name in names if name != STDIN])
    for timed in [text for text in outs if TIME in text]:
        raise UsageError(f"--out {timed}: a timeline covers all times; valid: a name without {TIME}")
    predictor = TimelinePredictor(model, weights_dir, device, listener)
    with seekable_files(names, inputs) as files:
        for name, source, of_input in zip(names, files, outputs, strict=True):
            written = tuple(file.path for file in of_input)
            try:
                timeline = predictor.timeline(source, listener)
                for file in of_input:
                    if file.suffix == VIDEO:
                        write_timeline_video(source, file.path, timeline, listener)
                    else:
                        write_timeline(file.path, timeline)
            except InputError as error:
                yield VideoEvents(input=name, model=predictor.name, error=str(error))
            else:
                cut_off = probe(source).cut_off
                yield VideoEvents(input=name, model=predictor.name, timeline=timeline, written=written, error=cut_off)


class TimelinePredictor:
    """A model of AVE with the networks of its features.

    Raises:
        UsageError: there is no model, or it is of another method.
        WeightsError: weights are absent or wrong.
    """

    def __init__(
        self,
        path: Path | None,
        weights_dir: Path | None = None,
        device: str = "auto",
        listener: Listener = silent,
    ) -> None:
        if path is None:
            hint = "Train one: avloc train STORE --method ave --out RUN"
            raise UsageError("--events needs --model; the model in the package predicts maps", hint=hint)
        model = load_model(path)
        if model.config.method != "ave":
            raise UsageError(f"{path} is a model of {model.config.method}; --events takes one of --method ave")
        self.name, self.classes = model.name, model_classes(model)
        self.model = EventPredictor(model, device)
        instead = "Maps need no download: the model in the package predicts them, without --events and --model."
        audio, visual = (
            locate(weight, weights_dir=weights_dir, listener=listener, instead=instead)
            for weight in (VGGISH, imagenet_weights(Vgg19Teacher.name))
        )
        self.vggish = load_vggish(audio.path).to(self.model.device)
        self.vgg19 = Vgg19Teacher(StoreSpec(seconds=WINDOW_S, rate=MEL_RATE), visual, self.model.device)

    def timeline(self, source: Path, listener: Listener = silent) -> Timeline:
        """Predict every second of a video; as in `prepare`, the last may be up to half a second short.

        Raises:
            InputError: it has no video or no audio, is shorter than half a second, or cannot be decoded.
        """
        seconds = math.floor(probe(source).picture_extent[1] + LATE_S)
        if seconds < 1:
            raise InputError(f"is shorter than {LATE_S:g} s")
        audio, is_silent = self._audio_features(source, seconds)
        visual, pictures = self._visual_features(source, seconds, listener)
        probabilities = np.zeros((seconds, len(self.classes)), np.float32)
        attention: list[NDArray[np.float32]] = []
        counts = np.zeros((seconds, 1), np.float32)
        for start in window_starts(seconds):
            window = slice(start, start + WINDOW_S)
            prediction = self.model.predict(torch.from_numpy(visual[window])[None], audio[:, window])
            probabilities[window] += prediction.probabilities[0].cpu().numpy()
            counts[window] += 1
            attention += list(prediction.attention[0].cpu().numpy())[len(attention) - start :]
        height, width = read_frame(source)[0].shape[:2]
        return Timeline(
            classes=self.classes,
            probabilities=probabilities / counts,
            attention=np.stack(attention),
            pictures=pictures,
            aspect=width / height,
            silent=is_silent,
        )

    def _audio_features(self, source: Path, seconds: int) -> tuple[torch.Tensor, NDArray[np.bool_]]:
        """Features of every second [1, T, 128], in step with the frames, and which seconds are silent [T]."""
        features, is_silent = [], []
        with deterministic_inference(), closing(sound_by_second(source, seconds, MEL_RATE)) as windows:
            for window in windows:
                waveform = torch.from_numpy(window.waveform)[None].to(self.model.device)
                features.append(embed_seconds(self.vggish, waveform).cpu())
                is_silent.append(window.silent)
        return torch.cat(features, 1), np.array(is_silent)

    def _visual_features(
        self, source: Path, seconds: int, listener: Listener
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Features and the middle frame of every second; the frames of one second are in memory at a time."""
        features, middles, second = [], [], []
        for picture in frames_by_second(source, 0.0, seconds):
            second.append(picture)
            if len(second) == FRAMES_PER_SECOND:
                (hint,) = self.vgg19.hints([np.stack(second)])
                assert hint is not None, "every frame has features"
                features.append(hint[0])
                middles.append(square(second[FRAMES_PER_SECOND // 2], _SHOWN_SIDE))
                second = []
                listener(Progress(task="seconds", done=len(features), total=seconds, detail=source.name))
        return np.stack(features), np.stack(middles)


def window_starts(seconds: int) -> list[int]:
    """Starts of the windows: every five seconds, and one that ends with the video; a short video is one window."""
    last = max(0, seconds - WINDOW_S)
    return sorted({*range(0, last, STEP_S), last})
