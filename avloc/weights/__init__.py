"""Published weight files: where they lie, where they come from, and how we know that they are what they should be.

Only what a source publishes is checked: torchvision's eight hex digits in the file name, the MD5 in Zenodo's record,
the hash in the hub's response header. No hash is written down here. A file that somebody put in place by hand and
whose name carries no hash is used as it is, with its SHA-256 recorded and `verified` false.
"""

from avloc.weights.catalog import CNN14, DETR, LITE0, VGGISH, YAMNET, backbone_weights, imagenet_weights
from avloc.weights.find import cache_folder, locate
from avloc.weights.records import HashSource, Located, Weight, WeightFile

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
