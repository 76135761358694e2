"""Processes that share a batch unevenly compute the loss and gradient of the whole batch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from avloc.distributed import ALONE, Peers, joined
from avloc.errors import UsageError
from avloc.store import Clip, Store, StoreWriter
from avloc.train import TrainOptions, train
from avloc.weights.torch_files import load_plain
from tests import methods_job
from tests.distributed_job import step
from tests.program import ROOT
from tests.run_folders import tensors
from tests.small_training import CONFIG, SMALL_FLAGS, changed
from tests.synthetic_scenes import write_store


def torchrun(processes: int, *command: object, **options) -> subprocess.CompletedProcess[str]:
    """Run `torchrun --nproc-per-node`, through `-m` so that it uses this interpreter."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [*launcher, *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def alone() -> list[dict[str, torch.Tensor]]:
    return [step(ALONE, vectors=vectors) for vectors in (False, True)]


@pytest.mark.parametrize("processes", [2, 4])
def test_shared_batches_have_the_loss_and_gradient_of_whole_ones(tmp_path, alone, processes):
    """Seven clips: 3 + 4, and 1 + 2 + 2 + 2; some processes have no boxes or no visual hints."""
    job = torchrun(processes, "-m", "tests.distributed_job", tmp_path / "out.pt")
    assert job.returncode == 0, job.stderr
    for mine, theirs in zip(alone, torch.load(tmp_path / "out.pt", weights_only=True), strict=True):
        assert mine.keys() == theirs.keys()
        assert {"term contrastive", "term box", "term peak", "term audio_hint", "term visual_hint"} <= mine.keys()
        largest = max(value.abs().max() for name, value in mine.items() if name.startswith("gradient"))
        for name, value in mine.items():
            scale = largest if name.startswith("gradient") else value.abs().max()
            assert (value - theirs[name]).abs().max() <= 2e-5 * scale + 1e-9, name


@pytest.mark.slow
def test_every_method_has_the_loss_and_gradient_of_whole_batches(tmp_path):
    """Seven clips in two processes; batch normalisation in SSPL uses statistics of all of them."""
    job = torchrun(2, "-m", "tests.methods_job", tmp_path / "out.pt")
    assert job.returncode == 0, job.stderr
    shared = torch.load(tmp_path / "out.pt", weights_only=True)
    for method, theirs in zip(methods_job.METHODS, shared, strict=True):
        mine = methods_job.step(method, ALONE)
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert (value - theirs[name]).abs().max() <= 1e-9 + 1e-7 * value.abs().max(), (method, name)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("parallel") / "store", 10, hints=True)


def test_a_run_resumes_with_another_number_of_processes(tmp_path, store):
    """One epoch in two processes and the second in one equal two epochs in one process, up to rounding."""
    flags = [*SMALL_FLAGS, "--set", "batch=5", "--val", "0.3", "--json"]
    begun = torchrun(2, "-m", "avloc", "train", store, "--out", tmp_path / "run", "--epochs", 1, *flags)
    assert begun.returncode == 0, begun.stderr
    assert "Warning" not in begun.stderr
    report = json.loads(begun.stdout)  # one line: only the first process prints
    assert report["epochs_done"] == 1
    options = TrainOptions(store=store, out=tmp_path / "run", val="0.3")
    whole = TrainOptions(store=store, out=tmp_path / "whole", val="0.3")
    config = changed(CONFIG, batch=5, workers=1)
    train(options, config)
    train(whole, config)
    logs = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("run", "whole")
    ]
    assert [line["epoch"] for line in logs[0]] == [1, 2]
    for mine, theirs in zip(*logs, strict=True):
        assert mine.keys() == theirs.keys()
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=0.02)
    mine, theirs = (tensors(tmp_path / run / "last.safetensors") for run in ("run", "whole"))
    assert mine.keys() == theirs.keys()


def test_fewer_clips_in_a_batch_than_processes_are_refused(tmp_path, store):
    with pytest.raises(UsageError, match="batches of 3 clips are too few for 4 processes"):
        train(TrainOptions(store=store, out=tmp_path / "run"), changed(CONFIG, batch=3), peers=Peers(1, 4))
    assert not (tmp_path / "run").exists()


def test_processes_with_different_files_are_refused(tmp_path, store):
    train(TrainOptions(store=store, out=tmp_path / "r0" / "run"), changed(CONFIG, epochs=1, workers=1))
    in_own_folder = 'mkdir -p r$RANK && cd r$RANK && exec "$0" -m avloc train "$@"'
    job = torchrun(2, "--no-python", "bash", "-c", in_own_folder, sys.executable, store, "--out", "run", *SMALL_FLAGS,
                   "--epochs", 2, cwd=tmp_path)  # fmt: skip
    assert job.returncode != 0
    assert job.stderr.count("process 1 of 2 differs from process 0 in: steps") == 2
    assert "bug in avloc" not in job.stderr


def test_a_failure_in_one_process_ends_the_others_without_a_bug_report(tmp_path):
    broken = write_store(tmp_path / "store", 4)
    spec = Store(broken).spec
    with StoreWriter(broken, Store(broken).header) as writer:
        sound = np.zeros(spec.samples, np.int16)
        writer.add(Clip(id="zzz", picture=b"damaged", sound=sound, frame_hw=(64, 64)))
    flags = [*SMALL_FLAGS, "--no-audio-hint", "--no-visual-hint", "--set", "batch=5", "--epochs", 1]
    job = torchrun(2, "-m", "avloc", "train", broken, "--out", tmp_path / "run", *flags)
    assert job.returncode != 0
    assert re.search(r"process [01] of 2 failed: clip zzz of the store is damaged", job.stderr)
    assert "bug in avloc" not in job.stderr


def run_with_fault(fault: str, store: Path, out: Path, *, hung: int | None = None) -> list[tuple[int, str]]:
    """Exit code and output of each of two processes; `hung` is killed once the other has ended."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun has
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **shared, "TORCHELASTIC_USE_AGENT_STORE": "True", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.faulty_job", fault, str(store), str(out)]
    jobs = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        if hung is not None:
            jobs[1 - hung].wait(120)
            jobs[hung].kill()
        outputs = [job.communicate(timeout=120)[0] for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    return [(job.returncode, output) for job, output in zip(jobs, outputs, strict=True)]


@pytest.mark.parametrize(
    ("fault", "rank", "reason"),
    [
        ("load", 1, "process 1 of 2 failed: clip 7 of the store is damaged"),
        ("forward", 1, "process 1 of 2 failed: ValueError: a bug"),
        ("backward", 1, "process 1 of 2 failed: MemoryError: no memory"),
        ("save", 0, "process 0 of 2 failed: OSError: [Errno 28] No space left on device"),
        ("validation", 0, "process 0 of 2 failed: clip 7 of the store is damaged"),
        ("kill", 1, "another process of this run has ended"),
    ],
)
def test_a_fault_of_one_process_ends_the_others_with_its_reason(tmp_path, store, fault, rank, reason):
    """At once: nobody waits for the timeout, whose error is another."""
    ended = run_with_fault(fault, store, tmp_path / "run")
    code, output = ended.pop(rank)
    assert code not in (0, -signal.SIGABRT), output
    assert ended[0][0] == 5, ended[0][1]
    assert reason in ended[0][1]


def test_a_process_that_hangs_ends_the_others_after_the_timeout(tmp_path, store):
    ended = run_with_fault("hang", store, tmp_path / "run", hung=1)
    assert ended[0][0] == 5, ended[0][1]
    assert "another process of this run has not answered for" in ended[0][1]


@pytest.mark.parametrize("fault", ["slow validation", "slow save"])
def test_others_wait_longer_than_the_timeout_for_validation_and_saving(tmp_path, store, fault):
    assert run_with_fault(fault, store, tmp_path / "run") == [(0, "1 False\n")] * 2


def test_a_stop_in_one_process_stops_all_after_the_same_step(tmp_path, store):
    assert run_with_fault("stop", store, tmp_path / "run") == [(0, "0 True\n")] * 2
    assert load_plain(tmp_path / "run" / "trainer-state.pt")["progress"]["step"] == 1


@pytest.mark.parametrize(("rank", "complaint"), [("0", "MASTER_ADDR"), ("2", "are invalid")])
def test_incomplete_launcher_variables_are_refused(monkeypatch, rank, complaint):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UsageError, match=complaint), joined():
        pass


def test_one_gpu_for_several_processes_is_refused(tmp_path, store):
    options = TrainOptions(store=store, out=tmp_path / "run", device="cuda:1")
    with pytest.raises(UsageError, match="cuda:1 is one GPU for 2 processes"):
        train(options, changed(CONFIG), peers=Peers(0, 2))


def test_an_interrupted_launcher_leaves_a_resumable_run(tmp_path, store):
    """The launcher signals whole process groups, loader processes included."""
    flags = [*SMALL_FLAGS, "--epochs", "100000", "--out", str(tmp_path / "run")]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "avloc"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen([*launcher, "train", str(store), *flags], env=environment, stdout=log, stderr=log)
        wait_until((tmp_path / "run" / "trainer-state.pt").is_file)
        job.send_signal(signal.SIGTERM)
        assert job.wait(60) != 0
    output = (tmp_path / "log").read_text()
    assert "bug in avloc" not in output
    assert "interrupted" in output
    assert load_plain(tmp_path / "run" / "trainer-state.pt")["progress"]["step"] > 0


def wait_until(ready) -> None:
    for _ in range(600):
        if ready():
            return
        time.sleep(0.1)
    raise AssertionError("nothing was saved within a minute")
