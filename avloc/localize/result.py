"""Result of localizing one sound in one frame: heat map, peak, box, verdict, overlay."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avloc.errors import Refused
from avloc.localize.overlay import draw_overlay, draw_silent
from avloc.localize.style import HALF, Style, make_style
from avloc.localize.verdict import Judgement, Verdict
from avloc.protocols import Protocol

if TYPE_CHECKING:
    import torch

SCHEMA = "avloc.localize/3"
FIELDS = (
    *("time_s", "window_s", "tiled", "frame_hw", "peak_xy", "box_xyxy"),
    *("peak_similarity", "mean_similarity", "cohort_similarity"),
    *("silent", "sound_effect", "sound_effect_noise", "match", "verdict", "model", "protocol", "seconds"),
)
"""Keys of `Result.as_json` after the schema, in order."""
_ROUNDING = 1e-5
"""Rounding error of the resize: pixels of equal heat may differ by this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """A heat map and its measurements. Notebooks display the overlay."""

    frame: NDArray[np.uint8]
    """[H, W, 3] RGB as displayed."""
    similarity: NDArray[np.float32]
    """[h, w] cosine similarity of every image cell and the sound."""
    cells: NDArray[np.float32]
    """[h, w] the heat map before resize: the similarity map alone, or fused with an object prior."""
    resize: str = Protocol.resize
    """Resize from cells to pixels, one of `avloc.protocols.RESIZES`."""
    judgement: Judgement
    """Match and verdict, and whether the map depends on the sound; `judgement.sentence` is the text that is printed."""
    sound_effect: float
    """Mean absolute difference, in [0, 1], to the heat map of the same frame with digital silence."""
    sound_effect_noise: float
    """The same with noise of the sound's RMS."""
    cohort_similarity: float | None = None
    """Cosine that sounds and pictures of the model's cohort reach (`avloc.engine.Cohort`); None for silence and for
    models without a cohort."""
    time_s: float = 0.0
    """Time stamp of the frame in its video, in seconds."""
    window_s: tuple[float, float] = (0.0, 0.0)
    """Start and end of the sound window, in seconds on the sound's timeline."""
    tiled: bool = False
    """Whether the sound was shorter than the model's window, and repeated."""
    model: str = ""
    protocol: str = ""
    """Resize, precision and weights of the fused maps, in one line."""
    seconds: float = 0.0
    """Computing time in seconds."""

    @property
    def match(self) -> float | None:
        """Probability that the source of the sound is in the picture; None for silence and without calibration."""
        return self.judgement.match

    @property
    def verdict(self) -> Verdict | None:
        """`matches`, `unsure`, `no_match` or `silent`; None for a sound if the model has no calibration."""
        return self.judgement.verdict

    @property
    def silent(self) -> bool:
        """Whether the sound is digital silence; then the heat map is zero, and there is no peak or box."""
        return self.verdict is Verdict.SILENT

    @cached_property
    def heatmap(self) -> NDArray[np.float32]:
        """[H, W] in [0, 1]: the cells resized and min-max normalised; zeros for silence."""
        if self.silent:
            return np.zeros(self.frame.shape[:2], np.float32)
        import torch

        check_fork_safe(torch.device("cpu"))
        return heat_of(self.cells, self.resize, *self.frame.shape[:2])

    @property
    def peak_xy(self) -> list[int] | None:
        """Hottest pixel [x, y], of several the one nearest to the centre; None for silence."""
        return None if self.silent else peak_of(self.heatmap)

    @cached_property
    def box_xyxy(self) -> list[int] | None:
        """Box [x0, y0, x1, y1], half-open, of the connected region around the peak with heat >= 0.5; None for silence.

        The box of a flat map is the whole frame.
        """
        return None if self.silent else peak_and_box(self.heatmap)[1]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """[H, W]: the region that `box_xyxy` encloses; nothing for silence."""
        return np.zeros(self.heatmap.shape, np.bool_) if self.silent else peak_region(self.heatmap)

    @property
    def peak_similarity(self) -> float | None:
        """Largest cosine; None for silence."""
        return None if self.silent else float(self.similarity.max())

    @property
    def mean_similarity(self) -> float | None:
        """Mean cosine; None for silence."""
        return None if self.silent else float(self.similarity.mean())

    def overlay(self, style: Style | Mapping[str, Any] | None = None) -> NDArray[np.uint8]:
        """Draw the heat map over the frame; for silence the plain frame with a caption.

        Args:
            style: a `Style`, or a mapping of its fields to values or `--style` texts: `{"box": "on", "opacity": 0.5}`.

        Returns:
            [H, W, 3] RGB; larger than the frame if the style has a strip or legend.
        """
        if not isinstance(style, Style):
            style = make_style(style or {})
        if self.silent:
            return draw_silent(self.frame, style=style, caption=Verdict.SILENT.sentence)
        caption, box = self.judgement.caption, self.box_xyxy if style.box else None
        return draw_overlay(self.frame, self.heatmap, style=style, box_xyxy=box, peak_xy=self.peak_xy, caption=caption)

    def __repr__(self) -> str:
        line = self.as_json()
        shown = ("frame_hw", "time_s", "verdict", "peak_xy", "box_xyxy", "model")
        return f"Result({', '.join(f'{name}={line[name]!r}' for name in shown)})"

    def _repr_png_(self) -> bytes:
        from avloc.media.pictures import encode_png

        return encode_png(self.overlay())

    def as_json(self) -> dict[str, Any]:
        """Plain data of a line of `avloc localize --json`; pixel coordinates refer to the displayed frame."""
        values = {name: getattr(self, name) for name in FIELDS if name != "frame_hw"}
        values |= {"frame_hw": list(self.frame.shape[:2]), "window_s": list(self.window_s)}
        values["verdict"] = None if self.verdict is None else str(self.verdict)
        return {"schema": SCHEMA, **dict.fromkeys(FIELDS), **values}


def check_fork_safe(device: torch.device) -> None:
    """Check that PyTorch can run here: its threads and CUDA do not survive a fork, and using them would hang.

    Raises:
        Refused: a model was loaded before this process was forked, and it uses CUDA or more than one thread.
            A single-threaded CPU process, such as a DataLoader worker, is fine.
    """
    import torch

    if _first_process() != os.getpid() and (device.type != "cpu" or torch.get_num_threads() > 1):
        reason = "a model was loaded before this process was forked, and PyTorch's threads do not survive a fork"
        raise Refused(f"{reason}; valid: multiprocessing's start method spawn, or loading in the new process only")


@cache
def _first_process() -> int:
    """Id of the process that called this first; forked processes inherit the cached value."""
    return os.getpid()


def heat_of(cells: NDArray[np.float32], how: str, height: int, width: int) -> NDArray[np.float32]:
    """Cells [h, w] resized to [height, width] and min-max normalised, see `avloc.heatmap.heat_maps`."""
    import torch

    from avloc.heatmap import heat_maps

    heat: NDArray[np.float32] = heat_maps(torch.from_numpy(cells)[None], (height, width), how)[0].numpy()
    return heat


def peak_of(heat: NDArray[np.float32]) -> list[int]:
    """Hottest pixel [x, y]; of several that are equal up to rounding, the one nearest to the frame's centre.

    With half-pixel resize the heat of a border cell is constant from its centre to the edge; this selects the centre.
    """
    height, width = heat.shape
    least = heat.max() - _ROUNDING
    if heat.min() >= least:
        return [(width - 1) // 2, (height - 1) // 2]
    lines = np.flatnonzero(heat.max(axis=1) >= least)  # a few rows of many
    rows, columns = np.nonzero(heat[lines] >= least)
    rows = lines[rows]
    nearest = int((((2 * rows + 1 - height) * width) ** 2 + ((2 * columns + 1 - width) * height) ** 2).argmin())
    return [int(columns[nearest]), int(rows[nearest])]


def peak_and_box(heat: NDArray[np.float32]) -> tuple[list[int], list[int]]:
    """Hottest pixel [x, y] and the box [x0, y0, x1, y1] (half-open) of the connected region around it with heat >= 0.5.

    The box of a flat map is the whole frame.
    """
    from scipy.ndimage import find_objects

    (x, y), regions = _peak_and_regions(heat)
    rows, columns = find_objects(regions)[regions[y, x] - 1]
    return [x, y], [columns.start, rows.start, columns.stop, rows.stop]


def peak_region(heat: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[H, W]: the connected region around the hottest pixel with heat >= 0.5; of a flat map the whole frame."""
    (x, y), regions = _peak_and_regions(heat)
    region: NDArray[np.bool_] = regions == regions[y, x]
    return region


def _peak_and_regions(heat: NDArray[np.float32]) -> tuple[list[int], NDArray[np.int32]]:
    """Hottest pixel [x, y], and the number [H, W] of each pixel's connected region with heat >= 0.5, 0 outside."""
    from scipy.ndimage import label

    x, y = peak_of(heat)
    is_flat = heat[y, x] < HALF
    return [x, y], np.ones(heat.shape, np.int32) if is_flat else label(heat >= HALF)[0]
