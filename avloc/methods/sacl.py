"""SACL: contrast within regions, and without negatives whose sounds are similar.

Song, Zhang, Wang, Fan and Zhang, "Enhancing Sound Source Localization via False Negative Elimination", TPAMI 2024. The
image backbone is a ResNet18 with cells of 16 pixels, the audio network is SSPL's VGGish, and both are trained. An image
is compared with a sound in the region that the similarity map covers most, and only the less similar sounds are
negatives. The extensions to classification and detection are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avloc import losses
from avloc.config import LossWeights, ModelConfig
from avloc.distributed import ALONE, Peers
from avloc.methods.base import Embeddings, HintBatch, Published, Supervision, tensors_of
from avloc.methods.vggish import VGGishMethod, attention
from avloc.networks.base import BackboneOutput, mean_activation
from avloc.networks.builder import build_backbone
from avloc.networks.vggish import SoundVectors, VGGishWithMLP
from avloc.registry import METHOD_SPECS

_EXCLUDED = -10.0
"""Score of a sound that is not a negative, before the temperature."""
_LABELS = 256
_JITTER, _HUE, _BLUR = 0.4, 0.1, (0.1, 2.0)


class SACL(VGGishMethod):
    """The networks and their loss. Sounds are compared with each other by the embedding of 128."""

    augmentation_draws = 8

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.segment_mode = "bicubic" if config.own["legacy_segments"] else "nearest"
        self.frame = build_backbone("resnet18")
        self.frame.keep_resolution()
        self.sound = VGGishWithMLP()

    def encode_image(self, frames_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors [B, 512, 14, 14], and the `activation` of the features."""
        out: BackboneOutput = self.frame(frames_B3HW)
        return F.normalize(out.features.float(), dim=1), mean_activation(out.prior_features)

    def similarity(self, embeddings: Embeddings) -> Tensor:
        """Similarity maps [B, 14, 14]: cosine of every cell with its own sound."""
        return torch.einsum("bdhw,bd->bhw", embeddings.image, SoundVectors.unpack(embeddings.audio).joint)

    def losses(
        self,
        embeddings: Embeddings,
        hints: HintBatch,  # noqa: ARG002
        weights: LossWeights,  # noqa: ARG002
        truth: Supervision | None = None,
        peers: Peers = ALONE,
    ) -> dict[str, Tensor]:
        """The contrastive loss of both views with the sounds; a single view counts twice."""
        views = [embeddings.image, embeddings.image if embeddings.second is None else embeddings.second]
        sound = SoundVectors.unpack(embeddings.audio)
        labels = truth.segments if truth and truth.segments else None
        with torch.no_grad():
            maps = [self.similarity(Embeddings(view, embeddings.audio)) for view in views]
            maps = [binary_map(each, self.config.own["retained"]) for each in maps]
            masks = maps if labels is None else positive_masks(maps, [label[:, ::16, ::16] for label in labels])
            sounds = peers.gather(sound.embedding.contiguous())
            alike = sounds[peers.rows] @ sounds.T
            kept = kept_columns(alike, self.config.own["negatives"], peers.rows.start or 0)
        total = embeddings.image.new_zeros(())
        own = torch.arange(len(kept), device=total.device) + (peers.rows.start or 0)
        for view, mask in zip(views, masks, strict=True):
            scores = self.scores(view, mask, sound.joint, peers).masked_fill(~kept, _EXCLUDED)
            total = total + losses.row_cross_entropy(scores / self.config.own["temperature"], own, peers)
        return {"contrastive": total}

    def scores(self, cells_nDHW: Tensor, mask_nHW: Tensor, joint_nD: Tensor, peers: Peers = ALONE) -> Tensor:
        """Maximum over masked cells of the cosine of each image with each sound, [n, B]; at least 0 by the masking."""
        return losses.best_cells(cells_nDHW * mask_nHW[:, None], peers.gather(joint_nD.contiguous()))

    def augment(self, frames_B3HW: Tensor, uniform_BK: Tensor) -> Tensor:
        """Colour jitter (probability 0.8), grey (0.2) and Gaussian blur (0.5), from eight draws for each clip."""
        return torch.stack(
            [_augmented(frame, row.tolist()) for frame, row in zip(frames_B3HW, uniform_BK, strict=True)]
        )

    def pretrained(self) -> list[tuple[nn.Module, str]]:
        """ResNet18 and VGGish."""
        return [(self.frame, "resnet18"), self.pretrained_vggish()]

    @classmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """Bare state dictionaries of frame and sound; the frame's `fc` is dropped."""
        found: dict[str, dict[str, Tensor]] = {}
        for content in files.values():
            state = tensors_of(content, "")
            if "layer4.1.conv2.weight" in state and "conv1.weight" in state:
                found["frame"] = {key: value for key, value in state.items() if not key.startswith("fc.")}
            elif "features.0.weight" in state and "fc.2.weight" in state:
                found["sound"] = state
        if found.keys() != {"frame", "sound"} or len(files) != len(found):
            return None
        config = ModelConfig(**METHOD_SPECS["sacl"].settings["model"])
        return config, {f"{name}.{key}": value for name, state in found.items() for key, value in state.items()}


def binary_map(map_BHW: Tensor, retained: float) -> Tensor:
    """[B, h, w] bool: the cells above the value of rank `retained`, ties excluded."""
    flat = attention(map_BHW).flatten(1)
    cut = flat.sort(1).values[:, int(flat.shape[1] * retained), None]
    return (flat > cut).reshape(map_BHW.shape)


def positive_masks(maps_BHW: list[Tensor], labels_BHW: list[Tensor]) -> list[Tensor]:
    """Cells of the positive region of both views: the region that the first view's map overlaps most.

    Args:
        maps_BHW: `binary_map` of both views.
        labels_BHW: region of each cell, 0 to 255, of both views; a region has one label in both.

    Returns:
        bool, of both views. Only regions in both views are candidates; if the second view's map misses the region, all
        of the region is positive. If a view has only region 0, or no region is in both, the maps are returned.

    Source: SACL's code; see `tests/parity`.
    """
    first, second = (labels.flatten(1).long() for labels in labels_BHW)
    inside = torch.zeros(len(first), _LABELS, dtype=torch.int32, device=first.device)
    shared = inside.scatter(1, first, 1).bool() & inside.scatter(1, second, 1).bool()
    overlaps = inside.scatter_add(1, first, maps_BHW[0].flatten(1).to(inside.dtype)).masked_fill(~shared, -1)
    usable_B11 = (first.any(1) & second.any(1) & shared.any(1))[:, None, None]
    best_B11 = overlaps.argmax(1)[:, None, None]  # of equal overlaps the lowest label
    regions = [labels == best_B11 for labels in labels_BHW]
    cut = [binary & region for binary, region in zip(maps_BHW, regions, strict=True)]
    cut[1] = torch.where(cut[1].flatten(1).any(1)[:, None, None], cut[1], regions[1])
    return [torch.where(usable_B11, masks, binary) for masks, binary in zip(cut, maps_BHW, strict=True)]


def kept_columns(alike_nB: Tensor, share: float, first: int = 0) -> Tensor:
    """[n, B] bool: the `share` of all sounds, rounded down, least similar to a clip's own sound, and its own.

    `alike_nB` holds the cosine of each clip's sound with every sound, `first` is the column of the first row's own.
    """
    keep = int(share * alike_nB.shape[1])
    kept = torch.zeros_like(alike_nB, dtype=torch.bool)
    kept.scatter_(1, alike_nB.sort(1).indices[:, :keep], value=True)
    rows = torch.arange(len(kept), device=kept.device)
    kept[rows, rows + first] = True
    return kept


def _augmented(frame_3HW: Tensor, draws: list[float]) -> Tensor:
    from torchvision.transforms.v2 import functional as transforms

    jitter, brightness, contrast, saturation, hue, grey, blur, radius = draws
    frame = frame_3HW / 255
    if jitter < 0.8:
        for adjust, draw in (
            (transforms.adjust_brightness, brightness),
            (transforms.adjust_contrast, contrast),
            (transforms.adjust_saturation, saturation),
        ):
            frame = adjust(frame, 1 + _JITTER * (2 * draw - 1))
        frame = transforms.adjust_hue(frame, _HUE * (2 * hue - 1))
    if grey < 0.2:
        frame = transforms.rgb_to_grayscale(frame, num_output_channels=3)
    if blur < 0.5:
        sigma = _BLUR[0] + (_BLUR[1] - _BLUR[0]) * radius
        size = 2 * round(3 * sigma) + 1
        frame = transforms.gaussian_blur(frame, [size, size], [sigma, sigma])
    return frame * 255
