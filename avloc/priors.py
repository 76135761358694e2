"""Object priors: where a picture has something to look at, whatever is heard."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from avloc.events import Listener, silent
from avloc.networks.trunks import build_trunk, load_imagenet
from avloc.transforms import normalise_frames
from avloc.weights import imagenet_weights, locate

TRUNK = "resnet18"
SIDE = 224  # pixels of the square it sees, whatever the model that is scored beside it sees


def mean_activation(features_BCHW: Tensor) -> Tensor:
    """Mean over channels of the absolute activation, [B, h, w] (EZ-VSL's object-guided localisation)."""
    return features_BCHW.abs().mean(1)


class ObjectPrior:
    """An ImageNet ResNet18 whose mean activation marks objects (OG-AVC's "OBJ").

    Args:
        weights_dir: folder searched first for the ImageNet weights.
        device: where it runs.
        listener: hears about a download.

    Raises:
        WeightsError: the weights are absent or damaged.
    """

    def __init__(self, weights_dir: Path | None, device: torch.device, listener: Listener = silent) -> None:
        located = locate(imagenet_weights(TRUNK), weights_dir=weights_dir, listener=listener)
        self.sha256 = located.sha256
        self.trunk, _ = build_trunk(TRUNK)
        load_imagenet(self.trunk, located.path)
        self.trunk.eval().to(device)
        self.device = device

    @torch.inference_mode()
    def maps(self, frames_B3HW: Tensor) -> Tensor:
        """Activation maps [B, h, w] of uint8 frames already at the network's input size."""
        return mean_activation(self.trunk(normalise_frames(frames_B3HW.to(self.device))))
