"""Memory that runs out, and a process that dies, end in words; the same command goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from avloc.cli import edge
from tests.world import write_store

SMALL = (
    *("--no-audio-hint", "--no-visual-hint", "--init", "random", "--dim", "8", "--batch", "2", "--epochs", "1"),
    *("--vision-trunk", "shufflenet_v2_x0_5", "--audio-trunk", "shufflenet_v2_x0_5", "--set", "model.frame=64"),
)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.\nand more"),
    ],
)
def test_full_memory_is_no_bug(error: Exception, capsys) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        edge.run(fail)
    err = capsys.readouterr().err
    assert end.value.code == 5
    assert "the memory is full" in err
    assert "Traceback" not in err
    assert "and more" not in err


def test_a_reading_process_that_is_killed_is_named_and_the_run_goes_on(tmp_path: Path, here, monkeypatch) -> None:
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
    assert (done.code, "a process that reads clips is lost" in done.err) == (5, True), done.err
    assert "Traceback" not in done.err
    assert here(*command).code == 0
