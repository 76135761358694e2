"""The five commands in a row on real clips, through the real entry point.

No published teacher weights are at hand, so PANNs has random weights in the published layout, and the visual hints are
drawn from the boxes and come in as `.npy` files, the way AVC users hold theirs. What is shown: the whole machinery,
fed with real media, overfits a handful of clips until its heat maps sit inside the boxes. Nothing is said about unseen
clips.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from avloc.metrics import ground_truth
from tests.program import ROOT, avloc
from tests.teacher_makers import saved_teachers

CLIPS = ROOT.parent / "shared" / "clips"
DATA = ROOT.parent / "shared" / "data" / "classes"

pytestmark = pytest.mark.slow


def ran(*arguments: str, code: int = 0, timeout: float = 800) -> str:
    done = avloc(*arguments, timeout=timeout)
    assert done.returncode == code, done.stderr
    return done.stdout


def write_visual_hints(folder: Path, boxes: dict[str, list]) -> None:
    """25x25 attention maps that a perfect object teacher would give: even inside the boxes, summing to 1."""
    (folder / "detr_dec_feats").mkdir(parents=True)
    for name, these in boxes.items():
        truth = ground_truth(np.array(these), "union", 25)
        np.save(folder / "detr_dec_feats" / f"{Path(name).stem}.jpg.npy", truth / truth.sum())


def overfit(store: Path, folder: Path, boxes: dict[str, list], weights: Path, *, epochs: int, trunk: str) -> dict:
    """Hints, training and the report on the very clips it was trained on."""
    write_visual_hints(folder / "npy", boxes)
    ran("distill-cache", str(store), "--teacher", "panns", "--weights-dir", str(weights))
    ran("distill-cache", str(store), "--teacher", "detr", "--import-npy", str(folder / "npy"))
    flags = ("--init", "random", "--vision-trunk", trunk, "--audio-trunk", trunk, "--epochs", str(epochs))
    ran("train", str(store), "--out", str(folder / "run"), *flags, "--set", "optim.lr=0.0003")
    report = ran("eval", "--store", str(store), "--model", str(folder / "run"), "--maps", "av", "--json")
    return json.loads(report)


def peaks_inside(folder: Path, inputs: list[Path], boxes: dict[str, list], *more: str) -> int:
    """How many clips have the hottest pixel inside a box, as `localize --json` gives it."""
    lines = ran("localize", *map(str, inputs), "--model", str(folder / "run"), "--json", *more).splitlines()
    inside = 0
    for path, line in zip(inputs, map(json.loads, lines), strict=True):
        height, width = line["frame_hw"]
        x, y = (line["peak_xy"][0] + 0.5) / width, (line["peak_xy"][1] + 0.5) / height
        inside += any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes[path.name])
    return inside


@pytest.mark.skipif(not CLIPS.is_dir(), reason=f"no real clips beside the repository ({CLIPS.name})")
def test_a_handful_of_real_clips_is_overfitted(tmp_path, tmp_path_factory):
    listed = json.loads((CLIPS / "boxes.json").read_text())
    boxes = {name: entry["boxes"] for name, entry in listed.items()}
    inputs = sorted(CLIPS / name for name in boxes)
    store = tmp_path / "store"
    ran("prepare", *map(str, inputs), "--annotations", str(CLIPS / "boxes.json"), "--out", str(store))
    weights = saved_teachers(tmp_path_factory)
    report = overfit(store, tmp_path, boxes, weights, epochs=80, trunk="resnet18:layer2")
    assert report["n_scored"] == report["n_expected"] == 11
    assert report["missing"] == {}
    assert peaks_inside(tmp_path, inputs, boxes, "--out", f"{tmp_path}/heat/") >= 10
    assert len(list((tmp_path / "heat").glob("*.png"))) == 11
    wrong = ran("localize", str(CLIPS / "tv_basketball.mp4"), "--model", str(tmp_path / "run"), "--json", code=3)
    assert "no sound" in json.loads(wrong)["error"]
