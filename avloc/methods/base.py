"""What the engine asks of a published method, whichever it is.

Shape letters: B batch, D common space, N samples, H W pixels, h w cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from avloc.config import LossWeights, ModelConfig
from avloc.distributed import ALONE, Peers
from avloc.errors import UsageError


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors of a batch: `image` [B, D, h, w] per cell, `audio` [B, D].

    `activation` [B, h, w] is the mean absolute activation of the features that the vision trunk sees (those of its
    published end, if it has one), float32 and without gradients: it says where objects are, whatever is heard. None
    where nobody computed it. `second` is `image` of another crop of the same frames, where a method learns from two. A
    method whose vectors are otherwise says so.
    """

    image: Tensor
    audio: Tensor
    activation: Tensor | None = None
    second: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class HintBatch:
    """Teachers' hints of a batch. None where they are not in use.

    `audio` [B, D]; `visual` [B, h, w], one number a cell as DETR's 25x25, or [B, D, h, w], a vector a cell as Lite0's
    7x7, with `visual_present` [B] bool: rows without a hint hold anything.
    """

    audio: Tensor | None = None
    visual: Tensor | None = None
    visual_present: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What annotations say of a batch. None where they are not in use.

    `relation` [B, B] int8, picture first, of all clips of the batch, whichever process has them: 1 own sound, -1 a
    wrong one, 0 neither; `cover` [B, h, w] share of each cell under boxes of what sounds, with `boxed` [B] bool: rows
    without boxes hold anything. `segments` [B, H, W]: the region of each pixel, of every view.
    """

    relation: Tensor | None = None
    cover: Tensor | None = None
    boxed: Tensor | None = None
    segments: list[Tensor] | None = None


@dataclass(frozen=True)
class Group:
    """Parameters that learn alike: `factor` times as fast as `optim.lr`, with or without its weight decay."""

    parameters: list[nn.Parameter]
    factor: float = 1.0
    decays: bool = True


Published = tuple[ModelConfig, dict[str, Tensor]]
"""A published model: its configuration, and its tensors under the key names of our networks."""


class PublishedModel(nn.Module, ABC):
    """A network of a published method."""

    training_only: tuple[str, ...] = ()
    """Prefixes of the parameters that only training needs; a published model may come without them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def groups(self) -> list[Group]:
        """The trainable parameters, by learning rate."""
        return [Group([weight for weight in self.parameters() if weight.requires_grad])]

    @classmethod
    @abstractmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """The model in the files of its authors.

        Args:
            files: file name without suffix -> contents of a checkpoint, as `avloc.checkpoint` reads it.

        Returns:
            None for files of another method.
        """


class Method(PublishedModel):
    """A model with what it hears, sees, compares and learns from."""

    time_axes: tuple[int, ...] = (-1,)
    """Axes of what `hear` gives along which time runs."""
    views = 1
    """Crops of each frame that a training step sees."""
    segment_mode = "nearest"
    """How regions of the frame become regions of a crop; `bicubic` invents labels, as SACL's code does."""
    augmentation_draws = 0
    """Numbers that `augment` takes for each clip and view."""
    vision_features: int
    """Leading channels of the vision trunk that are features, not classes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._frozen: list[nn.Module] = []

    @abstractmethod
    def hear(self, sound_BN: Tensor, rate: int) -> Tensor:
        """What `encode_audio` takes, of float waveforms in [-1, 1] at `rate` Hz."""

    @abstractmethod
    def see(self, frames_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Features of every cell of normalised frames, and the `activation` of `Embeddings`."""

    @abstractmethod
    def encode_audio(self, heard: Tensor) -> Tensor:
        """Vectors of what `hear` gives."""

    @abstractmethod
    def losses(
        self,
        embeddings: Embeddings,
        hints: HintBatch,
        weights: LossWeights,
        truth: Supervision | None = None,
        peers: Peers = ALONE,
    ) -> dict[str, Tensor]:
        """Named loss terms, before their weights. Where `peers` share the batch, their mean is the term."""

    @abstractmethod
    def pretrained(self) -> list[tuple[nn.Module, str]]:
        """The trunks that begin with published weights, each with the name of its network."""

    @abstractmethod
    def freeze_trunks(self) -> None:
        """Let only what stands on the trunks learn.

        Raises:
            UsageError: then nothing would learn.
        """

    def freeze(self, *parts: nn.Module) -> None:
        """These parts learn nothing and stay in evaluation mode, their statistics as they are."""
        self._frozen += parts
        for part in parts:
            part.requires_grad_(requires_grad=False)
        self.train(self.training)

    def thaw(self, *names: str) -> None:
        """Frozen parts by their names among `named_modules` learn after all; the statistics in them stay as they are.

        Raises:
            UsageError: nothing of that name is frozen, or it must not learn.
        """
        frozen = {name: part for name, part in self.named_modules() if name and _is_frozen(part)}
        parts = {name: part for name, part in frozen.items() if self.may_learn(name)}
        for name in names:
            if name not in parts:
                # Not the trunks themselves, and of parts within parts the outermost.
                known = ", ".join(
                    one for one in parts if one.count(".") == 1 or ("." in one and one.rpartition(".")[0] not in parts)
                )
                raise UsageError(
                    f"thaw: no part {name!r} is frozen" + (" and may learn" if name in frozen else ""),
                    hint=f"Valid are {known}, and parts of these.",
                )
        for name in names:
            parts[name].requires_grad_()

    def may_learn(self, name: str) -> bool:  # noqa: ARG002
        """Whether the frozen part of that name can be thawed."""
        return True

    def train(self, mode: bool = True) -> Self:
        """As every module, except for frozen parts."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def augment(self, frames_B3HW: Tensor, uniform_BK: Tensor) -> Tensor:  # noqa: ARG002
        """What a method does to its crops, 0 to 255, beside cutting and flipping them; by default nothing."""
        return frames_B3HW

    def similarity(self, embeddings: Embeddings) -> Tensor:
        """Similarity maps [B, h, w]: cosine of every cell with its own sound, in [-1, 1]."""
        return torch.einsum("bdhw,bd->bhw", embeddings.image, embeddings.audio)


def _is_frozen(part: nn.Module) -> bool:
    return any(not weight.requires_grad for weight in part.parameters())


def tensors_of(content: Mapping[str, Any], entry: str) -> dict[str, Tensor]:
    """The state dictionary under `entry`, or the whole content; freed of the prefix of parallel training."""
    state = content.get(entry, content)
    if not isinstance(state, Mapping):
        return {}
    return {str(key).removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
