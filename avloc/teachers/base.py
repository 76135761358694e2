"""Interface of teachers, and their shared parts.

Networks run on batches of a fixed size, the last one zero-padded: matrix products round differently for different batch
sizes, so a hint would otherwise depend on the clips in its batch and on where a job was interrupted.
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
"""A teacher's output for one clip, float32; None is "no hint"."""


class Teacher(Protocol):
    """A frozen network that computes hints of clips."""

    name: str

    def stamp(self) -> HintStamp:
        """Name, weights and settings: everything that changes a hint."""

    def read(self, clip: Clip) -> NDArray[Any]:
        """Decode the network's input from a clip, of the same shape for all clips of a store. Thread-safe.

        Raises:
            InputError: the clip is unusable; the message does not name the clip.
        """

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """Hints of the inputs that `read` returned, in order; any number."""


def in_fixed_batches(
    inputs: Sequence[NDArray[Any]], size: int, predict: Callable[[NDArray[Any]], list[Hint]]
) -> list[Hint]:
    """Hints of inputs, computed in zero-padded batches of exactly `size`."""
    hints: list[Hint] = []
    with deterministic_inference():
        for start in range(0, len(inputs), size):
            rows = inputs[start : start + size]
            batch = np.zeros((size, *rows[0].shape), rows[0].dtype)
            batch[: len(rows)] = rows
            hints += predict(batch)[: len(rows)]
    return hints


def stored_sound(clip: Clip, spec: StoreSpec, rate: int) -> NDArray[np.float32]:
    """The sound in the store, resampled and zero-padded: [seconds * rate] in [-1, 1]."""
    samples = int(spec.seconds * rate)
    stored = (clip.sound / np.float32(INT16_SCALE)).clip(-1, 1)
    resampled = soxr.resample(stored, spec.rate, rate, quality="HQ")[:samples].clip(-1, 1)
    return np.pad(resampled, (0, samples - len(resampled)))


def unit_concepts(strengths: Tensor, *, image_bias: float = 0.0, audio_bias: float = 0.0) -> Tensor:
    """Unit vectors [B, D, ...] of concept strengths and the two "nothing" components.

    Args:
        strengths: [B, concepts, ...], at least 0.
        image_bias: "nothing" component of images; 0 for sounds.
        audio_bias: "nothing" component of sounds; 0 for images.
    """
    constants = [torch.full_like(strengths[:, :1], value) for value in (image_bias, audio_bias)]
    return F.normalize(torch.cat([strengths, *constants], 1), dim=1)


class StoredSoundTeacher(ABC):
    """A teacher whose input is the sound in the store, resampled to 16 kHz.

    Args:
        spec: of the store.
        weights: from `avloc.weights.locate`.
        device: runs the network, in float32.
    """

    batch_size = 8

    def __init__(self, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        self.spec, self.weights, self.device = spec, weights, device

    def read(self, clip: Clip) -> NDArray[np.float32]:
        """The waveform [seconds * 16000] in [-1, 1]."""
        return stored_sound(clip, self.spec, MEL_RATE)

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """See the class."""
        return in_fixed_batches(batch, self.batch_size, lambda x: self.predict(torch.from_numpy(x).to(self.device)))

    @abstractmethod
    def predict(self, sound_BN: Tensor) -> list[Hint]:
        """Hints of a batch of waveforms [B, N]."""
