"""Object priors: maps of objects in an image, independent of the sound.

A prior takes square frames of `side` pixels; a frame's map does not depend on the others of its batch.

Shape letters: B batch, C channels, H W pixels, h w cells.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from avloc.errors import UsageError, nearest
from avloc.networks import detr
from avloc.networks.backbones import CONVNETS
from avloc.networks.base import BackboneOutput, deterministic_inference, fold_batch_norms, mean_activation
from avloc.networks.builder import build_backbone, load_pretrained
from avloc.progress import Listener, silent
from avloc.transforms import normalise_frames, on_device
from avloc.weights import DETR, imagenet_weights, locate

SIDE = 224  # pixels of its square input, whatever the input of the model

_INSTEAD = (
    "Without a download: eval --maps av, localize --object-prior none, or localize with the model in the package, "
    "which has a prior of its own."
)


class ObjectPrior:
    """Mean activation of an ImageNet network (OG-AVC's "OBJ" is that of ResNet18).

    The weights are torchvision's IMAGENET1K_V1, the only ones when EZ-VSL published this prior. The mean is
    taken over the backbone's last feature map, 7x7 cells: for `vgg16` after the fifth pooling, not conv5_3, and for
    `efficientnet_b0` after the last 1x1 convolution.

    Args:
        backbone: one of `avloc.networks.backbones.CONVNETS`.
        weights_dir: folder searched first for the ImageNet weights.
        device: runs the network.
        listener: receives the progress of a download.
        precision: `fp32` or `bf16`.

    Raises:
        UsageError: unknown network.
        WeightsError: the weights are absent or damaged.
    """

    side = SIDE

    def __init__(
        self,
        backbone: str,
        weights_dir: Path | None,
        device: torch.device,
        listener: Listener = silent,
        precision: str = "fp32",
    ) -> None:
        if backbone not in CONVNETS:
            valid = ", ".join(CONVNETS)
            raise UsageError(f"unknown object prior {backbone!r}; valid: {valid}", hint=nearest(backbone, CONVNETS))
        located = locate(imagenet_weights(backbone), weights_dir=weights_dir, listener=listener, instead=_INSTEAD)
        self.backbone, self.sha256, self.device = backbone, located.sha256, device
        self.network = build_backbone(backbone)
        load_pretrained(self.network, backbone, located.path)
        self.network.eval().to(device).to(memory_format=torch.channels_last)
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        if precision == "bf16":
            fold_batch_norms(self.network)
            self.network.to(self.dtype)

    def maps(self, frames_B3HW: Tensor) -> Tensor:
        """Activation maps [B, h, w] of uint8 frames of `side` pixels.

        Kernels round differently for other batch sizes.
        """
        frames = normalise_frames(on_device(frames_B3HW, self.device)).to(self.dtype)
        with deterministic_inference():
            out: BackboneOutput = self.network(frames.contiguous(memory_format=torch.channels_last))
            return mean_activation(out.features)


class DetrPrior:
    """Attention of DETR-R50 on confidently detected objects (the "DETR" of OG-AVC-DETR).

    The map of `avloc.teachers.detr.DetrTeacher`, whose frames are not rounded when they are stretched. The paper has
    "confidence >= 0.3"; as in the published code, the probability of a query's best class ("no object" is not a class)
    must exceed `confidence`.

    Args:
        weights_dir: folder searched first for DETR's weights.
        device: runs the network, in float32.
        listener: receives the progress of a download.
        confidence: in [0, 1).

    Raises:
        UsageError: an invalid confidence.
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
        self.sha256, self.device, self.confidence = located.sha256, device, confidence
        self.network = detr.load_detr(located.path).to(device)

    def maps(self, frames_B3HW: Tensor) -> list[Tensor | None]:
        """Attention maps [side/32, side/32] that sum to 1, or None for frames without a confident query.

        Frames are uint8 RGB squares of `side` pixels, stretched as `avloc.networks.detr.stretched` does.
        """
        with deterministic_inference():
            # Contiguous batches of one: kernels are chosen by batch size and memory layout.
            frames = (frame.contiguous()[None] for frame in on_device(frames_B3HW, self.device))
            maps = [detr.attention_maps(self.network, frame, confidence=self.confidence)[0] for frame in frames]
        return [None if attention.isnan().any() else attention for attention in maps]
