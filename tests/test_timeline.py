"""From videos to features, and to a picture of what happens when."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from avloc.localize.events import Timeline, window_starts
from avloc.localize.timeline import shown_classes, write_timeline
from avloc.networks.vggish import VGGish
from avloc.store import Hints
from avloc.weights import VGGISH, Located
from tests.media_makers import make_video, tone


class TinyVgg19(nn.Module):
    """Something with a picture's average colours in 49 cells, in place of twenty million weights."""

    def forward(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        cells = nn.functional.adaptive_avg_pool2d(frames_B3HW, 7)
        return cells.repeat(1, 171, 1, 1)[:, :512]


@pytest.fixture
def tiny_teachers(monkeypatch, tmp_path):
    """VGG19's file is named after a hash that no made-up weights can have, and the network takes minutes."""
    torch.manual_seed(0)
    heard = tmp_path / "weights" / VGGISH.files[0].name
    heard.parent.mkdir()
    torch.save(VGGish().state_dict(), heard)

    def locate(weight, **_):
        return Located(path=heard, hashes={weight.files[0].name: "0" * 64}, verified=False)

    monkeypatch.setattr("avloc.weights.locate", locate)
    monkeypatch.setattr("avloc.teachers.vgg19.Vgg19Teacher.model", TinyVgg19())


def test_videos_become_features_and_a_timeline(tmp_path, here, tiny_teachers):
    ave = tmp_path / "AVE"
    ave.mkdir()
    for number in range(3):
        make_video(
            ave / f"vid-{number}.mp4", seconds=10.0, fps=4, sound=tone(10.0, 16_000) * (number + 1) / 4, rate=16_000
        )
    make_video(ave / "stranger.mp4", seconds=1.0, sound=tone(1.0, 22_050))
    lines = [f"Bell&vid-{n}&good&{n}&{n + 4}\n" for n in range(3)] + ["Dog&vid-0&good&5&7\n", "Dog&gone&good&0&10\n"]
    (ave / "Annotations.txt").write_text("Category&VideoID&Quality&StartTime&EndTime\n" + "".join(lines))
    data = tmp_path / "store"
    done = here("prepare", ave, "--layout", "ave", "--out", data, "--json")
    assert (done.code, json.loads(done.out)["stored"], json.loads(done.out)["missing"]) == (0, 3, ["gone"]), done.err
    done = here("train", data, "--method", "ave", "--out", tmp_path / "run", "--set", "ave.classes=2")
    assert (done.code, "avloc distill-cache" in done.err) == (5, True)
    done = here("distill-cache", data, "--teacher", "vgg19", "--teacher", "vggish")
    assert done.code == 0, done.err
    assert Hints(data, "vgg19").read("vid-1").shape == (10, 7, 7, 512)
    assert Hints(data, "vggish").read("vid-1").shape == (10, 128)
    flags = ("--set", "ave.classes=2", "--epochs", "1", "--batch", "2")
    done = here("train", data, "--method", "ave", "--out", tmp_path / "run", *flags)
    assert (done.code, "1 rows are left out" in done.err) == (0, True), done.err
    videos = [ave / "vid-0.mp4", ave / "stranger.mp4", ave / "Annotations.txt"]
    done = here("localize", *videos, "--events", "--model", tmp_path / "run", "--out", f"{tmp_path}/lines/", "--json")
    assert done.code == 1, done.err
    first, second, third = map(json.loads, done.out.splitlines())
    assert (first["seconds"], second["seconds"], third["seconds"]) == (10, 1, None)
    assert third["error"]
    assert {line["event"] for line in first["per_second"]} <= {"Bell", "Dog", "background"}
    assert sorted(path.name for path in (tmp_path / "lines").iterdir()) == ["stranger.png", "vid-0.png"]
    stored = Hints(data, "vgg19").read("vid-0")
    assert np.isfinite(stored).all()


def test_only_maps_have_moments_and_styles(here, tmp_path):
    for flag, value in (("--at", "3"), ("--style", "box=false"), ("--object-prior", "none")):
        done = here("localize", __file__, "--events", flag, value)
        assert (done.code, f"{flag} is about maps" in done.err) == (2, True)
    done = here("localize", __file__, "--events")
    assert (done.code, "--events needs --model" in done.err) == (2, True)
    done = here("localize", __file__, "--events", "--out", "a.mp4", "--model", tmp_path)
    assert (done.code, "a timeline is a picture" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("seconds", "starts"), [(1, [0]), (10, [0]), (11, [0, 1]), (17, [0, 5, 7]), (25, [0, 5, 10, 15])]
)
def test_windows_cover_every_second(seconds, starts):
    assert window_starts(seconds) == starts
    covered = {second for start in starts for second in range(start, min(start + 10, seconds))}
    assert covered == set(range(seconds))


def some_timeline(seconds: int, classes: int = 3) -> Timeline:
    rng = np.random.default_rng(0)
    scores = rng.random((seconds, classes + 1)).astype(np.float32)
    attention = rng.random((seconds, 7, 7)).astype(np.float32)
    return Timeline(
        classes=(*(f"Event {number}" for number in range(classes)), "background"),
        probabilities=scores / scores.sum(1, keepdims=True),
        attention=attention / attention.sum((1, 2), keepdims=True),
        pictures=rng.integers(0, 255, (seconds, 112, 112, 3), dtype=np.uint8),
        aspect=16 / 9,
    )


@pytest.mark.parametrize("seconds", [1, 10, 75])
def test_a_timeline_of_any_length_is_a_picture(tmp_path, seconds):
    timeline = some_timeline(seconds)
    write_timeline(tmp_path / "line.png", timeline)
    with Image.open(tmp_path / "line.png") as picture:
        assert picture.width > picture.height
    assert set(timeline.told.tolist()) <= set(shown_classes(timeline))


def test_spans_are_runs_of_one_event():
    timeline = replace(
        some_timeline(6, 2),
        probabilities=np.eye(3, dtype=np.float32)[[0, 0, 2, 1, 1, 0]] * np.float32(0.8),
    )
    assert [(span.event, span.start, span.end, span.confidence) for span in timeline.spans] == [
        ("Event 0", 0, 2, 0.8),
        ("Event 1", 3, 5, 0.8),
        ("Event 0", 5, 6, 0.8),
    ]
