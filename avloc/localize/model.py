"""The library: a model that localizes frames and sounds in memory, and videos moment by moment. Prints nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avloc.errors import InputError, UsageError
from avloc.localize.array_inputs import frame_of, sound_of
from avloc.localize.forks import check_forked
from avloc.localize.moments import Scene, SoundSource, Times, check_whole, scene_times, scenes_at
from avloc.localize.result import Result
from avloc.localize.verdict import VerdictRule, judge
from avloc.media import SoundWindow, cut_window, square
from avloc.progress import Listener, silent
from avloc.protocols import Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from avloc.checkpoint import ModelFile
    from avloc.engine import Engine, Fusion
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
    """A model ready to localize.

    Args:
        path: a run folder, a `.safetensors` of avloc, or a published `.pth` of AVC or EZ-VSL; None is the model in the
            package.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `fp32` or `bf16`.
        prior: object prior fused with the similarity map: `own` (the model's own trunk), `resnet18` or another trunk,
            `detr`, the last two with a comma, or `none`; empty is the model's own choice.
        weights: what each map weighs, by name, as `{"av": 0.6, "object": 0.4}`.
        weights_dir: folder searched first for a prior's published weights.
        listener: hears about a download.

    Raises:
        UsageError: nothing lies at `path`, no such device or prior, or weights that do not go with the maps.
        WeightsError: the model or a prior's weights are absent, damaged or foreign.
        Refused: this process was forked from one in which a model was loaded.
    """
    from avloc.checkpoint import default_model, load_model
    from avloc.engine import Engine, load_fusion, pick_device

    Protocol(precision=precision)
    where = pick_device(device)
    check_forked(where)
    file = load_model(default_model() if path is None else Path(path))
    fusion = load_fusion(prior, weights, file.card, weights_dir, where, listener)
    return Model(file, Engine.from_file(file, where, precision), fusion)


class Model:
    """A model file on a device; `avloc.load` makes one. Results do not depend on what was localized before.

    Args:
        file: weights and card.
        engine: its networks.
        fusion: object priors and weights.

    Attributes:
        name: short name of the model.
        card: what the model file says of itself.
        seconds: length of its sound window.
        rate: sample rate of the sound in Hz; 0 takes each sound's own.
        resize: how cells become pixels, one of `avloc.protocols.RESIZES`.
        protocol: the rule from cells to heat map, precision and weights of fused maps, in one line.
    """

    def __init__(self, file: ModelFile, engine: Engine, fusion: Fusion) -> None:
        self.name = file.name
        self.card: Mapping[str, Any] = file.card
        self.seconds = engine.config.seconds
        self.rate = engine.config.rate
        self.resize = fusion.resize
        own = "" if self.resize == Protocol().resize else self.resize
        self.protocol = "/".join(filter(None, (Protocol().name, own, engine.precision, fusion.label)))
        self._engine, self._fusion, self._rule = engine, fusion, VerdictRule.of_card(file.card)
        self._silence: dict[tuple[int, int], Tensor] = {}

    def __repr__(self) -> str:
        sound = f"seconds={self.seconds:g}, rate={self.rate}"
        return f"Model({self.name!r}, {sound}, device='{self._engine.device}', protocol={self.protocol!r})"

    def localize(self, frame: Frame, waveform: Waveform, rate: int) -> Result:
        """Where in the frame the sound comes from.

        Args:
            frame: [H, W, 3] uint8 RGB of NumPy; of PyTorch, on any device, also [3, H, W], and refused where it could
                be both; or a picture of Pillow, not of 32-bit numbers, turned as its EXIF says.
            waveform: [n] mono of NumPy or PyTorch, float32 or float64 in [-1, 1], or int16, which is divided by 32768.
                Its middle `seconds` are used; a shorter one is tiled.
            rate: sample rate of the waveform in Hz; another than the model's is resampled.

        Raises:
            InputError: the frame, the waveform or the rate is not as above; says which and how.
            Refused: this process was forked after a model was loaded.
        """
        return self.localize_scene(Scene(frame=frame_of(frame), sound=self._window(waveform, rate)))

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
        """Results at steady times, read one after the other: memory does not grow with the length of the video.

        Args:
            path: any video.
            every: seconds from one result to the next.
            start: first time in seconds; None is the start of the video.
            end: no result at or after this time; None is the end of the video.
            audio: a file whose sound is used in place of the video's own.
            track: which sound track, counted from 1; None is the main one.

        Raises:
            UsageError: at the call: `path` or `audio` is no file, or the times are not valid.
            InputError: at the call: one of the two is empty, or `path` has no pictures or none at these times. With a
                result: there is no sound, or a picture or the sound cannot be decoded. After the last result: the
                video breaks off.
            Refused: with the first result: this process was forked after a model was loaded.
        """
        times = Times(every=every, start=start, end=end)
        source = _there(path)
        sound = SoundSource(file=None if audio is None else _there(audio), name=f"audio {audio}", track=track)
        return self._localized(source, times, scene_times(source, times, sound), sound)

    def _localized(
        self, source: Path, times: Times, times_s: Sequence[float | None], sound: SoundSource
    ) -> Iterator[Result]:
        for scene in scenes_at(source, times_s, self, sound):
            yield self.localize_scene(scene)
        check_whole(source, times, sound)

    def localize_scene(self, scene: Scene) -> Result:
        """Where in a scene the sound comes from; its sound must be a window of the model's length and rate."""
        import torch

        check_forked(self._engine.device)
        began = time.perf_counter()
        frame, sound = scene.frame, scene.sound
        with torch.inference_mode():
            heard = self._embed(frame, sound)
            prior_maps = self._prior_maps(frame, heard)
            others = [replace(heard, audio=audio) for audio in (self._unheard(sound), self._noise(sound))]
            grids = [self._similarity(embeddings) for embeddings in (heard, *others)]
        cells = [self._fusion.cells(grid, prior_maps) for grid in grids]
        _check_finite(*cells)
        effects = [0.0, 0.0] if sound.silent else _effects(cells, self.resize)
        verdict = judge(
            self._rule,
            silent=sound.silent,
            sound_effect=effects[0],
            sound_effect_noise=effects[1],
            peak_similarity=float(grids[0].max()),
        )
        return Result(
            frame=frame,
            similarity=grids[0],
            cells=cells[0],
            resize=self.resize,
            verdict=verdict,
            sound_effect=effects[0],
            sound_effect_noise=effects[1],
            time_s=scene.time_s,
            window_s=(sound.start_s, sound.end_s),
            tiled=sound.short,
            model=self.name,
            protocol=self.protocol,
            seconds=time.perf_counter() - began,
        )

    def cells_at(self, frame: Frame, waveform: Waveform, rate: int) -> tuple[NDArray[np.float32], bool]:
        """The cells [h, w] of `localize` and whether there was nothing to hear; cheap, for many frames of a video.

        Raises:
            InputError, Refused: as `localize`.
        """
        import torch

        check_forked(self._engine.device)
        rgb, sound = frame_of(frame), self._window(waveform, rate)
        with torch.inference_mode():
            heard = self._embed(rgb, sound)
            cells = self._fusion.cells(self._similarity(heard), self._prior_maps(rgb, heard))
        _check_finite(cells)
        return cells, sound.silent

    def _window(self, waveform: Waveform, rate: int) -> SoundWindow:
        samples, rate = sound_of(waveform, rate)
        return cut_window(samples, rate, seconds=self.seconds, rate=self.rate)

    def _embed(self, frame: NDArray[np.uint8], sound: SoundWindow) -> Embeddings:
        import torch

        small = torch.from_numpy(square(frame, self._engine.config.frame).copy()).permute(2, 0, 1)[None]
        return self._engine.embed(small, torch.from_numpy(sound.waveform)[None], sound.rate)

    def _prior_maps(self, frame: NDArray[np.uint8], heard: Embeddings) -> dict[str, NDArray[np.float32]]:
        return self._fusion.prior_maps(frame, None if heard.activation is None else heard.activation[0])

    def _similarity(self, embeddings: Embeddings) -> NDArray[np.float32]:
        grid: NDArray[np.float32] = self._engine.similarity(embeddings)[0].float().cpu().numpy()
        return grid

    def _unheard(self, sound: SoundWindow) -> Tensor:
        """Silence as long as the sound, encoded once."""
        import torch

        key = (len(sound.waveform), sound.rate)
        if key not in self._silence:
            self._silence[key] = self._engine.encode_sound(torch.zeros(1, key[0]), sound.rate)
        return self._silence[key]

    def _noise(self, sound: SoundWindow) -> Tensor:
        """The same noise at all times, as loud as the sound."""
        import torch

        noise = np.random.default_rng(_NOISE_SEED).standard_normal(len(sound.waveform), np.float32)
        loudness = np.sqrt(np.mean(np.square(sound.waveform)))
        waveform = np.clip(loudness * noise, -1, 1)
        return self._engine.encode_sound(torch.from_numpy(waveform)[None], sound.rate)


def _effects(cells: list[NDArray[np.float32]], how: str) -> list[float]:
    """How far the first map lies from each other one: mean absolute difference on the square of avloc's protocol."""
    import torch

    from avloc.heatmap import heat_maps

    side = Protocol().side
    own, *others = (heat_maps(torch.from_numpy(one)[None], (side, side), how)[0] for one in cells)
    return [float((own - other).abs().mean()) for other in others]


def _check_finite(*cells: NDArray[np.float32]) -> None:
    if not all(np.isfinite(one).all() for one in cells):
        raise InputError("gets a map that is not finite from this model")


def _there(path: str | Path) -> Path:
    """A file that is there and not empty."""
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"{file} is a folder; valid: a file" if file.is_dir() else f"no such file: {file}")
    if not file.stat().st_size:
        raise InputError(f"{file} is empty (0 bytes)")
    return file
