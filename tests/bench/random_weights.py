"""`python -m tests.bench.random_weights ARGS`: avloc's entry point, accepting random weights under published names.

avloc refuses a file of weights that does not hash to what its name says. Random ones never do; everything else is as a
user has it.
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
