"""What a model found in one picture with one sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avloc.localize.verdict import Verdict
from avloc.protocols import Protocol

if TYPE_CHECKING:
    from avloc.localize.style import Style

SCHEMA = "avloc.localize/2"
FIELDS = (
    *("time_s", "window_s", "tiled", "frame_hw", "peak_xy", "box_xyxy", "peak_similarity", "mean_similarity"),
    *("silent", "sound_effect", "sound_effect_noise", "verdict", "model", "protocol", "seconds"),
)
"""What `Result.as_json` says beside the schema, in this order."""
_HALF = 0.5
_ROUNDING = 1e-5
"""Heat by which pixels of the same value may differ after resizing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """A heat map and everything that is known about it. In a notebook it shows itself as its overlay."""

    frame: NDArray[np.uint8]
    """[H, W, 3] RGB as shown."""
    similarity: NDArray[np.float32]
    """[h, w] cosines of the picture's cells with the sound."""
    cells: NDArray[np.float32]
    """[h, w] what the heat map is made of: the similarity alone, or fused with an object prior."""
    resize: str = Protocol.resize
    """How the cells become pixels, one of `avloc.protocols.RESIZES`."""
    verdict: Verdict
    """`follows`, `unmatched`, `ignores` or `silent`; `verdict.sentence` says it in words."""
    sound_effect: float
    """Mean absolute difference, in [0, 1], to the heat map that the same picture gets with digital silence."""
    sound_effect_noise: float
    """The same with noise as loud as the sound."""
    time_s: float = 0.0
    """When the frame appears in its video, in seconds."""
    window_s: tuple[float, float] = (0.0, 0.0)
    """Start and end of the sound that was used, in seconds of its own timeline."""
    tiled: bool = False
    """That sound is shorter than the model's window and was repeated to fill it."""
    model: str = ""
    """Name of the model."""
    protocol: str = ""
    """The rule from cells to heat map, the precision and, where maps were fused, their weights."""
    seconds: float = 0.0
    """How long the model took, in seconds."""

    @property
    def silent(self) -> bool:
        """Whether there was nothing to hear; the heat map is zero then, and there is no peak and no box."""
        return self.verdict is Verdict.SILENT

    @cached_property
    def heatmap(self) -> NDArray[np.float32]:
        """[H, W] in [0, 1], straight from the cells; all zeros for silence."""
        if self.silent:
            return np.zeros(self.frame.shape[:2], np.float32)
        import torch

        from avloc.heatmap import heat_maps
        from avloc.localize.forks import check_forked

        check_forked(torch.device("cpu"))

        size = (self.frame.shape[0], self.frame.shape[1])
        heat: NDArray[np.float32] = heat_maps(torch.from_numpy(self.cells)[None], size, self.resize)[0].numpy()
        return heat

    @property
    def peak_xy(self) -> list[int] | None:
        """Hottest pixel [x, y], the one nearest to the middle if there are several; None for silence."""
        return None if self.silent else peak_of(self.heatmap)

    @property
    def box_xyxy(self) -> list[int] | None:
        """Box [x0, y0, x1, y1], half-open, of the connected region around the peak with heat >= 0.5; None for silence.

        A flat map has no region: its box is the whole frame.
        """
        return None if self.silent else self._box

    @property
    def peak_similarity(self) -> float | None:
        """Largest cosine; None for silence."""
        return None if self.silent else float(self.similarity.max())

    @property
    def mean_similarity(self) -> float | None:
        """Mean cosine; None for silence."""
        return None if self.silent else float(self.similarity.mean())

    @cached_property
    def _box(self) -> list[int]:
        return peak_and_box(self.heatmap)[1]

    def overlay(self, style: Style | Mapping[str, Any] | None = None) -> NDArray[np.uint8]:
        """The heat map drawn over the frame, or the plain frame with a caption for silence.

        Args:
            style: colours, opacity, box and so on: a `Style`, or a mapping of its keys to values of Python or texts as
                `--style` takes them: `{"box": "on", "opacity": 0.5}`.

        Returns:
            [H, W, 3] RGB; larger than the frame where the style adds to it.
        """
        from avloc.localize.overlay import draw_overlay, draw_silent
        from avloc.localize.style import Style, style_of

        if not isinstance(style, Style):
            style = style_of(style or {})
        if self.silent:
            return draw_silent(self.frame, style=style, caption=self.verdict.sentence)
        caption = "" if self.verdict is Verdict.FOLLOWS else self.verdict.sentence
        box = self.box_xyxy if style.box else None
        return draw_overlay(self.frame, self.heatmap, style=style, box_xyxy=box, peak_xy=self.peak_xy, caption=caption)

    def __repr__(self) -> str:
        line = self.as_json()
        shown = ("frame_hw", "time_s", "verdict", "peak_xy", "box_xyxy", "model")
        return f"Result({', '.join(f'{name}={line[name]!r}' for name in shown)})"

    def _repr_png_(self) -> bytes:
        from avloc.media import encode_png

        return encode_png(self.overlay())

    def as_json(self) -> dict[str, Any]:
        """What a line of `avloc localize --json` says, as plain values; pixels are those of the shown frame."""
        values = {name: getattr(self, name) for name in FIELDS if name != "frame_hw"}
        values |= {"window_s": list(self.window_s), "frame_hw": list(self.frame.shape[:2])}
        values |= {"verdict": str(self.verdict)}
        return {"schema": SCHEMA, **{name: values[name] for name in FIELDS}}


def peak_of(heat: NDArray[np.float32]) -> list[int]:
    """Hottest pixel [x, y]; of several that are equal up to rounding, the one nearest to the picture's middle.

    Where cells are areas, one on the border is as hot from its centre to the edge: its centre is meant.
    """
    height, width = heat.shape
    least = heat.max() - _ROUNDING
    if heat.min() >= least:
        return [(width - 1) // 2, (height - 1) // 2]
    lines = np.flatnonzero(heat.max(axis=1) >= least)  # few, where a map at the size of its frame has many
    rows, columns = np.nonzero(heat[lines] >= least)
    rows = lines[rows]
    nearest = int((((2 * rows + 1 - height) * width) ** 2 + ((2 * columns + 1 - width) * height) ** 2).argmin())
    return [int(columns[nearest]), int(rows[nearest])]


def peak_and_box(heat: NDArray[np.float32]) -> tuple[list[int], list[int]]:
    """Hottest pixel [x, y] and the box [x0, y0, x1, y1] (half-open) of the connected region around it with heat >= 0.5.

    A flat map has no region: its box is the whole frame.
    """
    x, y = peak_of(heat)
    if heat[y, x] < _HALF:
        return [x, y], [0, 0, heat.shape[1], heat.shape[0]]
    from scipy.ndimage import find_objects, label

    regions, _ = label(heat >= _HALF)
    rows, columns = find_objects(regions)[regions[y, x] - 1]
    return [x, y], [columns.start, rows.start, columns.stop, rows.stop]
