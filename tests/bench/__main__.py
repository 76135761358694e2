"""Benchmark avloc against the published recipe: `python -m tests.bench [--json out.json]`.

Both sides are timed alternately (A B A B ...), so that a machine that slows down slows both. The table shows medians
and, in brackets, minimum and maximum. Data are synthetic and seeded. `tests/bench/reference.py` documents what the
reference side reimplements.
"""

from __future__ import annotations

import os


def main() -> None:
    """Run the benchmark with OpenMP threads that stop spinning early while they wait.

    By default GNU's OpenMP threads spin for milliseconds, which on a busy machine measures other processes. The
    variable is read when torch is loaded, so nothing that loads torch is imported above.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from tests.bench import run

    run.main(__doc__)


if __name__ == "__main__":
    main()
