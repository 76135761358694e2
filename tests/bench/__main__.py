"""`python -m tests.bench [--json out.json]`: what takes how long on this machine, the published recipe beside avloc.

Both sides take turns in one process tree, A B A B ..., so that a machine that slows down slows both; the table shows
medians and, in brackets, the smallest and the largest value. Material is made up from seeds. `tests/bench/reference.py`
says what the published side mirrors.
"""

from __future__ import annotations

import os


def main() -> None:
    """Run it, on both sides with threads that give up their cores soon when they wait for each other.

    GNU's OpenMP has them spin for milliseconds: on a busy machine that would measure the neighbours. It is read when
    torch is loaded, so nothing that loads torch is imported above.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from tests.bench import run

    run.main(__doc__)


if __name__ == "__main__":
    main()
