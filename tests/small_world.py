"""Training in the synthetic world of `tests.world`, through the project's own commands, in minutes on two cores."""

from __future__ import annotations

import json
from pathlib import Path

from tests.program import avloc
from tests.world import pairs, write_world

TRAIN_FLAGS = (
    *("--vision-trunk", "resnet18:layer2", "--audio-trunk", "resnet18:layer2", "--dim", "64", "--init", "random"),
    *("--no-audio-hint", "--no-visual-hint", "--batch", "16", "--epochs", "16", "--set", "optim.lr=0.0005"),
    *("--set", "model.tau=0.1", "--set", "model.frame=128", "--set", "precision=fp32"),
)
"""Small enough for minutes on two cores. The trunk ends at layer2 because an untaught network's deeper cells see the
whole picture and need not say where a thing is."""


def run(*arguments: str) -> str:
    """One command of the project; its standard output."""
    done = avloc(*arguments, timeout=3600)
    print(done.stderr, end="")
    done.check_returncode()
    return done.stdout


def train_in_the_world(folder: Path, *, clips: int = 384) -> dict:
    """Prepare, train and score in the synthetic world; the report on unseen combinations of colours."""
    seen = write_world(folder / "seen", clips=clips, held_out=False, seed=1)
    unseen = write_world(folder / "unseen", clips=len(pairs(held_out=True)) * 6, held_out=True, seed=2)
    run("prepare", str(seen), "--out", str(folder / "train"))
    run("prepare", str(unseen), "--annotations", str(unseen / "boxes.json"), "--out", str(folder / "test"))
    run("train", str(folder / "train"), "--out", str(folder / "run"), *TRAIN_FLAGS)
    out = run("eval", "--store", str(folder / "test"), "--model", str(folder / "run"), "--maps", "av", "--json")
    return json.loads(out)
