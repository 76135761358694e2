"""Number of loader processes, and their shared memory."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from avloc import loader_processes
from avloc.errors import Refused
from avloc.loader_processes import check_shared_memory, process_count


@pytest.mark.parametrize(
    ("requested", "cores", "peers", "processes"),
    [
        (-1, 8, "", 7),
        (-1, 8, "2", 3),
        (-1, 1, "", 1),
        (-1, 4, "8", 1),
        (-1, 64, "1", 16),
        (0, 8, "", 0),
        (20, 8, "2", 20),
    ],
)
def test_loader_processes_leave_a_core_for_the_main_process(monkeypatch, requested, cores, peers, processes):
    monkeypatch.setattr(loader_processes, "worker_count", lambda _all: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", peers)
    assert process_count(requested) == processes


@pytest.mark.parametrize(("free", "processes", "fitting"), [(699, 3, 2), (499, 2, 1), (299, 1, 0), (0, 1, 0)])
def test_shared_memory_must_hold_the_batches_of_all_processes(tmp_path, monkeypatch, free, processes, fitting):
    """Two batches of 100 MB for each process, and one in use."""
    monkeypatch.setattr(loader_processes, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(loader_processes.shutil, "disk_usage", lambda _path: SimpleNamespace(free=free * 10**6))
    need = re.escape(f"{processes} loader processes need {200 * processes + 100} MB in {tmp_path}, which has {free} MB")
    with pytest.raises(Refused, match=need) as caught:
        check_shared_memory(10**8, processes)
    assert caught.value.hint.endswith(f"--set workers={fitting}.")
    if fitting:
        check_shared_memory(10**8, fitting)
    check_shared_memory(free * 10**6 // (2 * processes + 1), processes)


def test_other_systems_have_no_such_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(loader_processes, "_SHARED_MEMORY", tmp_path / "absent")
    check_shared_memory(10**18, 3)
