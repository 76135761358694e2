"""All five commands in sequence on synthetic videos, and training that learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avloc.store import Store
from tests.media_makers import make_video
from tests.program import ROOT, avloc
from tests.synthetic_scenes import RATE, SIDE, scenes
from tests.synthetic_training import train_on_synthetic_scenes
from tests.teacher_makers import saved_teachers


def ran(*arguments: str, code: int = 0, **environment: str) -> str:
    done = avloc(*arguments, timeout=600, **environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Eight videos of 3.2 s and their boxes; one has neither sound nor box."""
    folder = tmp_path_factory.mktemp("videos")
    boxes = {}
    for number, scene in enumerate(scenes(7, held_out=False, seed=4)):
        rgb = np.asarray(scene.picture)
        sound = np.concatenate([scene.waveform, scene.waveform[: RATE // 5]])
        make_video(
            folder / f"clip{number}.mp4",
            seconds=3.2,
            fps=5,
            size=(SIDE, SIDE),
            frame_fn=lambda _time, rgb=rgb: rgb,
            sound=sound,
        )
        boxes[f"clip{number}.mp4"] = [list(scene.box)]
    make_video(folder / "mute.mp4", seconds=3.2, fps=5, sound=None)
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return folder


@pytest.mark.slow
def test_five_commands_from_videos_to_a_picture(videos, tmp_path, tmp_path_factory):
    store, test, run = str(tmp_path / "train"), str(tmp_path / "data" / "mine"), str(tmp_path / "run")
    weights = ("--weights-dir", str(saved_teachers(tmp_path_factory)))
    out = ran("prepare", str(videos), "--out", store, "--json", code=1)
    assert (json.loads(out)["stored"], json.loads(out)["failed"]) == (7, 1)
    assert "has no sound" in (tmp_path / "train" / "skipped.jsonl").read_text()
    ran("prepare", str(videos), "--annotations", str(videos / "boxes.json"), "--out", test, code=1)

    cached = json.loads(ran("distill-cache", store, *weights, "--json"))
    assert {row["teacher"]: row["done"] for row in cached["teachers"]} == {"panns": 7, "detr": 7}
    again = json.loads(ran("distill-cache", store, *weights, "--json"))
    assert {row["teacher"]: (row["done"], row["already"]) for row in again["teachers"]} == {
        "panns": (0, 7),
        "detr": (0, 7),
    }

    trunks = ("--vision-trunk", "resnet18:layer2", "--audio-trunk", "resnet18:layer2", "--init", "random")
    small = ("--set", "model.frame=96", "--epochs", "3", "--batch", "4", "--set", "optim.lr=0.001")
    trained = json.loads(ran("train", store, "--out", run, *trunks, *small, "--json"))
    assert trained["epochs_done"] == 3
    first, *_, last = trained["metrics"]
    assert last["audio_hint"] < first["audio_hint"]
    assert {"visual_hint", "contrastive"} <= set(last)

    report = json.loads(
        ran("eval", "--testset", "mine", "--model", run, "--maps", "av", "--json", AVLOC_DATA=f"{tmp_path}/data")
    )
    assert (report["n_scored"], report["n_expected"], report["missing"]) == (7, 7, {})
    assert set(report["maps"]) == {"av"}

    heat = tmp_path / "heat.png"
    shown = ran("localize", str(videos / "clip0.mp4"), "--model", run, "--out", str(heat))
    assert shown.strip() == str(heat)
    assert size_of(heat) == (SIDE, SIDE)


@pytest.mark.slow
def test_training_learns_which_object_sounds(tmp_path):
    """On held-out combinations of colours, far above what positions alone can give."""
    report = train_on_synthetic_scenes(tmp_path, clips=240, epochs=12)
    assert report["n_scored"] == len(Store(tmp_path / "test"))
    found = report["maps"]["av"]["overall"]["ciou_50"]
    assert found >= 0.7
    for baseline in ("centre disc", "whole frame", "random", "sound ignored"):
        assert found >= report["baselines"][baseline]["overall"]["ciou_50"] + 0.3, baseline
    assert found >= report["baselines"]["centre disc"]["overall"]["ciou_50"] + 0.5


def test_the_shipped_model_runs_offline(tmp_path):
    """On the media in the repository: coloured shapes, which the model was not trained on."""
    media = ROOT / "tests" / "data"
    flags = ("--audio", str(media / "sound.wav"), "--out", str(tmp_path / "heat.png"), "--json")
    line = json.loads(ran("localize", str(media / "frame.jpg"), *flags, https_proxy="http://127.0.0.1:9"))
    assert (line["model"], line["error"]) == ("avloc-lite", None)
    assert 0 < line["match"] < 1
    assert size_of(tmp_path / "heat.png") == (SIDE, SIDE)
