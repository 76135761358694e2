"""Progress in a log: standard error that is not a terminal."""

from __future__ import annotations

import pytest

from avloc.console.terminal import live
from avloc.progress import Notice, Progress
from tests.command_lines import SMALL_TRAINING
from tests.synthetic_scenes import write_store


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_every_five_minutes(capsys):
    clock = Clock()
    with live(clock) as listener:
        for done in range(1, 101):
            clock.now += 10.0
            listener(Progress(task="prepare", done=done, total=100, detail=f"clip{done}"))
        clock.now += 199.0
        listener(Progress(task="download", done=7))
        clock.now += 1.0
        listener(Progress(task="download\x1b", done=8, detail="a\nb"))
    shown = [f"avloc: prepare {done}/100  clip{done}" for done in (30, 60, 90)]
    assert capsys.readouterr().err.splitlines() == [*shown, "avloc: download\\x1b 8  a\\nb"]


def test_short_tasks_print_only_notices_and_milestones(capsys):
    with live(Clock()) as listener:
        for done in range(1, 7):
            listener(Progress(task="training", done=done, total=6, detail="loss 1"))
            if done % 3 == 0:
                listener(Progress(task="training", done=done, total=6, detail=f"epoch {done // 3}/2", milestone=True))
        listener(Notice("a word"))
    assert capsys.readouterr().err.splitlines() == [
        "avloc: training 3/6  epoch 1/2",
        "avloc: training 6/6  epoch 2/2",
        "avloc: a word",
    ]


@pytest.mark.parametrize("val", [(), ("--val", "0.5")])
def test_train_prints_a_line_per_epoch_without_a_terminal(tmp_path, here, val):
    store = write_store(tmp_path / "store", 8)
    done = here("train", store, "--out", tmp_path / "run", *SMALL_TRAINING, "--epochs", "3", *val, "--json")
    assert done.code == 0
    lines = [line for line in done.err.splitlines() if line.startswith("avloc: training ")]
    assert [line.split("  ")[1] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("loss " in line for line in lines)
    assert all(("val " in line) == bool(val) for line in lines)
    assert done.out.count("\n") == 1, "standard output stays one line of JSON"
