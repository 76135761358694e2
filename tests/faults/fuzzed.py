"""Run the coverage-guided fuzzer, one process per reader, and parse its statistics."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.program import ROOT

_DONE = re.compile(r"Done (\d+) runs in (\d+) second")
_COVERAGE = re.compile(r"cov: (\d+)")


@dataclass
class Fuzzed:
    """Result for one reader."""

    target: str
    runs: int = 0
    seconds: int = 0
    coverage: int = 0
    """Coverage counters of avloc's own code, as libFuzzer reports them."""
    faults: list[str] = field(default_factory=list)
    """Inputs that made the reader fail, and the end of standard error."""


def fuzzed(name: str, seconds: int, seed: int, work: Path) -> Fuzzed:
    """Fuzz one reader for `seconds`; a finding ends it early."""
    found = work / name
    found.mkdir()
    limits = (f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=4096", f"-seed={seed + 1}")
    command = [sys.executable, "-m", "tests.faults.fuzz", name, *limits, f"-artifact_prefix={found}/"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    result, log = Fuzzed(name), done.stderr
    if match := _DONE.search(log):
        result.runs, result.seconds = int(match[1]), int(match[2])
    result.coverage = max((int(count) for count in _COVERAGE.findall(log)), default=0)
    result.faults = [f"{path.name}: {path.read_bytes()[:300]!r}" for path in sorted(found.iterdir())]
    if done.returncode or result.faults:
        result.faults.append(log[-1500:])
    return result
