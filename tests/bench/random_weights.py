"""`python -m tests.bench.random_weights ARGS`: avloc's entry point, accepting random weights under published names.

avloc refuses a file of weights that does not hash to what its name says. Random ones never do; everything else is as a
user has it.
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
