"""Whole runs of `train`: killed and resumed, and begun on the CPU and continued on the device."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from avloc.networks.base import full_float32
from avloc.progress import Progress
from avloc.train import TrainOptions, train
from avloc.train.trainer_state import peek_state
from tests.gpu.results import Options, Row, at_least, at_most, equal
from tests.gpu.train_job import config
from tests.program import ROOT
from tests.run_folders import same_run
from tests.synthetic_scenes import write_store

_LOSS = 2e-2
"""Largest relative difference of the loss of the last epoch: the sums of some kernels of a GPU have no fixed order."""
_PATIENCE_S = 90.0


def small_store(options: Options) -> Path:
    """Eight scenes with both hints."""
    folder = options.work / "scenes"
    return folder if folder.is_dir() else write_store(folder, 8, hints=True)


def run(options: Options, name: str, epochs: int, device: str) -> Path:
    """Train in this process, without TF32; returns the run folder."""
    return _run(options, name, epochs, device)[0]


def _run(options: Options, name: str, epochs: int, device: str) -> tuple[Path, list[int]]:
    """The run folder, and the numbers of the steps that were made."""
    where = TrainOptions(store=small_store(options), out=options.work / name, device=device)
    steps: list[int] = []

    def note(event: object) -> None:
        if isinstance(event, Progress) and event.task == "training" and not event.milestone:
            steps.append(event.done)

    with full_float32():
        train(where, config(epochs), note)
    return where.out, steps


def _resume(options: Options, name: str, epochs: int, device: str) -> Iterator[Row]:
    """Resume a run; it must make the steps after its last save, and only those."""
    saved = peek_state(options.work / name).step
    out, steps = _run(options, name, epochs, device)
    total = peek_state(out).step
    made, wanted = (f"{each[0]} to {each[-1]}" for each in (steps, range(saved + 1, total + 1)))
    yield equal(f"{name}: steps after the save of step {saved}", made if saved else "no save", wanted)
    yield equal(f"{name}: epochs in the log", str(len(epochs_of(out))), str(epochs))


def epochs_of(folder: Path) -> list[dict[str, float]]:
    """The log of a run, one entry an epoch; empty for a run without one."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def kill_and_resume(options: Options) -> Iterator[Row]:
    """SIGKILL after the first save, then resume; beside an undisturbed run."""
    device, out = options.device.type, options.work / "killed"
    arguments = [str(small_store(options)), str(out), "--device", device, "--epochs", "10000", "--pause", "0.2"]
    command = [sys.executable, "-m", "tests.gpu.train_job", *arguments]
    with (options.work / "killed.log").open("w") as log:
        job = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for_save(job, out, options.patience_s(_PATIENCE_S))
        finally:
            job.kill()
            job.wait()
    epochs = len(epochs_of(out)) + 1
    yield from _resume(options, "killed", epochs, device)
    whole = run(options, "undisturbed", epochs, device)
    yield from _same_loss("killed and resumed", out, whole)
    is_same = "equal" if same_run(out, whole) else "different"
    if options.on_gpu:
        yield Row(name="killed and resumed: bits of the weights", value=is_same)
    else:
        yield equal("killed and resumed: bits of the weights", is_same, "equal")


def _wait_for_save(job: subprocess.Popen[bytes], out: Path, patience_s: float) -> None:
    end = time.monotonic() + patience_s
    while not ((out / "trainer-state.pt").is_file() and epochs_of(out)):
        if job.poll() is not None:
            raise RuntimeError(f"the run ended with {job.returncode}: {out.with_suffix('.log').read_text()[-3000:]}")
        if time.monotonic() > end:
            raise RuntimeError(f"nothing was saved within {patience_s:.0f} s")
        time.sleep(0.05)


def _same_loss(name: str, mine: Path, theirs: Path) -> Iterator[Row]:
    """The loss of the last epoch; that of the first, as weights begun anew would have, must be another one."""
    (first, *_, other), ours = ([each["loss"] for each in epochs_of(folder)] for folder in (theirs, mine))
    yield at_most(f"{name}: loss of the last epoch", abs(ours[-1] - other) / abs(other), _LOSS, "of its value")
    yield at_least(f"{name}: loss of the first epoch beside it", abs(first - other) / abs(other), 2 * _LOSS)


def from_cpu(options: Options) -> Iterator[Row]:
    """One epoch on the CPU, the next on the device, and one more on the CPU; beside epochs on the CPU alone."""
    run(options, "begun", 1, "cpu")
    yield from _resume(options, "begun", 2, options.device.type)
    yield from _same_loss("begun on the CPU", options.work / "begun", run(options, "whole", 2, "cpu"))
    yield from _resume(options, "begun", 3, "cpu")
