"""The command for a GPU runs on the CPU, also without the packages that a training step does not need."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from avloc.train.trainer_state import RunState
from tests.gpu import methods, runs
from tests.gpu.__main__ import CHECKS, main, rows
from tests.gpu.results import (
    FAILED,
    MEASURED,
    PASSED,
    SKIPPED,
    Options,
    Row,
    Skipped,
    at_least,
    at_most,
    attempted,
    equal,
)
from tests.gpu.stand_ins import dumps
from tests.program import ROOT

NOT_NEEDED = (
    *("av", "soxr", "soundfile", "librosa", "defusedxml", "panns_inference", "tomli_w"),
    *("pytest", "hypothesis"),
)
_WITHOUT = f"""
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {NOT_NEEDED!r} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
"""`sitecustomize.py` of an interpreter, and of those that it starts, in which these packages are not installed."""


def gpu(*arguments: object, path: str = "") -> list[dict]:
    """The rows of `python -m tests.gpu --device cpu --quick`."""
    out = Path(arguments[-1])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.gpu",
            "--device",
            "cpu",
            "--quick",
            *map(str, arguments[:-1]),
            "--json",
            str(out),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, str(ROOT)))), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert len(done.stdout.splitlines()) == len(found) + 1
    return found


def test_all_checks_run_on_the_cpu_without_packages_that_a_step_does_not_need(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(_WITHOUT)
    found = gpu(tmp_path / "out.json", path=str(tmp_path))
    outcomes = {row["name"]: row["outcome"] for row in found}
    assert {name for name, outcome in outcomes.items() if outcome == SKIPPED} == {"hints of PANNs"}
    assert FAILED not in outcomes.values()
    checked = {row["check"] for row in found if row["outcome"] in (PASSED, MEASURED)}
    assert checked == CHECKS.keys()


def test_hints_of_panns_are_timed_where_it_is_installed(tmp_path):
    found = gpu("--only", "hints", tmp_path / "out.json")
    expected = {f"hints of {name}, {kind}" for name in ("PANNs", "DETR") for kind in ("fp32", "bf16")}
    assert expected < {row["name"] for row in found}
    assert {row["outcome"] for row in found} == {MEASURED}


def test_a_failing_check_is_a_row_with_its_traceback():
    def broken() -> Iterator[Row]:
        yield Row(name="before")
        raise ValueError("no such card")

    def absent() -> Iterator[Row]:
        raise Skipped("a package is not installed")

    before, failed, skipped = [*attempted("broken", broken), *attempted("absent", absent)]
    assert (before.name, before.outcome) == ("before", MEASURED)
    assert (failed.name, failed.outcome) == ("broken", FAILED)
    assert "ValueError: no such card" in failed.reason
    assert (skipped.name, skipped.outcome, skipped.reason) == ("absent", SKIPPED, "a package is not installed")


def test_a_failed_row_is_the_exit_code(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--only", "copies", "--json", f"{tmp_path}/out.json"])
    monkeypatch.setitem(CHECKS, "copies", lambda _options: [Row(name="a"), equal("b", "x", "y")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert capsys.readouterr().out.splitlines()[-1] == "2 measured, 1 failed"
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(row["check"], row["name"], row["outcome"]) for row in found[:2]] == [
        ("copies", "a", MEASURED),
        ("copies", "b", FAILED),
    ]


def test_without_a_gpu_the_command_says_so(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        main()


def test_checks_are_skipped_when_the_time_is_over(tmp_path):
    late = Options(device=torch.device("cpu"), quick=True, work=tmp_path, ends=-math.inf)
    assert [(name, row.outcome) for name, row in rows(late, ["steps", "epoch"])] == [
        ("steps", SKIPPED),
        ("epoch", SKIPPED),
    ]


def test_rows_pass_up_to_their_bar():
    made = [at_most("a", 2.0, 2), at_most("a", 2.1, 2), at_most("a", float("nan"), 2), at_least("a", 2.0, 2)]
    made += [at_least("a", 1.9, 2), equal("a", "x", "x"), equal("a", "x", "y", "the log")]
    assert [row.outcome for row in made] == [PASSED, FAILED, FAILED, PASSED, FAILED, PASSED, FAILED]
    assert made[-1].text() == "failed    a  x  (bar y): the log"


@pytest.mark.parametrize(
    ("error", "on_cpu", "outcome", "bar"),
    [
        (9e-4, 1e-7, PASSED, "<= 0.001, fixed"),
        (2e-3, 3e-4, FAILED, "<= 0.001, fixed"),
        (2e-3, 8e-4, PASSED, "<= 0.002, 2.5 times that of the CPU"),
        (math.nan, 0.0, FAILED, "<= 0.001, fixed"),
        (0.0, 0.05, FAILED, ""),
    ],
)
def test_a_device_may_be_a_little_less_exact_than_the_cpu(error, on_cpu, outcome, bar):
    row = methods._error("gradients", error, on_cpu, 1e-3)
    assert (row.outcome, row.bar) == (outcome, bar)


def test_a_run_begun_anew_is_not_taken_for_a_resumed_one(monkeypatch, tmp_path):
    options = Options(device=torch.device("cpu"), quick=True, work=tmp_path, ends=math.inf)
    runs.run(options, "begun", 1, "cpu")
    monkeypatch.setattr("avloc.train.loop.load_state", lambda *_: RunState())
    steps, *_ = runs._resume(options, "begun", 2, "cpu")
    assert (steps.outcome, steps.value, steps.bar) == (FAILED, "1 to 4", "3 to 4")


def test_settings_are_written_without_tomli_w():
    table = {"train": {"epochs": 2, "optim": {"lr": 1e-5, "name": "adam"}, "thaw": ""}, "run": {"hints": ["a", 'b"c']}}
    assert tomllib.loads(dumps(table)) == table


def test_the_tree_is_small_without_the_shipped_models():
    """Machines with a GPU may take a limited copy of it: below 40 MB."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git repository")
    files = [ROOT / name for name in listed.stdout.split("\0") if name and not name.startswith("avloc/models/")]
    assert sum(path.stat().st_size for path in files if path.is_file()) < 40e6
