"""Freed memory is kept for the next tensor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from avloc import malloc
from tests.program import ROOT

_FAULTS = """
import resource
import numpy
from avloc.malloc import release_freed_memory, keep_freed_memory

keep_freed_memory() if {kept} else None
before = None
for _ in range(9):
    numpy.ones(10_000_000)
    if before is None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
if {kept}:
    pages = lambda: int(open("/proc/self/statm").read().split()[1])
    held = pages()
    release_freed_memory()
    print(held - pages())
"""


def numbers(*, kept: bool, **environment: str) -> list[int]:
    """Pages fetched by eight arrays of 80 MB after a first one, and pages that are given back then."""
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS.format(kept=kept)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="only the GNU C library has these settings")
def test_memory_is_allocated_once_and_can_be_released() -> None:
    (usual,) = numbers(kept=False)
    fetched, given_back = numbers(kept=True)
    assert fetched < usual / 4
    assert given_back * 4_096 > 70_000_000
    own, _ = numbers(kept=True, MALLOC_MMAP_THRESHOLD_="1000000")
    assert own > fetched


@pytest.mark.parametrize(("granted", "calls"), [(1, [-3, -1]), (0, [-3])])
def test_the_second_setting_is_skipped_if_the_first_is_refused(granted, calls, monkeypatch) -> None:
    """As in glibc before 2.35, where the second setting alone would allocate every small tensor anew."""
    calls_made = []
    monkeypatch.setattr(malloc, "_c_function", lambda _name: lambda what, _value: calls_made.append(what) or granted)
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    malloc.keep_freed_memory()
    assert calls_made == calls


def test_commands_that_run_networks_for_long_keep_freed_memory(here, tmp_path, monkeypatch) -> None:
    calls_made = []
    monkeypatch.setattr(malloc, "_c_function", calls_made.append)
    here("train", tmp_path / "nothing", "--out", tmp_path / "run")
    here("eval", "--store", tmp_path / "nothing")
    here("distill-cache", tmp_path / "nothing")
    assert calls_made == ["mallopt", "mallopt", "mallopt"]
