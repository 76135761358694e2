"""Outputs of a run's frozen backbones for pictures and sounds, computed once and kept on disk in half precision.

Shape letters: B batch, N samples, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn

from avloc.checkpoint import ModelFile
from avloc.engine import Engine
from avloc.engine.core import pick_precision
from avloc.files import read_input, read_json_object, write_json
from avloc.media.audio import cut_window
from avloc.media.pictures import decode_picture, square
from avloc.networks import lite0, yamnet
from avloc.networks.base import Backbone, fold_batch_norms
from avloc.transforms import normalise_frames
from tests.recipe.sounds import RATE, Waveform

IMAGE_WIDTH = lite0.WIDTH + lite0.CLASSES
AUDIO_WIDTH = yamnet.WIDTH + yamnet.CLASSES
GRID, POOLED = 14, 7
"""Cells in a row of the image backbone's output, and of its averages."""
CELLS, POOLED_CELLS = GRID**2, POOLED**2
BATCH = 8
_RECORDED_EVERY = 32
"""Batches after which a stopped run need not compute again."""
RECORD = "names.json"

Shapes = Mapping[str, tuple[int, ...]]
Computed = Mapping[str, Tensor]


class Networks:
    """The backbones of a run, frozen.

    `precision` is that of the image backbone: `fp32`, `bf16`, or `auto` as in `avloc train`.
    """

    def __init__(self, run: ModelFile, precision: str = "auto") -> None:
        device = torch.device("cpu")
        self._engine = Engine.from_file(run, device)
        fold_batch_norms(self._engine.model)
        self._autocasts = pick_precision(precision, device) == "bf16"

    @torch.inference_mode()
    def image(self, frames: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Features and class scores of RGB pictures [H, W, 3] of any size: [B, 196, 2280] float32."""
        squares = np.stack([square(frame, self._engine.config.frame) for frame in frames])
        inputs = normalise_frames(torch.from_numpy(squares).permute(0, 3, 1, 2))
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocasts):
            out = self._backbone("imgnet")(inputs.contiguous(memory_format=torch.channels_last))
        return out.concatenated().float().flatten(2).transpose(1, 2)

    @torch.inference_mode()
    def audio(self, sounds: Sequence[Waveform]) -> Tensor:
        """Features and class scores of the middle 3 s of sounds [N] at 22 050 Hz: [B, 1545] float32."""
        config = self._engine.config
        windows = [cut_window(sound, RATE, seconds=config.seconds, rate=config.rate).waveform for sound in sounds]
        spectrogram = self._engine.spectrogram(torch.from_numpy(np.stack(windows)), config.rate)
        return self._backbone("audnet")(spectrogram).concatenated().amax((2, 3)).float()

    def _backbone(self, name: str) -> nn.Module:
        backbone = getattr(self._engine.model, name)
        assert isinstance(backbone, Backbone)
        return backbone


def picture(path: Path) -> NDArray[np.uint8]:
    """RGB [H, W, 3]."""
    return decode_picture(read_input(path))


def pooled(cells: Tensor) -> Tensor:
    """[B, 196, C] -> [B, 49, C]: means of 2x2 cells."""
    return F.avg_pool2d(cells.transpose(1, 2).unflatten(2, (GRID, GRID)), GRID // POOLED).flatten(2).transpose(1, 2)


def probabilities(sounds: Tensor) -> Tensor:
    """[..., 1545] -> [..., 521]: of the classes of AudioSet; 0 below 0.7 %, where the class scores are 0."""
    scores = sounds[..., yamnet.WIDTH :].float()
    return torch.where(scores > 0, torch.sigmoid(scores - yamnet.CLASS_OFFSET), 0.0)


@dataclass(frozen=True)
class Cache:
    """A folder of features of one run.

    FOLDER/SET/names.json has the run, the names and how many of them are computed; FOLDER/SET/ARRAY.npy the arrays.
    """

    folder: Path
    run: str
    """SHA-256 of the run's model file."""

    def read(
        self, name: str, names: Sequence[str], shapes: Shapes, compute: Callable[[range], Computed]
    ) -> dict[str, Tensor]:
        """The arrays of one set, float16, mapped from disk. What a stopped run has not computed is computed first.

        Arrays of another run, of other names or of other shapes are replaced.

        Args:
            name: of the set.
            names: of the entries, in their order.
            shapes: array -> shape. Its first length is that of `names`, or smaller for an array of the first names.
            compute: from consecutive indices into `names` to the rows of every array.
        """
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        about = {"run": self.run, "names": list(names), "shapes": {key: list(shape) for key, shape in shapes.items()}}
        done = _done(folder / RECORD, about)
        if not done:
            (folder / RECORD).unlink(missing_ok=True)  # before the arrays that it describes
        arrays = {
            key: open_memmap(folder / f"{key}.npy", "r+" if done else "w+", np.float16, shape)
            for key, shape in shapes.items()
            if shape[0]
        }
        for first in range(done, len(names), BATCH):
            rows = range(first, min(first + BATCH, len(names)))
            for key, values in compute(rows).items():
                part = arrays[key][rows.start : rows.stop] if key in arrays else ()
                if len(part):  # an array of the first names may end before or in these rows
                    part[:] = values[: len(part)].half().numpy()
            if rows.stop == len(names) or first // BATCH % _RECORDED_EVERY == 0:
                for array in arrays.values():
                    array.flush()
                write_json(folder / RECORD, {**about, "done": rows.stop})
        return {key: _mapped(folder / f"{key}.npy", shape) for key, shape in shapes.items()}


def _done(record: Path, about: Mapping[str, object]) -> int:
    """How many entries of a set have been computed."""
    if not record.is_file():
        return 0
    there = read_json_object(record)
    done = int(there.pop("done"))
    return done if there == about else 0


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    if not shape[0]:
        return torch.zeros(shape, dtype=torch.float16)
    return torch.from_numpy(np.load(path, mmap_mode="c"))
