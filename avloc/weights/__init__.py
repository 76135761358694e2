"""Published weight files: where to find or download them, and how they are verified.

Files are checked against hashes that their source publishes: torchvision's eight hex digits in the file name, the MD5
in Zenodo's record, the hash in the hub's response header. No hash is stored here. A file that was copied by hand and
has no hash in its name is used without a check: its SHA-256 is recorded, and `verified` is false.
"""

from avloc.weights.catalog import (
    CNN14,
    DETR,
    LITE0,
    VGGISH,
    YAMNET,
    HashSource,
    Weight,
    WeightFile,
    backbone_weights,
    imagenet_weights,
)
from avloc.weights.lookup import Located, cache_folder, locate

__all__ = [
    "CNN14",
    "DETR",
    "LITE0",
    "VGGISH",
    "YAMNET",
    "HashSource",
    "Located",
    "Weight",
    "WeightFile",
    "backbone_weights",
    "cache_folder",
    "imagenet_weights",
    "locate",
]
