"""`python -m tests.bench.random_weights ARGS`: avloc's entry point without the check of weight hashes.

avloc refuses a weight file whose hash differs from the published one. Random weights always differ; everything else
is unchanged.
"""

from __future__ import annotations

import sys

from avloc import cli
from avloc.weights import WeightFile, lookup


def no_hash(_file: WeightFile) -> str:
    """No file name contains a hash."""
    return ""


if __name__ == "__main__":
    lookup.hash_in_name = no_hash
    sys.argv[0] = "avloc"
    cli.main()
