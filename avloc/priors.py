"""Object priors: where a picture has something to look at, whatever is heard.

A prior takes square frames of `side` pixels and answers for each of them alone.

Shape letters: B batch, C channels, H W pixels, h w cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from avloc.errors import UsageError, nearest
from avloc.networks import detr
from avloc.networks.exact import exactly
from avloc.networks.folding import fold_batch_norms
from avloc.networks.trunks import TRUNKS, build_trunk, load_imagenet
from avloc.progress import Listener, silent
from avloc.transforms import normalise_frames
from avloc.weights import DETR, imagenet_weights, locate

TRUNK = "resnet18"  # the prior of EZ-VSL's and AVC's "OBJ"
SIDE = 224  # pixels of the square it sees, whatever the model that is scored beside it sees

_INSTEAD = (
    "Without a download: eval --maps av, localize --object-prior none, or localize with the model in the package, "
    "which has a prior of its own."
)


def mean_activation(features_BCHW: Tensor) -> Tensor:
    """Mean over channels of the absolute activation, [B, h, w] (EZ-VSL's object-guided localisation)."""
    return features_BCHW.abs().mean(1)


class ObjectPrior:
    """An ImageNet network whose mean activation marks objects (OG-AVC's "OBJ" is that of ResNet18).

    The weights are torchvision's IMAGENET1K_V1 for every trunk, the older of two sets where there are two: those were
    torchvision's only ones when EZ-VSL published this prior. What is averaged is the trunk's last feature map, as
    `build_trunk` gives it. For `vgg16` that is the map after the fifth pooling, not conv5_3, and for `efficientnet_b0`
    the one after the last 1x1 convolution; so each of them has 7x7 cells.

    Args:
        trunk: one of `avloc.networks.trunks.TRUNKS`.
        weights_dir: folder searched first for the ImageNet weights.
        device: where it runs.
        listener: hears about a download.
        precision: `fp32` or `bf16`.

    Attributes:
        trunk: the trunk's name.
        sha256: of its weights.
        side: pixels of the square frames that it takes.

    Raises:
        UsageError: no such trunk.
        WeightsError: the weights are absent or damaged.
    """

    side = SIDE

    def __init__(
        self,
        trunk: str,
        weights_dir: Path | None,
        device: torch.device,
        listener: Listener = silent,
        precision: str = "fp32",
    ) -> None:
        if trunk not in TRUNKS:
            raise UsageError(f"unknown object prior {trunk!r}; valid: {', '.join(TRUNKS)}", hint=nearest(trunk, TRUNKS))
        located = locate(imagenet_weights(trunk), weights_dir=weights_dir, listener=listener, instead=_INSTEAD)
        self.trunk = trunk
        self.sha256 = located.sha256
        self.network, _ = build_trunk(trunk)
        load_imagenet(self.network, located.path)
        self.network.eval().to(device).to(memory_format=torch.channels_last)
        self.kind = torch.bfloat16 if precision == "bf16" else torch.float32
        if precision == "bf16":
            fold_batch_norms(self.network)
            self.network.to(self.kind)
        self.device = device

    def maps(self, frames_B3HW: Tensor) -> Tensor:
        """Activation maps [B, h, w] of uint8 frames already at `side` pixels.

        A frame's map does not depend on the others, but kernels round differently for other numbers of frames.
        """
        frames = normalise_frames(frames_B3HW.to(self.device)).to(self.kind)
        with exactly():
            return mean_activation(self.network(frames.contiguous(memory_format=torch.channels_last)).float())


class DetrPrior:
    """Where DETR-R50 looks for the objects it is sure of (the "DETR" of OG-AVC-DETR).

    The same map as the hint of `avloc.teachers.DetrTeacher`. The paper says "confidence >= 0.3"; the published code
    compares with `>`, and so do we.

    Args:
        weights_dir: folder searched first for DETR's weights.
        device: where it runs; float32 throughout.
        listener: hears about a download.
        confidence: a query counts if its best class is more probable than this ("no object" is not a class).

    Attributes:
        sha256: of its weights: of the hashes of the folder's files (`avloc.weights.Located`).
        side: pixels of the square frames that it takes.

    Raises:
        UsageError: an impossible confidence.
        WeightsError: the weights are absent or damaged.
    """

    side = detr.SIDE

    def __init__(
        self,
        weights_dir: Path | None,
        device: torch.device,
        listener: Listener = silent,
        confidence: float = detr.CONFIDENCE,
    ) -> None:
        detr.check_confidence(confidence)
        located = locate(DETR, weights_dir=weights_dir, listener=listener, instead=_INSTEAD)
        self.sha256 = located.sha256
        self.confidence = confidence
        self.network = detr.load_detr(located.path).to(device)
        self.device = device

    def maps(self, frames_B3HW: Tensor) -> list[Tensor | None]:
        """Attention on objects, for each frame [side/32, side/32] summing to 1, or None where no query is confident.

        Args:
            frames_B3HW: uint8 RGB squares of `side` pixels, stretched as `avloc.networks.detr.stretched` does.
        """
        with exactly():
            frames = _one_by_one(frames_B3HW.to(self.device))
            return [detr.attention_maps(self.network, frame, confidence=self.confidence)[0] for frame in frames]


def _one_by_one(frames_B3HW: Tensor) -> Iterator[Tensor]:
    """Each frame as a batch of one, laid out alike: kernels are also chosen by memory layout."""
    return (frame_3HW.contiguous().unsqueeze(0) for frame_3HW in frames_B3HW.unbind())
