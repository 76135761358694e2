"""Number of loader processes, and their shared memory."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from avloc import loader_processes
from avloc.errors import Refused
from avloc.loader_processes import batches_in_flight, check_shared_memory, process_count
from tests.program import ROOT

_KILLED = """
import os, signal, time
from torch.utils.data import DataLoader
from avloc.loader_processes import follow_parent

def large(_batch):
    return b"0" * 300_000  # more than a pipe holds

batches = iter(DataLoader(range(9), collate_fn=large, num_workers=2, worker_init_fn=follow_parent))
next(batches)
time.sleep(1)
os.kill(os.getpid(), signal.SIGKILL)
"""


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


@pytest.mark.parametrize(("peers", "needed"), [("", 500), ("3", 1500)])
def test_shared_memory_must_hold_the_batches_of_all_processes(tmp_path, monkeypatch, peers, needed):
    """Five batches of 100 MB in each process of `torchrun`."""
    free = SimpleNamespace(free=(needed - 1) * 10**6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", peers)
    monkeypatch.setattr(loader_processes, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(loader_processes.shutil, "disk_usage", lambda _path: free)
    need = re.escape(f"loader processes need {needed} MB in {tmp_path}, which has {needed - 1} MB free")
    with pytest.raises(Refused, match=need) as caught:
        check_shared_memory(10**8, 5, "use fewer")
    assert caught.value.hint == f"Enlarge it (docker run --shm-size={2 * needed}m), or use fewer."
    free.free += 10**6
    check_shared_memory(10**8, 5, "use fewer")


def test_other_systems_have_no_such_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(loader_processes, "_SHARED_MEMORY", tmp_path / "absent")
    check_shared_memory(10**18, 3, "use fewer")


@pytest.mark.parametrize(("processes", "batches", "in_flight"), [(0, 9, 0), (1, 9, 3), (3, 9, 7), (8, 9, 9), (2, 1, 1)])
def test_two_batches_of_each_process_and_one_in_use_are_in_flight(processes, batches, in_flight):
    assert batches_in_flight(processes, batches) == in_flight


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_processes_end_with_a_killed_parent_while_they_send_a_batch():
    """They hold the pipe of its output, which is at its end once they are gone."""
    call = subprocess.Popen([sys.executable, "-c", _KILLED], cwd=ROOT, stdout=subprocess.PIPE)
    out, _ = call.communicate(timeout=60)
    assert (call.returncode, out) == (-9, b"")
