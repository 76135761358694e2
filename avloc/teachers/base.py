"""What a teacher is, and what several of them do alike.

A teacher says who it is (`stamp`), takes from a clip what it needs (`read`, safe in threads) and answers for many
clips at once (`hints`). Inside, its network always runs on slabs of one fixed size, the last one filled up with zeros:
matrix products round differently for different batch sizes, and so the hint of a clip would otherwise depend on its
neighbours and on where a run was interrupted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from avloc.networks.determinism import deterministic_inference
from avloc.registry import StoreSpec
from avloc.store import Clip, HintStamp
from avloc.transforms import INT16_SCALE, MEL_RATE
from avloc.weights import Located

Hint = NDArray[np.float32] | None
"""What a teacher says about one clip; None is "no hint"."""


class Teacher(Protocol):
    """A frozen network that is run once over a store."""

    name: str

    def stamp(self) -> HintStamp:
        """Who answers, with which weights and settings: everything that changes a hint."""

    def read(self, clip: Clip) -> NDArray[Any]:
        """What the network needs of one clip; same shape for every clip of a store.

        Raises:
            InputError: the clip cannot be used; the reason without the clip's name.
        """

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """The hints of what `read` returned for some clips, in their order, whatever their number."""


def in_slabs(batch: Sequence[NDArray[Any]], size: int, ask: Callable[[NDArray[Any]], list[Hint]]) -> list[Hint]:
    """The hints of some clips, asked for `size` at a time."""
    hints: list[Hint] = []
    with deterministic_inference():
        for start in range(0, len(batch), size):
            rows = batch[start : start + size]
            slab = np.zeros((size, *rows[0].shape), rows[0].dtype)
            slab[: len(rows)] = rows
            hints += ask(slab)[: len(rows)]
    return hints


def stored_sound(clip: Clip, spec: StoreSpec, rate: int) -> NDArray[np.float32]:
    """The sound in the store, resampled: [seconds * rate] in [-1, 1], filled up with zeros if a sample is lacking."""
    samples = int(spec.seconds * rate)
    stored = (clip.sound / np.float32(INT16_SCALE)).clip(-1, 1)
    heard = soxr.resample(stored, spec.rate, rate, quality="HQ")[:samples].clip(-1, 1)
    return np.pad(heard, (0, samples - len(heard)))


def unit_concepts(strengths: Tensor, *, seen: float = 0.0, heard: float = 0.0) -> Tensor:
    """Strengths of concepts [B, concepts, ...] and the constants of nothing after them, at length 1: [B, D, ...].

    Args:
        strengths: at least 0.
        seen: the constant of a picture; 0 in a sound.
        heard: the constant of a sound; 0 in a picture.
    """
    constants = [torch.full_like(strengths[:, :1], value) for value in (seen, heard)]
    return F.normalize(torch.cat([strengths, *constants], 1), dim=1)


class StoredSoundTeacher(ABC):
    """A teacher that hears the sound in the store, brought to 16 kHz.

    Args:
        spec: of the store that is heard.
        weights: the network's, from `avloc.weights.locate`.
        device: where the network runs; float32 throughout.
    """

    slab = 8

    def __init__(self, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        self.spec, self.weights, self.device = spec, weights, device

    def read(self, clip: Clip) -> NDArray[np.float32]:
        """The clip's sound in the store, [seconds * 16000] in [-1, 1]."""
        return stored_sound(clip, self.spec, MEL_RATE)

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """Vectors of length 1, or none."""
        return in_slabs(batch, self.slab, lambda slab: self.heard(torch.from_numpy(slab).to(self.device)))

    @abstractmethod
    def heard(self, sound_BN: Tensor) -> list[Hint]:
        """The hints of a slab of waveforms."""
