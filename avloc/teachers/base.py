"""The interface of teachers and what they share.

How to add a teacher:

1. A file in this package with a subclass of `Teacher`, or of `SoundTeacher` if its input is the sound in the store. Its
   `build` locates the weights, a `Weight` as in `avloc.weights.catalog`.
2. An entry in `AUDIO_TEACHERS` or `VISUAL_TEACHERS` of `avloc.registry`: the name for `--teacher`, and the class.
3. The name in `MODES` of `avloc.option_rules`, with the options that apply only to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from avloc.errors import InputError, Refused
from avloc.networks.base import deterministic_inference
from avloc.progress import Listener
from avloc.registry import StoreSpec
from avloc.store import Clip, HintStamp, Store
from avloc.transforms import INT16_SCALE, MEL_RATE
from avloc.weights import Located, Weight

Network = TypeVar("Network", bound=nn.Module)
Hint = NDArray[np.float32] | None
"""A teacher's output for one clip, float32; None is "no hint"."""


@dataclass(frozen=True, kw_only=True)
class TeacherContext:
    """The store that a teacher is built for, and the options of `distill-cache` (`avloc.distill.DistillOptions`)."""

    store: Store
    device: torch.device
    find: Callable[[Weight], Located]
    """`avloc.weights.locate` with the options of the command."""
    listener: Listener
    sound: str
    normalise: bool
    confidence: float


class Teacher(ABC, Generic[Network]):
    """A frozen network that computes hints of clips.

    It runs on batches of a fixed size, the last one zero-padded: matrix products round differently for different batch
    sizes, so a hint would otherwise depend on the clips in its batch and on where a job was interrupted.

    Args:
        weights: from `avloc.weights.locate`.
        device: runs the network, in float32 unless `in_precision` selects another type.
        shape: of one hint.
        settings: everything but the weights that changes a hint.
    """

    name: str
    """Name in `avloc.registry`."""
    batch_size = 8
    precision = "fp32"
    may_lack_hint = False
    """Whether NaN stands for "no hint"; of another teacher it is an error."""

    def __init__(
        self, weights: Located, device: torch.device, *, shape: tuple[int, ...], settings: dict[str, Any]
    ) -> None:
        self.weights, self.device = weights, device
        self.stamp = HintStamp(teacher=self.name, shape=shape, weights=weights.hashes, settings=settings)

    def in_precision(self, precision: str) -> Self:
        """Compute in `fp32` or `bf16`; stamps do not name fp32, as before there was another."""
        self.precision = precision
        if precision != "fp32":
            self.stamp = replace(self.stamp, settings={**self.stamp.settings, "precision": precision})
        return self

    @classmethod
    @abstractmethod
    def build(cls, context: TeacherContext) -> Self:
        """The teacher for a store, with its weights located; errors are those of `avloc.distill.sources`."""

    @staticmethod
    @abstractmethod
    def load(path: Path, /) -> Network:
        """The pretrained network, in eval mode."""

    @cached_property
    def model(self) -> Network:
        """The network, loaded on first use."""
        return self.load(self.weights.path).to(self.device)

    @abstractmethod
    def read(self, clip: Clip) -> NDArray[Any]:
        """Decode the network's input from a clip, in a worker process; `preprocess` does the rest.

        Raises:
            InputError: the clip is unusable; the message does not name the clip.
        """

    def hints(self, inputs: Sequence[NDArray[Any] | Tensor]) -> list[Hint]:
        """Hints of the inputs that `read` returned, in order; any number; copied from the device once.

        Raises:
            Refused: a hint is not finite.
        """
        starts = range(0, len(inputs), self.batch_size)
        is_bf16 = self.precision == "bf16"
        with deterministic_inference(), torch.autocast(self.device.type, torch.bfloat16, enabled=is_bf16):
            batches = [self._predict_some(inputs[start : start + self.batch_size]) for start in starts]
            hints = torch.cat(batches).cpu().numpy() if batches else ()
        lacking = [bool(np.isnan(hint).any()) for hint in hints]
        if any(lacking) and not self.may_lack_hint:
            raise Refused(f"{self.name} computed a hint that is not finite", hint="Try --precision fp32.")
        return [None if lacks else hint for lacks, hint in zip(lacking, hints, strict=True)]

    def _predict_some(self, inputs: Sequence[NDArray[Any] | Tensor]) -> Tensor:
        read = [torch.tensor(one) if isinstance(one, np.ndarray) else one for one in inputs]
        rows = [self.preprocess(one.to(self.device, non_blocking=True)) for one in read]
        rows += [torch.zeros_like(rows[0])] * (self.batch_size - len(rows))
        return self.predict(torch.stack(rows))[: len(inputs)]

    def preprocess(self, one: Tensor) -> Tensor:
        """What `read` leaves to the device; afterwards inputs have the same shape."""
        return one

    @abstractmethod
    def predict(self, batch: Tensor) -> Tensor:
        """Hints [B, ...] of a batch of inputs, float32, NaN for "no hint"; called in inference mode, under autocast."""


class TeacherInputs(Dataset[Tensor | InputError | Refused]):
    """What a teacher reads from clips of a store; errors are returned, so that they reach the main process whole."""

    def __init__(self, teacher: Teacher[Any], store: Store, ids: Sequence[str]) -> None:
        self.teacher, self.store, self.ids = teacher, store, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Tensor | InputError | Refused:
        try:
            return torch.tensor(self.teacher.read(self.store.read(self.ids[index])))
        except (InputError, Refused) as error:
            return error


class SoundTeacher(Teacher[Network]):
    """A teacher whose input is the sound in the store; its rate and duration are among the settings.

    Raises:
        Refused: the sounds of the store are too short, or have a lower sample rate than `min_rate`.
    """

    title: str
    """Name of the network in messages."""
    rate = MEL_RATE
    """Sample rate of the network's input in Hz."""
    min_rate = MEL_RATE
    """Lowest sample rate of a store in Hz."""
    min_samples: int
    """Shortest input of the network."""

    def __init__(
        self,
        spec: StoreSpec,
        weights: Located,
        device: torch.device,
        *,
        shape: tuple[int, ...],
        settings: dict[str, Any],
    ) -> None:
        if spec.rate < self.min_rate:
            reason = f"the store holds sound at {spec.rate} Hz; {self.title} needs {self.min_rate} Hz"
            raise Refused(reason, hint=f"Prepare it again with --rate {self.min_rate}.")
        if int(spec.seconds * self.rate) < self.min_samples:
            needed = self.min_samples / self.rate
            raise Refused(f"clips of {spec.seconds} s are too short for {self.title}, which needs {needed} s")
        settings = {**settings, "rate": self.rate, "seconds": spec.seconds}
        super().__init__(weights, device, shape=shape, settings=settings)
        self.spec = spec

    def read(self, clip: Clip) -> NDArray[np.float32]:
        """The sound in the store, resampled and zero-padded: [seconds * rate] in [-1, 1]."""
        import soxr

        samples = int(self.spec.seconds * self.rate)
        stored = (clip.sound / np.float32(INT16_SCALE)).clip(-1, 1)
        resampled = soxr.resample(stored, self.spec.rate, self.rate, quality="HQ")[:samples].clip(-1, 1)
        return np.pad(resampled, (0, samples - len(resampled)))


def unit_concepts(strengths: Tensor, *, image_bias: float = 0.0, audio_bias: float = 0.0) -> Tensor:
    """Unit vectors [B, D, ...] of concept strengths [B, concepts, ...], at least 0, and the two constants."""
    constants = [torch.full_like(strengths[:, :1], value) for value in (image_bias, audio_bias)]
    return F.normalize(torch.cat([strengths, *constants], 1), dim=1)
