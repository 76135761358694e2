"""`python -m tests.bench.random_weights ARGS`: avloc's entry point without the check of weight hashes.

avloc refuses a weight file whose hash differs from the published one. Random weights always differ; everything else
is unchanged.
"""

from __future__ import annotations

import sys

from avloc import cli
from avloc.weights import find
from avloc.weights.records import WeightFile


def no_promise(_file: WeightFile) -> str:
    """Weights of which nobody says what they hash to."""
    return ""


if __name__ == "__main__":
    find.named_promise = no_promise
    sys.argv[0] = "avloc"
    cli.main()
