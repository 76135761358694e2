"""SSPL: no negatives; two views of an image agree in the cells that match their sound.

Song, Wang, Fan, Tan and Zhang, "Self-Supervised Predictive Learning: A Negative-Free Method for Sound Source
Localization in Visual Scenes", CVPR 2022. VGG16 cells, VGGish with two layers for audio; a predictive coding module
aligns the cells with the sound (`--set sspl.pcm=false` leaves it out); SimSiam's head compares the two views. Both
backbones stay frozen. The published training on several GPUs never averaged their gradients; here they are averaged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avloc.config import LossWeights, ModelConfig
from avloc.distributed import ALONE, Peers
from avloc.methods.base import Embeddings, Group, HintBatch, Published, Supervision, tensors_of
from avloc.methods.vggish import VGGishMethod, attention
from avloc.networks.base import mean_activation
from avloc.networks.predictive import PredictiveCoding
from avloc.networks.vggish import JOINT_WIDTH, SoundVectors, VGGishWithMLP
from avloc.registry import METHOD_SPECS

_LAST_CONVOLUTION = 29
"""Layers of torchvision's VGG16 up to and with its last convolution."""
_WIDE = 2_048


class SimSiamHead(nn.Module):
    """Projector and predictor (Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021)."""

    def __init__(self) -> None:
        super().__init__()
        last = nn.Sequential(nn.Linear(_WIDE, _WIDE, bias=False), nn.BatchNorm1d(_WIDE, affine=False))
        self.projector = _layers(_block(JOINT_WIDTH, _WIDE), _block(_WIDE, _WIDE), last)
        self.predictor = _layers(_block(_WIDE, JOINT_WIDTH), nn.Linear(JOINT_WIDTH, _WIDE))

    def forward(self, pooled_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction and projection, [B, 2048] each."""
        projected = self.projector(pooled_BD)
        return self.predictor(projected), projected


def _layers(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict((f"layer{number}", layer) for number, layer in enumerate(layers, 1)))


def _block(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, out, bias=False), nn.BatchNorm1d(out), nn.ReLU())


class SSPL(VGGishMethod):
    """The networks and their loss.

    `image` holds VGG16's features, not of unit length; the predictive coding module takes the embedding of 128.
    """

    frame: nn.Sequential
    training_only = ("head.",)

    def __init__(self, config: ModelConfig) -> None:
        from torchvision.models.vgg import cfgs, make_layers

        super().__init__(config)
        self.frame = nn.Sequential(OrderedDict(feat_extractor=make_layers(cfgs["D"])[:_LAST_CONVOLUTION]))
        self.sound = VGGishWithMLP()
        self.pcm = PredictiveCoding() if config.own["pcm"] else None
        self.head = SimSiamHead()
        self.freeze(*self.backbones())

    def encode_image(self, frames_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """VGG16's last features [B, 512, H/16, W/16] before ReLU, not of unit length, and their `activation`."""
        cells = self.frame(frames_B3HW)
        return cells.float(), mean_activation(cells)

    def aligned(self, cells_BDHW: Tensor, embedding_BD: Tensor) -> Tensor:
        """The cells to compare with the sound: outputs of the predictive coding module, unless `pcm` is false."""
        if self.pcm is None:
            return cells_BDHW
        dtype = self.pcm.b0[0].dtype  # bfloat16 in a model that predicts in bf16
        out: Tensor = self.pcm(cells_BDHW.to(dtype), embedding_BD.to(dtype))
        return out.to(cells_BDHW.dtype)

    def similarity(self, embeddings: Embeddings) -> Tensor:
        """Similarity maps [B, h, w]: cosine of every aligned cell with its own sound."""
        sound = SoundVectors.unpack(embeddings.audio)
        return cosines(self.aligned(embeddings.image, sound.embedding), sound.joint)

    def pooled(self, cells_BDHW: Tensor, audio_BD: Tensor) -> Tensor:
        """Sum [B, 512] of the aligned cells, weighted by the min-max normalised cosine."""
        sound = SoundVectors.unpack(audio_BD)  # for each view, because sharing it would reorder the sum of gradients
        aligned = self.aligned(cells_BDHW, sound.embedding)
        return torch.einsum("bdhw,bhw->bd", aligned, attention(cosines(aligned, sound.joint)))

    def losses(
        self,
        embeddings: Embeddings,
        hints: HintBatch,  # noqa: ARG002
        weights: LossWeights,  # noqa: ARG002
        truth: Supervision | None = None,  # noqa: ARG002
        peers: Peers = ALONE,
    ) -> dict[str, Tensor]:
        """Negative cosine of the two views (SimSiam, equations 1 and 2); a single view is compared with itself."""
        first = self.pooled(embeddings.image, embeddings.audio)
        second = first if embeddings.second is None else self.pooled(embeddings.second, embeddings.audio)
        (prediction_1, projection_1), (prediction_2, projection_2) = self.head(first), self.head(second)
        cosine = F.cosine_similarity(prediction_1, projection_2.detach(), dim=1)
        cosine = cosine + F.cosine_similarity(prediction_2, projection_1.detach(), dim=1)
        mean = peers.mean(cosine)
        assert mean is not None, "a batch has rows"
        return {"agreement": -mean / 2}

    def pretrained(self) -> list[tuple[nn.Module, str]]:
        """VGG16 and VGGish."""
        return [(nn.ModuleDict({"features": self.frame[0]}), "vgg16"), self.pretrained_vggish()]

    def groups(self) -> list[Group]:
        """The head has `head_lr` times the learning rate; the rates of the module have no weight decay."""
        rates = [] if self.pcm is None else [*self.pcm.a0, *self.pcm.b0]
        known = {id(rate) for rate in rates}
        module = [] if self.pcm is None else [p for p in self.pcm.parameters() if id(p) not in known]
        return [
            Group([*self.sound.fc.parameters(), *module]),
            Group(list(self.head.parameters()), factor=self.config.own["head_lr"]),
            *([Group(rates, decays=False)] if rates else []),
        ]

    def freeze_backbones(self) -> None:
        """No effect: they are always frozen."""

    @classmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """Bare state dictionaries of frame and sound, of the module, and of the head, which no map needs."""
        parts = {"frame": "feat_extractor.0.weight", "sound": "fc.0.weight", "pcm": "PredProcess.0.weight"}
        parts["head"] = "projector.layer1.0.weight"
        found: dict[str, dict[str, Tensor]] = {}
        for content in files.values():
            state = tensors_of(content, "")
            found |= {name: state for name, mark in parts.items() if mark in state}
        if not {"frame", "sound"} <= found.keys() or len(found) != len(files):
            return None
        settings = METHOD_SPECS["sspl"].settings["model"]
        config = ModelConfig(**settings, own={"pcm": "pcm" in found})
        return config, {f"{name}.{key}": value for name, state in found.items() for key, value in state.items()}


def cosines(cells_BDHW: Tensor, joint_BD: Tensor) -> Tensor:
    """Cosine [B, h, w] of every cell with its own sound's unit vector."""
    return torch.einsum("bdhw,bd->bhw", F.normalize(cells_BDHW, dim=1), joint_BD)
