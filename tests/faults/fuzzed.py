"""Runs of the coverage-guided fuzzer, one process a reader, and what it says of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import ROOT

_DONE = re.compile(r"Done (\d+) runs in (\d+) second")
_COVERAGE = re.compile(r"cov: (\d+)")


@dataclass
class Fuzzed:
    """What came of one reader."""

    target: str
    runs: int = 0
    seconds: int = 0
    coverage: int = 0
    """Counters of avloc's own code that were reached, as libFuzzer counts."""
    faults: list[str] = field(default_factory=list)
    """Files that made the reader fail, with the end of what it said."""


def fuzzed(name: str, seconds: int, seed: int, work: Path) -> Fuzzed:
    """Fuzz one reader for some time; a finding ends it early."""
    found = work / name
    found.mkdir()
    limits = (f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=4096", f"-seed={seed + 1}")
    command = [sys.executable, "-m", "tests.faults.fuzz", name, *limits, f"-artifact_prefix={found}/"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    result, said = Fuzzed(name), done.stderr
    if match := _DONE.search(said):
        result.runs, result.seconds = int(match[1]), int(match[2])
    result.coverage = max((int(count) for count in _COVERAGE.findall(said)), default=0)
    result.faults = [f"{path.name}: {path.read_bytes()[:300]!r}" for path in sorted(found.iterdir())]
    if done.returncode or result.faults:
        result.faults.append(said[-1500:])
    return result
