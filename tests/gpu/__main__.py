"""Check avloc on a GPU and print a table: `python -m tests.gpu [--json FILE] [--only NAME]`.

A check that fails does not stop the others. After seven minutes the remaining ones are skipped, so that it ends in
eight.

`--device cpu --quick` runs the same code on the CPU with tiny sizes; what only CUDA can do is left out or compared with
itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from tests.gpu import loading, machine, methods, processes, runs, scores, speed, teachers
from tests.gpu.results import FAILED, SKIPPED, Options, Row, attempted
from tests.gpu.stand_ins import write_toml_without_tomli_w

CHECKS: dict[str, Callable[[Options], Iterable[Row]]] = {
    "versions": machine.versions,
    "copies": machine.copies,
    "agreement": methods.agreement,
    "waits": methods.waits,
    "eval": scores.evaluation,
    "resume": runs.kill_and_resume,
    "from-cpu": runs.from_cpu,
    "two-ranks": processes.two_ranks,
    "one-process": processes.one_process,
    "one-raises": processes.one_raises,
    "steps": speed.steps,
    "hints": teachers.hints,
    "loader": loading.loader,
    "epoch": loading.epoch,
}
"""In their order: what must be right, then what must be fast."""
_LIMIT_S = 420.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    out.add_argument("--json", type=Path, help="also write all rows to this file, after every row")
    out.add_argument("--only", choices=CHECKS, action="append", help="only this check; may repeat")
    out.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    out.add_argument("--quick", action="store_true", help="tiny sizes, to check that it runs")
    return out


def rows(options: Options, names: Iterable[str]) -> Iterator[tuple[str, Row]]:
    """The rows of checks, each with the name of its check."""
    for name in names:
        if options.left_s() < 0:
            yield name, Row(name=name, outcome=SKIPPED, reason="seven minutes are over")
            continue
        start = time.monotonic()
        for row in attempted(name, lambda name=name: CHECKS[name](options)):
            yield name, row
        yield name, Row(name=f"{name}: whole check", value=time.monotonic() - start, unit="s")


def main() -> None:
    """Run the checks; exit code 1 if one failed."""
    given, ends = parser().parse_args(), time.monotonic() + _LIMIT_S
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU: torch.cuda.is_available() is false; --device cpu --quick runs on the CPU")
    write_toml_without_tomli_w()
    found = []
    with tempfile.TemporaryDirectory() as work:
        options = Options(device=torch.device(given.device), quick=given.quick, work=Path(work), ends=ends)
        for check, row in rows(options, given.only or CHECKS):
            print(row.text(), flush=True)
            found.append({"check": check, **row.as_json()})
            if given.json:
                given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    counted = Counter(row["outcome"] for row in found)
    print(", ".join(f"{count} {outcome}" for outcome, count in counted.items()))
    sys.exit(1 if counted[FAILED] else 0)


if __name__ == "__main__":
    main()
