"""The library: load a model, and localize frames and waveforms in memory, or videos. Prints nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avloc.errors import InputError, UsageError, WeightsError
from avloc.localize.array_inputs import to_frame, to_waveform
from avloc.localize.result import Result, check_fork_safe, heat_of
from avloc.localize.scenes import Scene, SoundSource, Times, check_complete, read_scenes, scene_times
from avloc.localize.verdict import VerdictRule
from avloc.media.audio import SoundWindow, cut_window
from avloc.media.pictures import square
from avloc.progress import Listener, silent
from avloc.protocols import Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from avloc.checkpoint import ModelFile
    from avloc.engine import Cohort, Engine, Fusion
    from avloc.localize.array_inputs import Frame, Waveform
    from avloc.methods import Embeddings

_NOISE_SEED = 0


def load(
    path: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "fp32",
    prior: str = "",
    weights: Mapping[str, float] | None = None,
    weights_dir: Path | None = None,
    listener: Listener = silent,
) -> Model:
    """Load a model.

    Args:
        path: a run folder, an avloc `.safetensors`, or a published `.pth` of AVC or EZ-VSL; None is the bundled model.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `fp32` or `bf16`.
        prior: object prior fused with the similarity map: `own` (the model's own backbone), `resnet18` or another,
            `detr`, the last two separated by a comma, or `none`; empty is the default in the model's card.
        weights: weight of each map by name, such as `{"av": 0.6, "object": 0.4}`.
        weights_dir: folder searched first for a prior's published weights.
        listener: called with notices of downloads.

    Raises:
        UsageError: no such path, device or prior, or weights that do not match the maps.
        WeightsError: the model's or a prior's weights are absent, damaged or of another kind, or the card's verdict
            needs a cohort and the file has none.
        Refused: this process was forked after a model was loaded.
    """
    from avloc.checkpoint import default_model, load_model
    from avloc.engine import Cohort, Engine, load_fusion, pick_device

    Protocol(precision=precision)
    torch_device = pick_device(device)
    check_fork_safe(torch_device)
    file = load_model(default_model() if path is None else Path(path))
    fusion = load_fusion(prior, weights, file.card, weights_dir, torch_device, listener)
    cohort = Cohort.of(file)
    if VerdictRule.from_card(file.card).cohort != (cohort is not None):
        with_it, without = ("file", "card's verdict") if cohort else ("card's verdict", "file")
        raise WeightsError(f"{file.path}: the {with_it} has a cohort and the {without} none; valid: both or neither")
    return Model(file, Engine.from_file(file, torch_device, precision), fusion, cohort)


class Model:
    """A loaded model, from `avloc.load`. Results do not depend on earlier calls.

    Attributes:
        name: short name of the model.
        sha256: hash of the model file.
        card: metadata of the model file.
        seconds: length of the sound window.
        rate: sample rate of the sound in Hz; 0 is each sound's own rate.
        resize: resize from cells to pixels, one of `avloc.protocols.RESIZES`.
        rule: calibration and thresholds of the verdict.
        protocol: resize, precision and weights of the fused maps, in one line.
    """

    def __init__(self, file: ModelFile, engine: Engine, fusion: Fusion, cohort: Cohort | None = None) -> None:
        self.name, self.sha256 = file.name, file.sha256
        self.card: Mapping[str, Any] = file.card
        self.seconds = engine.config.seconds
        self.rate = engine.config.rate
        self.resize = fusion.resize
        own = "" if self.resize == Protocol().resize else self.resize
        self.protocol = "/".join(filter(None, (Protocol().name, own, engine.precision, fusion.label)))
        self.rule = VerdictRule.from_card(file.card)
        self._engine, self._fusion, self._cohort = engine, fusion, cohort
        self._silence_cache: dict[tuple[int, int], Tensor] = {}

    def __repr__(self) -> str:
        sound = f"seconds={self.seconds:g}, rate={self.rate}"
        return f"Model({self.name!r}, {sound}, device='{self._engine.device}', protocol={self.protocol!r})"

    def localize(self, frame: Frame, waveform: Waveform, rate: int) -> Result:
        """Localize the source of a sound in a frame.

        Args:
            frame: [H, W, 3] uint8 RGB array or tensor on any device; tensors may be [3, H, W], and are refused if
                ambiguous. Or a Pillow image without 32-bit pixels, whose EXIF orientation is applied.
            waveform: mono array or tensor [n], float32 or float64 in [-1, 1], or int16, which is divided by 32768.
                Its middle `seconds` are used; a shorter one is tiled.
            rate: sample rate of the waveform in Hz; resampled to the model's rate.

        Raises:
            InputError: an invalid frame, waveform or rate.
            Refused: this process was forked after a model was loaded.
        """
        return self.localize_scene(Scene(frame=to_frame(frame), sound=self._window(waveform, rate)))

    def localize_video(
        self,
        path: str | Path,
        *,
        every: float = 1.0,
        start: float | None = None,
        end: float | None = None,
        audio: str | Path | None = None,
        track: int | None = None,
    ) -> Iterator[Result]:
        """Localize a video at regular intervals. Streams it: memory does not grow with its length.

        Args:
            path: a video file.
            every: interval between results in seconds.
            start: first time in seconds; None is the start of the video.
            end: times are before this; None is the end of the video.
            audio: file whose sound replaces the video's own.
            track: sound track, counted from 1; None is the main one.

        Raises:
            UsageError: at the call: `path` or `audio` is not a file, or invalid times.
            InputError: at the call: an empty file, or no frames at these times. While iterating: there is no sound, or
                a frame or the sound cannot be decoded. After the last result: the video is truncated.
            Refused: at the first result: this process was forked after a model was loaded.
        """
        times = Times(every=every, start=start, end=end)
        source = _existing_file(path)
        sound = SoundSource(file=None if audio is None else _existing_file(audio), name=f"audio {audio}", track=track)
        return self._localize_times(source, times, scene_times(source, times, sound), sound)

    def _localize_times(
        self, source: Path, times: Times, times_s: Sequence[float | None], sound: SoundSource
    ) -> Iterator[Result]:
        for scene in read_scenes(source, times_s, self, sound):
            yield self.localize_scene(scene)
        check_complete(source, times, sound)

    def localize_scene(self, scene: Scene) -> Result:
        """Localize a scene whose sound is a window of the model's length and rate."""
        import torch

        check_fork_safe(self._engine.device)
        began = time.perf_counter()
        frame, sound = scene.frame, scene.sound
        with torch.inference_mode():
            embeddings, prior_maps = self._encode(frame, sound)
            controls = [replace(embeddings, audio=audio) for audio in (self._silence(sound), self._noise(sound))]
            grids = [self._similarity(pair) for pair in (embeddings, *controls)]
        cells = [self._fusion.cells(grid, prior_maps) for grid in grids]
        _check_finite(grids[0], *cells)
        effects = [0.0, 0.0] if sound.silent else _effects(cells, self.resize)
        cohort_similarity = None if sound.silent else self._cohort_similarity(embeddings)
        judgement = self.rule.judge(
            silent=sound.silent,
            sound_effect=effects[0],
            sound_effect_noise=effects[1],
            peak_similarity=float(grids[0].max()),
            cohort_similarity=cohort_similarity or 0.0,
        )
        return Result(
            frame=frame,
            similarity=grids[0],
            cells=cells[0],
            resize=self.resize,
            judgement=judgement,
            sound_effect=effects[0],
            sound_effect_noise=effects[1],
            cohort_similarity=cohort_similarity,
            time_s=scene.time_s,
            window_s=(sound.start_s, sound.end_s),
            tiled=sound.short,
            model=self.name,
            protocol=self.protocol,
            seconds=time.perf_counter() - began,
        )

    def cells_at(self, frame: Frame, waveform: Waveform, rate: int) -> tuple[NDArray[np.float32], bool]:
        """Cells [h, w] of `localize`, and whether the sound is silent; skips the verdict, for many frames of a video.

        Raises:
            InputError, Refused: as `localize`.
        """
        import torch

        check_fork_safe(self._engine.device)
        rgb, sound = to_frame(frame), self._window(waveform, rate)
        with torch.inference_mode():
            embeddings, prior_maps = self._encode(rgb, sound)
            cells = self._fusion.cells(self._similarity(embeddings), prior_maps)
        _check_finite(cells)
        return cells, sound.silent

    def _window(self, waveform: Waveform, rate: int) -> SoundWindow:
        samples, rate = to_waveform(waveform, rate)
        return cut_window(samples, rate, seconds=self.seconds, rate=self.rate)

    def _encode(
        self, frame: NDArray[np.uint8], sound: SoundWindow
    ) -> tuple[Embeddings, dict[str, NDArray[np.float32]]]:
        """Embeddings, and the maps of the object priors by name."""
        import torch

        small = torch.from_numpy(square(frame, self._engine.config.frame).copy()).permute(2, 0, 1)[None]
        embeddings = self._engine.embed(small, torch.from_numpy(sound.waveform)[None], sound.rate)
        activation = None if embeddings.activation is None else embeddings.activation[0]
        return embeddings, self._fusion.prior_maps(frame, activation)

    def _similarity(self, embeddings: Embeddings) -> NDArray[np.float32]:
        grid: NDArray[np.float32] = self._engine.similarity(embeddings)[0].float().cpu().numpy()
        return grid

    def _cohort_similarity(self, embeddings: Embeddings) -> float | None:
        return None if self._cohort is None else self._cohort.similarity(embeddings.image[0], embeddings.audio[0])

    def _silence(self, sound: SoundWindow) -> Tensor:
        """Audio embedding of silence of the sound's length, cached."""
        import torch

        key = (len(sound.waveform), sound.rate)
        if key not in self._silence_cache:
            self._silence_cache[key] = self._engine.encode_sound(torch.zeros(1, key[0]), sound.rate)
        return self._silence_cache[key]

    def _noise(self, sound: SoundWindow) -> Tensor:
        """Audio embedding of white noise of fixed seed, with the sound's RMS."""
        import torch

        noise = np.random.default_rng(_NOISE_SEED).standard_normal(len(sound.waveform), np.float32)
        loudness = np.sqrt(np.mean(np.square(sound.waveform)))
        waveform = np.clip(loudness * noise, -1, 1)
        return self._engine.encode_sound(torch.from_numpy(waveform)[None], sound.rate)


def _effects(cells: list[NDArray[np.float32]], how: str) -> list[float]:
    """Mean absolute difference of the first heat map to each other one, on the square of avloc's protocol."""
    import torch

    side = Protocol().side
    own, *others = (torch.from_numpy(heat_of(one, how, side, side)) for one in cells)
    return [float((own - other).abs().mean()) for other in others]


def _check_finite(*cells: NDArray[np.float32]) -> None:
    if not all(np.isfinite(one).all() for one in cells):
        raise InputError("the model computed a map that is not finite")


def _existing_file(path: str | Path) -> Path:
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"{file} is a folder; valid: a file" if file.is_dir() else f"no such file: {file}")
    if not file.stat().st_size:
        raise InputError(f"{file} is empty (0 bytes)")
    return file
