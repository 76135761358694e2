"""Processes that decode are forked from a server that has imported what they need, and little else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bench.timing import python
from tests.program import ROOT

_MODULES = """
from concurrent.futures import ProcessPoolExecutor
from avloc.fork_server import process_context, start_server
start_server()
with ProcessPoolExecutor(1, mp_context=process_context()) as pool:
    print(*pool.submit(eval, "__import__('sys').modules.keys() & {'av', 'avloc.prepare.clips', 'torch'}").result())
"""
_KILLED = """
import os, signal
from avloc.fork_server import start_server
start_server()
os.kill(os.getpid(), signal.SIGKILL)
"""


_IN_A_PROGRAM = """
from multiprocessing import forkserver
from avloc.fork_server import process_context
forkserver.set_forkserver_preload(["json"])
process = process_context().Process(target=print)
process.start()
process.join()
print(forkserver._forkserver._preload_modules)
"""


def test_new_process_has_its_modules():
    imported = {"av", "avloc.prepare.clips"} if sys.platform == "linux" else set()
    assert set(python("-c", _MODULES).stdout.split()) == imported


def test_a_program_keeps_the_modules_of_its_own_server():
    assert python("-c", _IN_A_PROGRAM).stdout.split("\n")[-2] == "['json']"


@pytest.mark.skipif(sys.platform != "linux", reason="there is no server elsewhere")
def test_server_ends_with_the_process_that_started_it():
    """It holds the pipe of its output, which is at its end once the server is gone."""
    call = subprocess.Popen([sys.executable, "-c", _KILLED], cwd=ROOT, stdout=subprocess.PIPE)
    out, _ = call.communicate(timeout=60)
    assert (call.returncode, out) == (-9, b"")
