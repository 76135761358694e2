"""Inputs through the model, one after the other, and the results to where they belong."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avloc.errors import InputError, UsageError
from avloc.events import Listener, Notice, Progress, silent
from avloc.files import atomic_path
from avloc.localize.overlay import SILENT_CAPTION, draw_caption, draw_overlay
from avloc.media import PICTURE_SUFFIXES, SoundWindow, decode_picture, read_moment, read_sound
from avloc.protocols import Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from avloc.checkpoint import ModelFile
    from avloc.engine import Engine

SCHEMA = "avloc.localize/1"
STDIN = "-"
OUTPUT_SUFFIXES = (".png", ".npy")
_SPOOL_BYTES = 64 << 20
_HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class LocalizeOptions:
    """What to localize, with what, and where to put it."""

    inputs: tuple[str, ...]
    """Paths; `-` is standard input."""
    audio: Path | None = None
    """Sound for a single picture."""
    model: Path | None = None
    out: str = ""
    """As the user typed it: a trailing slash means a folder."""
    pictures: bool = True
    """False: no picture is written where `out` is empty."""
    device: str = "auto"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        Protocol(precision=self.precision)


@dataclass(frozen=True, kw_only=True)
class Localization:
    """What was found in one input, or why nothing could be."""

    input: str
    error: str = ""
    time_s: float = 0.0
    frame: NDArray[np.uint8] | None = None
    """[H, W, 3] as shown."""
    heat: NDArray[np.float32] | None = None
    """[H, W] in [0, 1]; all zeros for silence."""
    similarity: NDArray[np.float32] | None = None
    """[h, w] cosines."""
    silent: bool = False
    sound_effect: float = 0.0
    """Mean absolute difference, in [0, 1], to the heat map the same picture gets with digital silence."""
    model: str = ""
    protocol: str = ""
    written: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """One line of `--json`; pixels are those of the shown frame."""
        line: dict[str, Any] = {"schema": SCHEMA, "input": self.input, "model": self.model, "protocol": self.protocol}
        line |= {"error": self.error or None, "time_s": None, "frame_hw": None, "peak_xy": None, "box_xyxy": None}
        line |= {"peak_similarity": None, "mean_similarity": None, "silent": None, "sound_effect": None}
        if self.heat is None or self.similarity is None:
            return line
        line |= {"time_s": self.time_s, "frame_hw": list(self.heat.shape), "silent": self.silent}
        line |= {"sound_effect": self.sound_effect}
        if not self.silent:
            peak_xy, box_xyxy = peak_and_box(self.heat)
            line |= {"peak_xy": peak_xy, "box_xyxy": box_xyxy}
            line |= {"peak_similarity": float(self.similarity.max())}
            line |= {"mean_similarity": float(self.similarity.mean())}
        return line


def peak_and_box(heat: NDArray[np.float32]) -> tuple[list[int], list[int]]:
    """Hottest pixel [x, y] and the box [x0, y0, x1, y1] (half-open) of the connected region around it with heat >= 0.5.

    A flat map has no region: its box is the whole frame.
    """
    from scipy.ndimage import find_objects, label

    y, x = (int(i) for i in np.unravel_index(heat.argmax(), heat.shape))
    if heat[y, x] < _HALF:
        return [x, y], [0, 0, heat.shape[1], heat.shape[0]]
    regions, _ = label(heat >= _HALF)
    rows, columns = find_objects(regions)[regions[y, x] - 1]
    return [x, y], [columns.start, rows.start, columns.stop, rows.stop]


def plan_outputs(inputs: Sequence[str], out: str, *, pictures: bool = True) -> list[Path | None]:
    """Where each input's result goes; None for nowhere.

    A file by its ending; a trailing slash, an existing folder or several inputs mean a folder with `<stem>.png` each, a
    second equal stem getting `-2`; nothing given means `<stem>.heat.png` here.

    Raises:
        UsageError: several inputs with one file name, an ending we do not write, or a folder that does not exist.
    """
    if not out:
        return [*_unique_names(inputs, Path(), ".heat.png")] if pictures else [None] * len(inputs)
    target = Path(out)
    if out.endswith("/") or target.is_dir() or (len(inputs) > 1 and not target.suffix):
        if target.exists() and not target.is_dir():
            raise UsageError(f"--out {out} is a file; valid: a folder, new or there already")
        return [*_unique_names(inputs, target, ".png")]
    if len(inputs) > 1:
        raise UsageError(
            f"--out {out} is one file for {len(inputs)} inputs; valid: a folder, as in --out {target.stem}/"
        )
    if target.suffix.lower() not in OUTPUT_SUFFIXES:
        raise UsageError(f"--out {out}: unknown ending; valid: {', '.join(OUTPUT_SUFFIXES)}, or a folder with a slash")
    if not target.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {target.parent} does not exist")
    return [target]


def _stem(name: str) -> str:
    return "stdin" if name == STDIN else Path(name).stem


def _unique_names(inputs: Sequence[str], folder: Path, ending: str) -> list[Path]:
    taken: dict[str, None] = {}
    for stem in map(_stem, inputs):
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken[name] = None
    return [folder / f"{name}{ending}" for name in taken]


def localize(options: LocalizeOptions, listener: Listener = silent) -> Iterator[Localization]:
    """Localize every input in turn; an input that fails yields its reason, and the rest goes on.

    Raises:
        UsageError: a path does not exist, or the outputs cannot be meant.
        WeightsError: the model cannot be read.
    """
    outputs = plan_outputs(options.inputs, options.out, pictures=options.pictures)
    _check_inputs(options, outputs)
    from avloc.checkpoint import default_model, load_model
    from avloc.engine import Engine, pick_device

    model = load_model(options.model or default_model())
    if model.card.get("placeholder"):
        listener(
            Notice("this model is a placeholder trained on coloured shapes: its maps mean nothing on real pictures")
        )
    engine = Engine.from_file(model, pick_device(options.device), options.precision)
    for done, (name, path) in enumerate(zip(options.inputs, outputs, strict=True)):
        try:
            result = _localize_one(engine, model, name, options, listener)
        except InputError as error:
            result = Localization(input=name, error=str(error), model=model.name, protocol=_protocol(options))
        if path is not None and result.heat is not None:
            write_result(path, result)
            result = Localization(**{**vars(result), "written": path})
        yield result
        listener(Progress(task="localizing", done=done + 1, total=len(options.inputs)))


def _protocol(options: LocalizeOptions) -> str:
    return f"{Protocol().name}/{options.precision}"


def _check_inputs(options: LocalizeOptions, outputs: Sequence[Path | None]) -> None:
    for name in options.inputs:
        if name != STDIN and not Path(name).is_file():
            raise UsageError(f"no such file: {name}")
    if options.inputs.count(STDIN) > 1:
        raise UsageError("standard input (-) can be read once")
    if options.audio is not None:
        if len(options.inputs) != 1:
            raise UsageError(f"--audio goes with one picture, not with {len(options.inputs)} inputs")
        if not options.audio.is_file():
            raise UsageError(f"--audio: no such file: {options.audio}")
    sources = [Path(name) for name in options.inputs if name != STDIN]
    overwritten = {path.resolve() for path in outputs if path} & {path.resolve() for path in sources}
    if overwritten:
        raise UsageError(f"--out {options.out} would overwrite the input {min(overwritten)}; valid: another folder")


def _localize_one(
    engine: Engine, model: ModelFile, name: str, options: LocalizeOptions, listener: Listener
) -> Localization:
    frame, sound, time_s = _read(name, options.audio, engine.config.seconds, engine.config.rate)
    if sound.source_rate < sound.rate:
        listener(Notice(f"{name}: sampled at {sound.source_rate} Hz; the model hears {sound.rate} Hz"))
    heat, similarity, effect = _heat(engine, frame, sound)
    return Localization(
        input=name,
        time_s=time_s,
        frame=frame,
        heat=heat,
        similarity=similarity,
        silent=sound.silent,
        sound_effect=effect,
        model=model.name,
        protocol=_protocol(options),
    )


def _read(name: str, audio: Path | None, seconds: float, rate: int) -> tuple[NDArray[np.uint8], SoundWindow, float]:
    if audio is not None:
        frame = decode_picture(_standard_input().read() if name == STDIN else _file_bytes(Path(name)))
        return frame, read_sound(audio, seconds=seconds, rate=rate), 0.0
    if Path(name).suffix.lower() in PICTURE_SUFFIXES:
        raise InputError("a picture has no sound; give it one with --audio")
    moment = read_moment(_standard_input() if name == STDIN else Path(name), seconds=seconds, rate=rate)
    return moment.picture, moment.sound, moment.time_s


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(str(error)) from error


def _standard_input() -> BinaryIO:
    """Standard input as a seekable file: decoders jump about. Long streams go to disk."""
    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 (the caller reads on)
    while block := sys.stdin.buffer.read(1 << 20):
        spool.write(block)
    spool.seek(0)
    return spool  # type: ignore[return-value]


def _heat(
    engine: Engine, frame: NDArray[np.uint8], sound: SoundWindow
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Heat map of the frame, similarity grid, and how far silence would move the map."""
    import torch

    from avloc.dataset import square
    from avloc.heatmap import heat_maps
    from avloc.methods import Embeddings

    small = torch.from_numpy(square(frame, engine.config.frame).copy()).permute(2, 0, 1)[None]
    wave = torch.from_numpy(sound.waveform)[None]
    with torch.inference_mode():
        heard = engine.embed(small, wave, sound.rate)
        unheard = Embeddings(heard.image, engine.encode_sound(torch.zeros_like(wave), sound.rate))
        grids: Tensor = torch.cat([engine.similarity(heard), engine.similarity(unheard)]).cpu()
        heat, heat_unheard = heat_maps(grids, (frame.shape[0], frame.shape[1]))
    if sound.silent:
        return np.zeros(frame.shape[:2], np.float32), grids[0].numpy(), 0.0
    return heat.numpy(), grids[0].numpy(), float((heat - heat_unheard).abs().mean())


def write_result(path: Path, result: Localization) -> None:
    """Write the overlay or the array, by the ending of `path`, atomically."""
    assert result.heat is not None
    assert result.frame is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        if path.suffix.lower() == ".npy":
            buffer = io.BytesIO()
            np.save(buffer, result.heat)
            part.write_bytes(buffer.getvalue())
            return
        picture = (
            draw_caption(result.frame, SILENT_CAPTION) if result.silent else draw_overlay(result.frame, result.heat)
        )
        Image.fromarray(picture).save(part, format="PNG")
