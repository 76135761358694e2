"""Heat maps at any time of a video, interpolated between maps that a model computes in a background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from avloc.media.audio import SoundWindow

PREFETCHED_MAPS = 1
"""Maps computed beyond the one needed next, so that the model never waits for drawing."""


class Mapper(Protocol):
    """A model that computes the cells of a heat map, such as `avloc.localize.Model`."""

    seconds: float
    """Length of its sound window."""
    rate: int
    """Sample rate of its sound in Hz; 0 is the file's own rate."""
    resize: str
    """Resize from cells to pixels, one of `avloc.protocols.RESIZES`."""

    def cells_at(
        self, frame: NDArray[np.uint8], waveform: NDArray[np.float32], rate: int
    ) -> tuple[NDArray[np.float32], bool]:
        """Cells [h, w] for a frame [H, W, 3] and a mono waveform [N] at `rate` Hz; whether the waveform is silent."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class MapRequest:
    """Frame and sound window of one map."""

    time_s: float
    frame: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    sound: SoundWindow


@dataclass(frozen=True, kw_only=True, eq=False)
class _TimedHeat:
    time_s: float
    heat: NDArray[np.float32] | None
    """[H, W] in [0, 1]; None for silence."""


class HeatInterpolator:
    """Linear interpolation between heat maps computed one step ahead; must be closed.

    Args:
        requests: in ascending order of time, at least one; consumed in the caller's thread.
        mapper: the model; runs in one background thread.
        on_map: called with the number of maps done.
    """

    def __init__(self, requests: Iterator[MapRequest], mapper: Mapper, on_map: Callable[[int], None]) -> None:
        self._requests, self._mapper, self._on_map = requests, mapper, on_map
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="avloc-maps")
        self._pending: deque[Future[_TimedHeat]] = deque()
        self.count = 0
        """Number of maps used so far."""
        self._before: _TimedHeat | None = None
        self._after: _TimedHeat | None = None

    def close(self) -> None:
        """Wait for the running computation and cancel the others."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def at(self, time_s: float) -> tuple[NDArray[np.float32] | None, float]:
        """Heat [H, W] at a time and its opacity in [0, 1], which falls linearly towards silence.

        Times must not decrease from call to call. Returns None and 0 where silence is nearer than sound.
        """
        if self._before is None:
            self._before, self._after = self._next(), self._next()
        while self._after is not None and self._after.time_s <= time_s:
            self._before, self._after = self._after, self._next()
        before, after = self._before, self._after
        assert before is not None
        if after is None:
            return before.heat, float(before.heat is not None)
        share = max(0.0, (time_s - before.time_s) / (after.time_s - before.time_s))
        if before.heat is None or after.heat is None:
            heat, nearness = (after.heat, share) if before.heat is None else (before.heat, 1 - share)
            opacity = max(0.0, 2 * nearness - 1)
            return (heat, opacity) if heat is not None and opacity else (None, 0.0)
        return before.heat + np.float32(share) * (after.heat - before.heat), 1.0

    def _next(self) -> _TimedHeat | None:
        while len(self._pending) <= PREFETCHED_MAPS and (request := next(self._requests, None)) is not None:
            self._pending.append(self._pool.submit(_compute_heat, request, self._mapper))
        if not self._pending:
            return None
        computed = self._pending.popleft().result()
        self.count += 1
        self._on_map(self.count)
        return computed


def _compute_heat(request: MapRequest, mapper: Mapper) -> _TimedHeat:
    import torch

    from avloc.heatmap import heat_maps

    cells, is_silent = mapper.cells_at(request.frame, request.sound.waveform, request.sound.rate)
    if is_silent:
        return _TimedHeat(time_s=request.time_s, heat=None)
    size = (request.frame.shape[0], request.frame.shape[1])
    heat: NDArray[np.float32] = heat_maps(torch.from_numpy(cells)[None], size, mapper.resize)[0].numpy()
    return _TimedHeat(time_s=request.time_s, heat=heat)
