"""The same command gives the same bytes on one machine; with another number of threads, the same up to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.program import ROOT
from tests.small_models import save_small
from tests.synthetic_scenes import write_store

TRAIN = (
    *("--no-audio-hint", "--no-visual-hint", "--init", "random", "--dim", "8", "--batch", "8", "--epochs", "1"),
    *("--vision-trunk", "shufflenet_v2_x0_5", "--audio-trunk", "shufflenet_v2_x0_5"),
    *("--set", "model.frame=64", "--set", "precision=fp32", "--set", "workers=0"),
)
MAP_TOLERANCE = 1e-4
"""For a heat map in [0, 1]; README states it too."""
LOSS_TOLERANCE = 1e-4
"""Relative, for the first step with frozen trunks. Training amplifies rounding, above all in batch normalisation."""


def avloc(threads: int, *arguments: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "avloc", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("repeatable") / "store", 8)


def trained(threads: int, store: Path, out: Path, *more: str) -> tuple[bytes, float]:
    avloc(threads, "train", store, "--out", out, *TRAIN, *more)
    (line,) = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return (out / "last.safetensors").read_bytes(), line["loss"]


def test_training_twice_gives_the_same_bytes(store: Path, tmp_path: Path):
    assert trained(2, store, tmp_path / "a") == trained(2, store, tmp_path / "b")


def test_training_agrees_with_another_number_of_threads(store: Path, tmp_path: Path):
    frozen = ("--set", "freeze=true")
    losses = [trained(threads, store, tmp_path / f"{threads}", *frozen)[1] for threads in (1, 2)]
    assert losses[0] == pytest.approx(losses[1], rel=LOSS_TOLERANCE)


def test_maps_are_repeatable(tmp_path: Path):
    sound = ("--audio", ROOT / "tests" / "data" / "sound.wav")
    maps = []
    for threads, name in ((2, "a"), (2, "b"), (1, "c")):
        avloc(threads, "localize", ROOT / "tests" / "data" / "frame.jpg", *sound, "--out", tmp_path / f"{name}.npy")
        maps.append(np.load(tmp_path / f"{name}.npy"))
    assert np.array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).max() <= MAP_TOLERANCE


def test_scores_are_repeatable(store: Path, tmp_path: Path):
    model = save_small(tmp_path / "model.safetensors")
    runs = [json.loads(avloc(2, "eval", model, "--store", store, "--maps", "av", "--json")) for _ in range(2)]
    assert runs[0] == runs[1]
