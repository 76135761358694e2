"""Benchmark avloc against the published recipe: `python -m tests.bench [--json out.json]`.

Both sides are timed alternately (A B A B ...), so that a machine that slows down slows both. The table shows medians
and, in brackets, minimum and maximum. Data are synthetic and seeded. `tests/bench/reference.py` documents what the
reference side reimplements.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from avloc.registry import METHOD_SPECS
    from tests.bench.run import ROWS

    out = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    out.add_argument("--json", type=Path, help="also write all rows to this file, after every row")
    out.add_argument("--row", choices=ROWS, action="append", help="only this row; may repeat")
    out.add_argument("--repeats", type=int, default=3, help="measured rounds; half as many of rows that take minutes")
    out.add_argument("--clips", type=int, help="number of clips, in place of each row's default")
    out.add_argument("--batch", type=int, help="batch size, in place of each row's default")
    out.add_argument("--video-seconds", type=float, default=60.0, help="length of the overlay video")
    out.add_argument(
        "--method",
        choices=[name for name, spec in METHOD_SPECS.items() if not spec.hints],
        action="append",
        default=[],
        help="only this method in the row about methods; may repeat",
    )
    out.add_argument("--quick", action="store_true", help="tiny sizes, to check that it runs")
    return out


def main() -> None:
    """Run the benchmark with OpenMP threads that stop spinning early while they wait.

    By default GNU's OpenMP threads spin for milliseconds, which on a busy machine measures other processes. The
    variable is read when torch is loaded, so nothing that loads torch is imported above.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from tests.bench.run import measure

    measure(parser().parse_args())


if __name__ == "__main__":
    main()
