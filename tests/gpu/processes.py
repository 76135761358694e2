"""Processes that share a batch: two on one GPU, one with NCCL, and two of which one fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from avloc.distributed import ALONE
from tests.distributed_job import step
from tests.gpu.results import Options, Row, at_most, equal
from tests.gpu.runs import small_store
from tests.program import ROOT

_CLOSE = 2e-5
"""Largest difference, relative to the largest gradient, or to the largest value of a term or statistic."""
_PATIENCE_S = 90.0
_MINUTE_S = 60.0


def start(command: Sequence[object], size: int, log: Path) -> list[subprocess.Popen[bytes]]:
    """Start `python -m COMMAND` in processes of one group, as a launcher would; each writes to a log of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [_start(command, size, rank, port, log) for rank in range(size)]


def _start(command: Sequence[object], size: int, rank: int, port: int, log: Path) -> subprocess.Popen[bytes]:
    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    environment = {**group, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with log.with_suffix(f".{rank}").open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            cwd=ROOT,
            env={**os.environ, **{name: str(value) for name, value in environment.items()}},
            stdout=file,
            stderr=file,
        )


def ended(jobs: Sequence[subprocess.Popen[bytes]], patience_s: float) -> list[int | None]:
    """Exit codes; None for a process that had to be killed when patience ended."""
    end, codes = time.monotonic() + patience_s, []
    for job in jobs:
        try:
            codes.append(job.wait(max(end - time.monotonic(), 0.1)))
        except subprocess.TimeoutExpired:
            job.kill()
            job.wait()
            codes.append(None)
    return codes


def two_ranks(options: Options) -> Iterator[Row]:
    """Two processes on one device, by gloo: seven clips, whole and shared unevenly."""
    out, log = options.work / "two.pt", options.work / "two.log"
    jobs = start(("tests.gpu.by_gloo", "tests.distributed_job", out, options.device.type), 2, log)
    codes = ended(jobs, options.patience_s(_PATIENCE_S))
    yield equal("two processes, one device: exit codes", str(codes), "[0, 0]", _end_of(log))
    for vectors, theirs in zip((False, True), torch.load(out, weights_only=True), strict=True):
        hints = "vectors" if vectors else "maps"
        mine = step(ALONE, vectors=vectors, device=options.device)
        yield at_most(f"two processes: difference from one, hints are {hints}", _difference(mine, theirs), _CLOSE)


def one_process(options: Options) -> Iterator[Row]:
    """Collectives and `DistributedDataParallel` in a group of one process, by NCCL on a GPU."""
    out, backend = options.work / "one.pt", "NCCL" if options.on_gpu else "gloo"
    command = [sys.executable, "-m", "tests.gpu.one_process_job", str(out), options.device.type]
    patience = options.patience_s(_PATIENCE_S)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patience, check=False)
    yield equal(f"one process, {backend}: exit code", str(done.returncode), "0", done.stderr[-3000:])
    mine = step(ALONE, vectors=False, device=options.device)
    yield at_most(f"one process, {backend}: difference", _difference(mine, torch.load(out, weights_only=True)), _CLOSE)


def _difference(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    if mine.keys() != theirs.keys():
        return float("inf")
    largest = max(value.abs().max().item() for name, value in mine.items() if name.startswith("gradient"))
    return max(
        (value - theirs[name]).abs().max().item()
        / (largest if name.startswith("gradient") else value.abs().max().item() + 1e-9)
        for name, value in mine.items()
    )


def one_raises(options: Options) -> Iterator[Row]:
    """Two processes that train together; the second raises in its third step, and the first has to end, too."""
    log = options.work / "raises.log"
    job = ("tests.gpu.train_job", small_store(options), options.work / "raises", "--device", options.device.type)
    jobs = start(("tests.gpu.by_gloo", *job, "--epochs", 1000, "--fails", 1), 2, log)
    first, second = jobs
    (second_code,) = ended([second], options.patience_s(_PATIENCE_S))
    failed_at = time.monotonic()
    (first_code,) = ended([first], _MINUTE_S)
    seconds = time.monotonic() - failed_at
    yield equal("one process raises: its exit code", str(second_code), "1", _end_of(log))
    outcome = "runs on" if first_code is None else "without an error" if first_code == 0 else "with an error"
    yield equal("one process raises: the other ends", outcome, "with an error", _end_of(log))
    told = "a planted failure" in log.with_suffix(".0").read_text()
    yield equal("one process raises: its reason in the error of the other", str(told), "True", _end_of(log))
    yield at_most("one process raises: seconds until the other ends", seconds, _MINUTE_S, "s")


def _end_of(log: Path) -> str:
    return "\n".join(path.read_text()[-1500:] for path in (log.with_suffix(".0"), log.with_suffix(".1")))
