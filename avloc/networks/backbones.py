"""The known backbones, and their names in configurations and model files; `avloc.networks.builder` builds them.

No torch here. The grammar is `network[:layer][+classes[+published]]`: `resnet18`, `resnet18:layer2`, `yamnet+classes`,
`efficientnet_lite0+classes+published`.
"""

from __future__ import annotations

from dataclasses import dataclass

from avloc.errors import UsageError, nearest

TORCHVISION = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vgg16",
    "vgg19",
    "efficientnet_b0",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
)
CONVNETS = (*TORCHVISION, "efficientnet_lite0")
"""Networks for images; for audio their first convolution is replaced by one with a single input channel."""
IMAGE_ONLY = ("vit_b_16",)
"""Networks for images of one size."""
AUDIO_ONLY = ("yamnet",)
"""Networks for log-mel spectrograms (`avloc.transforms.log_mel`)."""
WITH_CLASSES = ("efficientnet_lite0+classes", "yamnet+classes", "efficientnet_lite0+classes+published")
"""All names of backbones with class scores."""


@dataclass(frozen=True, kw_only=True)
class BackboneName:
    """The parts of a backbone's name."""

    network: str
    last_layer: str | None = None
    """Top-level module of the network at which it ends; None keeps all up to the last feature map."""
    class_scores: bool = False
    """`+classes`: with the pretrained classifier, whose scores are inputs of the projection beside the features."""
    frozen_head: bool = False
    """`+published`: with a frozen copy of the pretrained head, whose features the object prior takes."""

    @classmethod
    def parse(cls, name: str) -> BackboneName:
        """Split a name into its parts.

        Raises:
            UsageError: an unknown network, or class scores of a network that has none or is cut.
        """
        network, cut, layer = name.partition(":")
        if name in WITH_CLASSES:
            network, _, additions = name.partition("+")
            return cls(network=network, class_scores=True, frozen_head=additions.endswith("+published"))
        if "+classes" in name:
            known = ", ".join(WITH_CLASSES)
            raise UsageError(f"no backbone {name!r}: class scores need a whole network that has them; valid: {known}")
        whole = (*CONVNETS, *IMAGE_ONLY, *AUDIO_ONLY)
        if network not in whole:
            valid = (*whole, *WITH_CLASSES)
            raise UsageError(f"unknown backbone {network!r}; valid: {', '.join(valid)}", hint=nearest(network, valid))
        if cut and network in IMAGE_ONLY:
            raise UsageError(f"{network} has no part {layer!r}: it cannot be cut")
        return cls(network=network, last_layer=layer if cut else None)
