"""Exhausted memory and killed worker processes are reported without a traceback; the same command resumes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from avloc.cli import exit_codes
from tests.processes import ROOT
from tests.synthetic_scenes import write_store

SMALL = (
    *("--no-audio-hint", "--no-visual-hint", "--init", "random", "--dim", "8", "--batch", "2", "--epochs", "1"),
    *("--vision-trunk", "shufflenet_v2_x0_5", "--audio-trunk", "shufflenet_v2_x0_5", "--set", "model.frame=64"),
)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("Caught RuntimeError in a process.\nTraceback:\nRuntimeError: can't allocate memory: 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.\nand more"),
    ],
)
def test_exhausted_memory_is_not_reported_as_a_bug(error: Exception, capsys) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        exit_codes.run(fail)
    err = capsys.readouterr().err
    assert end.value.code == 5
    assert "the memory is full" in err
    assert "Traceback" not in err
    assert "and more" not in err


FAILING = """
import sys
from avloc import dataset

def failing(_self, _index):
    raise MemoryError("no more")

dataset.ClipSet.__getitem__ = failing
sys.argv[0] = "avloc"
from avloc.cli import main
main()
"""


def test_a_failed_loader_process_does_not_block_the_command(tmp_path: Path) -> None:
    """Loader processes leave signals to their parent, which reports the error and must not wait for them."""
    store = write_store(tmp_path / "store", 6)
    command = ("train", store, "--out", tmp_path / "run", *SMALL, "--set", "workers=1")
    done = subprocess.run(
        [sys.executable, "-c", FAILING, *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, "the memory is full" in done.stderr) == (5, True), done.stderr


def test_a_killed_loader_process_is_reported_and_the_run_resumes(tmp_path: Path, here, monkeypatch) -> None:
    from avloc import dataset

    store, parent = write_store(tmp_path / "store", 6), os.getpid()
    command = ("train", store, "--out", tmp_path / "run", *SMALL, "--set", "workers=1")
    read = dataset.ClipSet.__getitem__

    def killed(self, index: int):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(dataset.ClipSet, "__getitem__", killed)
        done = here(*command)
    assert (done.code, "a process that reads clips has died" in done.err) == (5, True), done.err
    assert "Traceback" not in done.err
    assert here(*command).code == 0
