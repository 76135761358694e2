"""Published weight files: where to find or download them, and how they are verified.

Files are checked against the hash that their publisher states: the leading hex digits of the SHA-256 in the file name
(torchvision), the checksum in a record (Zenodo), or the header of the response (Hugging Face). No hash is stored here.
A file that was copied by hand and has no hash in its name is not checked: its SHA-256 is recorded, and `verified` is
false.
"""

from avloc.weights.catalog import (
    CNN14,
    DETR,
    LITE0,
    VGGISH,
    YAMNET,
    Weight,
    WeightFile,
    backbone_weights,
    imagenet_weights,
)
from avloc.weights.download import cache_folder
from avloc.weights.lookup import Located, hash_agrees, locate, location, search_places

__all__ = [
    "CNN14",
    "DETR",
    "LITE0",
    "VGGISH",
    "YAMNET",
    "Located",
    "Weight",
    "WeightFile",
    "backbone_weights",
    "cache_folder",
    "hash_agrees",
    "imagenet_weights",
    "locate",
    "location",
    "search_places",
]
