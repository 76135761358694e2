"""Heat at any time of a video, out of maps that a model makes now and then, in a thread beside whoever draws them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from avloc.media import SoundWindow

AHEAD = 1
"""So many maps are in the making beyond the one that is needed next: then the model never waits for who draws."""


class Mapper(Protocol):
    """What turns a picture and a sound into a similarity map."""

    seconds: float
    """How much sound it hears."""
    rate: int
    """At how many samples per second; 0 is the file's own rate."""
    resize: str
    """How its cells become pixels, one of `avloc.protocols.RESIZES`."""

    def cells_at(
        self, frame: NDArray[np.uint8], waveform: NDArray[np.float32], rate: int
    ) -> tuple[NDArray[np.float32], bool]:
        """Map [h, w] of the frame [H, W, 3] heard with the waveform [N] mono at `rate`; whether that is silence."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Asking:
    """What is seen and heard at one time."""

    time_s: float
    picture: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    sound: SoundWindow


@dataclass(frozen=True, kw_only=True, eq=False)
class _Map:
    """What the model said at one time."""

    time_s: float
    heat: NDArray[np.float32] | None
    """[H, W] in [0, 1]; None for silence."""


class Interpolated:
    """Heat at any time, from maps that are made as time goes on; needs to be closed.

    Args:
        askings: what is seen and heard at rising times, at least one; drawn from by whoever asks for heat.
        mapper: the model; asked in one thread, one after the other.
        told: hears how many maps are done.
    """

    def __init__(self, askings: Iterator[Asking], mapper: Mapper, told: Callable[[int], None]) -> None:
        self._askings, self._mapper, self._told = askings, mapper, told
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="avloc-maps")
        self._coming: deque[Future[_Map]] = deque()
        self.asked = 0
        """How many maps were made and taken."""
        self._before: _Map | None = None
        self._after: _Map | None = None

    def close(self) -> None:
        """Let the map in the making be finished, and begin no other."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def at(self, time_s: float) -> tuple[NDArray[np.float32] | None, float]:
        """Heat [H, W] at a time not before the last one asked for, and how much of it is left on the way to silence.

        None and 0 where silence is nearer than sound.
        """
        if self._before is None:
            self._before, self._after = self._fetched(), self._fetched()
        while self._after is not None and self._after.time_s <= time_s:
            self._before, self._after = self._after, self._fetched()
        before, after = self._before, self._after
        assert before is not None
        if after is None:
            return before.heat, float(before.heat is not None)
        share = max(0.0, (time_s - before.time_s) / (after.time_s - before.time_s))
        if before.heat is None or after.heat is None:
            heat, nearness = (after.heat, share) if before.heat is None else (before.heat, 1 - share)
            left = max(0.0, 2 * nearness - 1)
            return (heat, left) if heat is not None and left else (None, 0.0)
        return before.heat + np.float32(share) * (after.heat - before.heat), 1.0

    def _fetched(self) -> _Map | None:
        while len(self._coming) <= AHEAD and (asking := next(self._askings, None)) is not None:
            self._coming.append(self._pool.submit(_map_of, asking, self._mapper))
        if not self._coming:
            return None
        fetched = self._coming.popleft().result()
        self.asked += 1
        self._told(self.asked)
        return fetched


def _map_of(asking: Asking, mapper: Mapper) -> _Map:
    import torch

    from avloc.heatmap import heat_maps

    cells, is_silent = mapper.cells_at(asking.picture, asking.sound.waveform, asking.sound.rate)
    if is_silent:
        return _Map(time_s=asking.time_s, heat=None)
    size = (asking.picture.shape[0], asking.picture.shape[1])
    heat: NDArray[np.float32] = heat_maps(torch.from_numpy(cells)[None], size, mapper.resize)[0].numpy()
    return _Map(time_s=asking.time_s, heat=heat)
