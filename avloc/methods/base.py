"""The interface of a published method.

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
    """Unit vectors of a batch, unless a method documents others: `image` [B, D, h, w] per cell, `audio` [B, D].

    `activation` [B, h, w]: mean absolute activation of the image backbone's features (`mean_activation`), the model's
    own object prior. `second`: `image` of a second crop of the same frames, for methods that train with two.
    """

    image: Tensor
    audio: Tensor
    activation: Tensor | None = None
    second: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class HintBatch:
    """Teachers' hints of a batch; None if unused.

    `audio` [B, D]; `visual` [B, h, w] with one number a cell (DETR, 25x25) or [B, D, h, w] with a vector a cell (Lite0,
    7x7); `visual_present` [B] bool, always on the CPU: other rows of `visual` are undefined.
    """

    audio: Tensor | None = None
    visual: Tensor | None = None
    visual_present: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """Targets of a batch from annotations, on the CPU but for `segments`; None if unused.

    `relation` [B, B] int8, image by sound, over the batches of all processes: 1 positive, -1 negative, 0 ignored;
    `cover` [B, h, w]: fraction of each cell inside boxes of sounding objects, with `boxed` [B] bool: other rows of
    `cover` are undefined; `segments`: for each view the region of each pixel, [B, H, W].
    """

    relation: Tensor | None = None
    cover: Tensor | None = None
    boxed: Tensor | None = None
    segments: list[Tensor] | None = None


@dataclass(frozen=True)
class Group:
    """A parameter group: its learning rate is `factor` times `optim.lr`, with or without weight decay."""

    parameters: list[nn.Parameter]
    factor: float = 1.0
    decays: bool = True


Published = tuple[ModelConfig, dict[str, Tensor]]
"""Configuration and state dict of a published model, under avloc's key names."""


class PublishedModel(nn.Module, ABC):
    """A network of a published method."""

    predicts = "maps"
    usage = ""
    """Error hint where maps are needed and it does not predict them: the commands that use it."""
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
        """The model in the files of its authors; None for files of another method.

        `files` maps file names without suffix to the contents of checkpoints, as `avloc.checkpoint` reads them.
        """


class Method(PublishedModel):
    """Networks, inputs, similarity and loss of a published method."""

    time_axes: tuple[int, ...] = (-1,)
    """Time axes of `audio_input`."""
    views = 1
    """Crops of each frame in a training step."""
    segment_mode = "nearest"
    """Interpolation of cropped regions; `bicubic` creates new labels, as in SACL's code."""
    augmentation_draws = 0
    """Random numbers that `augment` takes for each clip and view."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._frozen: list[nn.Module] = []

    @abstractmethod
    def audio_input(self, sound_BN: Tensor, rate: int) -> Tensor:
        """Input of `encode_audio` from float waveforms in [-1, 1] at `rate` Hz."""

    @abstractmethod
    def encode_image(self, frames_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """`image` and `activation` of `Embeddings` from normalised frames."""

    @abstractmethod
    def encode_audio(self, spectrograms: Tensor) -> Tensor:
        """`audio` of `Embeddings` from `audio_input`."""

    @abstractmethod
    def losses(
        self,
        embeddings: Embeddings,
        hints: HintBatch,
        weights: LossWeights,
        truth: Supervision | None = None,
        peers: Peers = ALONE,
    ) -> dict[str, Tensor]:
        """Unweighted loss terms by name. If processes share the batch (`peers`), the term is their mean."""

    @abstractmethod
    def pretrained(self) -> list[tuple[nn.Module, str]]:
        """The backbones that can start from published weights, each with the name of its network."""

    @abstractmethod
    def backbones(self) -> list[nn.Module]:
        """The networks before the layers that are the method's own."""

    def freeze_backbones(self) -> None:
        """Train only what follows the backbones."""
        self.freeze(*self.backbones())

    def freeze(self, *parts: nn.Module) -> None:
        """Freeze modules: no gradients, and eval mode from now on."""
        self._frozen += parts
        for part in parts:
            part.requires_grad_(requires_grad=False)
        self.train(self.training)

    def thaw(self, *names: str) -> None:
        """Unfreeze modules by name (`named_modules`); they stay in eval mode, so that their statistics do not change.

        Raises:
            UsageError: no frozen module has that name, or it must stay frozen.
        """
        frozen = {
            name: part
            for name, part in self.named_modules()
            if name and any(not weight.requires_grad for weight in part.parameters())
        }
        parts = {name: part for name, part in frozen.items() if self.trainable(name)}
        for name in names:
            if name not in parts:
                # Not the backbones themselves, and only the outermost of nested modules.
                known = ", ".join(
                    one for one in parts if one.count(".") == 1 or ("." in one and one.rpartition(".")[0] not in parts)
                )
                raise UsageError(
                    f"thaw: no part {name!r} is frozen" + (" and trainable" if name in frozen else ""),
                    hint=f"Valid are {known}, and parts of these.",
                )
        for name in names:
            parts[name].requires_grad_()

    def trainable(self, name: str) -> bool:  # noqa: ARG002
        """Whether the frozen module of that name can be unfrozen."""
        return True

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules but the frozen ones."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def augment(self, frames_B3HW: Tensor, uniform_BK: Tensor) -> Tensor:  # noqa: ARG002
        """Augmentations beside crop and flip, on frames in [0, 255]; by default none."""
        return frames_B3HW

    def similarity(self, embeddings: Embeddings) -> Tensor:
        """Similarity maps [B, h, w]: cosine of every cell with its own sound, in [-1, 1]."""
        return torch.einsum("bdhw,bd->bhw", embeddings.image, embeddings.audio)


def tensors_of(content: Mapping[str, Any], entry: str) -> dict[str, Tensor]:
    """The state dictionary under `entry`, or the whole content, without `DataParallel`'s prefix `module.`."""
    state = content.get(entry, content)
    if not isinstance(state, Mapping):
        return {}
    return {str(key).removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
