"""The published systems, one file each. A method is a module with `encode_image`, `encode_audio`, `losses`."""

from avloc.methods.avc import AVC
from avloc.methods.ezvsl import EZVSL, Embeddings, HintBatch, Supervision

METHODS: dict[str, type[EZVSL]] = {"avc": AVC, "ezvsl": EZVSL}

__all__ = ["AVC", "EZVSL", "METHODS", "Embeddings", "HintBatch", "Supervision"]
