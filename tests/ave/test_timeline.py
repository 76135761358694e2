"""From videos to features, and to a picture of what happens when."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from avloc.ave import timeline_plot
from avloc.ave.localization import TimelinePredictor, VideoEventOptions, VideoEvents, window_starts
from avloc.ave.networks import build_network
from avloc.ave.teachers import Vgg19Teacher
from avloc.ave.timeline import Timeline
from avloc.ave.timeline_plot import attention_overlay, shown_classes, write_timeline
from avloc.ave.timeline_video import write_timeline_video
from avloc.checkpoint import save_model
from avloc.config import ModelConfig
from avloc.errors import InputError, WeightsError
from avloc.media import play
from avloc.networks.vggish import VGGish, log_mel_patches
from avloc.progress import silent
from avloc.registry import EVENT_SPECS, StoreSpec
from avloc.store import Hints
from avloc.transforms import IMAGENET_MEAN, IMAGENET_STD, normalise_frames
from avloc.weights import VGGISH, Located
from tests.media_makers import make_video, tone

CPU = torch.device("cpu")


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
    monkeypatch.setattr("avloc.ave.teachers.Vgg19Teacher.model", TinyVgg19())


def test_videos_become_features_and_a_timeline(tmp_path, here, tiny_teachers):
    ave = tmp_path / "AVE"
    ave.mkdir()
    for number in range(2):
        make_video(
            ave / f"vid-{number}.mp4", seconds=10.0, fps=4, sound=tone(10.0, 16_000) * (number + 1) / 4, rate=16_000
        )
    make_video(ave / "vid-2.mp4", seconds=3.0, fps=4, sound=tone(3.0, 16_000), rate=16_000)
    make_video(ave / "stranger.mp4", seconds=1.0, sound=tone(1.0, 22_050))
    lines = [f"Bell&vid-{n}&good&{n}&{n + 4}\n" for n in range(3)] + ["Dog&vid-0&good&5&7\n", "Dog&gone&good&0&10\n"]
    (ave / "Annotations.txt").write_text("Category&VideoID&Quality&StartTime&EndTime\n" + "".join(lines))
    data = tmp_path / "store"
    done = here("prepare", ave, "--layout", "ave", "--out", data, "--json")
    assert (done.code, json.loads(done.out)["stored"], json.loads(done.out)["missing"]) == (1, 2, ["vid-2", "gone"]), (
        done.err
    )
    assert "lasts 3.0 s; the annotations are of 10 s" in done.err
    done = here("train", data, "--method", "ave", "--out", tmp_path / "run", "--set", "ave.classes=2")
    assert (done.code, "avloc distill-cache" in done.err) == (5, True)
    done = here("distill-cache", data, "--teacher", "vgg19", "--teacher", "vggish")
    assert done.code == 0, done.err
    assert Hints(data, "vgg19").read("vid-1").shape == (10, 7, 7, 512)
    assert Hints(data, "vggish").read("vid-1").shape == (10, 128)
    flags = ("--set", "ave.classes=2", "--epochs", "1", "--batch", "2")
    done = here("train", data, "--method", "ave", "--out", tmp_path / "run", *flags)
    assert (done.code, "2 rows are left out" in done.err) == (0, True), done.err
    videos = [ave / "vid-0.mp4", ave / "stranger.mp4", ave / "Annotations.txt"]
    done = here("localize", *videos, "--events", "--model", tmp_path / "run", "--out", f"{tmp_path}/lines/", "--json")
    assert done.code == 1, done.err
    first, second, third = map(json.loads, done.out.splitlines())
    assert (first["seconds"], second["seconds"], third["seconds"]) == (10, 1, None)
    assert third["error"]
    assert {line["event"] for line in first["per_second"]} <= {"Bell", "Dog", "background"}
    assert sorted(path.name for path in (tmp_path / "lines").iterdir()) == ["stranger.png", "vid-0.png"]
    done = here("localize", ave / "stranger.mp4", "--events", "--model", tmp_path / "run", "--out", tmp_path / "o.mp4")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "o.mp4")), done.err
    (data / "events.json").unlink()
    done = here("distill-cache", data, "--teacher", "vggish")
    assert (done.code, "no events.json yet" in done.err) == (5, True), done.err
    stored = Hints(data, "vgg19").read("vid-0")
    assert np.isfinite(stored).all()


def test_only_maps_have_moments_and_styles(here, tmp_path):
    for flag, value in (("--at", "3"), ("--precision", "fp32"), ("--style", "box=false"), ("--object-prior", "none")):
        done = here("localize", __file__, "--events", flag, value)
        assert (done.code, f"{flag} does not go with --events" in done.err) == (2, True)
    done = here("localize", __file__, "--events")
    assert (done.code, "--events needs --model" in done.err) == (2, True)
    done = here("localize", __file__, "--events", "--out", "a.npy", "--model", tmp_path)
    assert (done.code, "valid: .png, .jpg, .jpeg, .webp, .gif, .mp4, or a folder" in done.err) == (2, True)


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
        silent=np.arange(seconds) == 2,
    )


@pytest.mark.parametrize(("seconds", "kind"), [(1, "PNG"), (10, "WEBP"), (75, "GIF"), (2, "JPEG")])
def test_a_timeline_of_any_length_is_a_picture_of_any_kind(tmp_path, seconds, kind):
    timeline = some_timeline(seconds)
    path = tmp_path / f"line.{kind.lower()}"
    write_timeline(path, timeline)
    with Image.open(path) as picture:
        assert (picture.format, picture.width > picture.height) == (kind, True)
    assert set(timeline.predicted.tolist()) <= set(shown_classes(timeline))


def test_a_video_is_lit_where_each_second_looks(tmp_path):
    source, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    make_video(source, seconds=3.4, fps=10, size=(224, 224), sound=tone(3.4, 22_050))
    attention = np.full((3, 7, 7), 0.001, np.float32)
    for second, cell in enumerate(((1, 1), (1, 5), (1, 3))):
        attention[second][cell] = 1
    movie = write_timeline_video(source, out, replace(some_timeline(3), attention=attention))
    before, after = list(play(source)), list(play(out))
    assert (movie.frames, movie.has_sound, len(after)) == (34, True, 34)
    for old, new in zip(before, after, strict=True):
        change = np.abs(new.picture().astype(int) - old.picture().astype(int)).sum(2)
        second, places = int(old.start), ((48, 48), (48, 176))
        lit = [change[y - 8 : y + 8, x - 8 : x + 8].mean() > 60 for y, x in places]
        assert lit == [second == 0, second == 1], (old.start, second)  # the third second is silent, then there is none


def test_the_video_bears_what_was_told(tmp_path, monkeypatch):
    make_video(tmp_path / "in.mp4", seconds=3.4, fps=5, sound=tone(3.4, 22_050))
    timeline = replace(some_timeline(3), probabilities=np.eye(4, dtype=np.float32)[[2, 3, 0]])
    captions = []

    def draw(picture, *_args, caption, **_how):
        captions.append(caption)
        return picture

    monkeypatch.setattr("avloc.ave.timeline_video.draw_overlay", draw)
    monkeypatch.setattr("avloc.ave.timeline_video.draw_silent", draw)
    write_timeline_video(tmp_path / "in.mp4", tmp_path / "out.mp4", timeline)
    assert list(dict.fromkeys(captions)) == ["Event 2 100 %", "background 100 %", "silent: no source", ""]


def test_a_video_is_no_place_for_its_own_timeline(tmp_path, here):
    videos = [make_video(tmp_path / f"{name}.mp4", seconds=1.0, sound=tone(1.0, 22_050)) for name in "ab"]
    before = videos[0].read_bytes()
    for given, out in ((videos[:1], videos[0]), (videos, tmp_path / "{stem}.mp4")):
        done = here("localize", *given, "--events", "--model", tmp_path, "--out", out)
        assert (done.code, "would overwrite the input" in done.err) == (2, True), done.err
    assert videos[0].read_bytes() == before


def test_a_line_says_what_happens_when_and_where():
    attention = np.full((3, 7, 7), 0.001, np.float32)
    attention[:, 1, 5] = 1  # second row, sixth column
    timeline = replace(some_timeline(3), probabilities=np.eye(4, dtype=np.float32)[[2, 3, 0]], attention=attention)
    line = VideoEvents(input="a", model="b", timeline=timeline).as_json()
    seconds = [tuple(entry.values()) for entry in line["per_second"]]
    place = [round(5.5 / 7, 4), round(1.5 / 7, 4)]
    assert seconds == [
        (0, "Event 2", False, 1.0, place),
        (1, "background", False, 1.0, place),
        (2, "background", True, None, None),  # silent, whatever the model says
    ]
    assert line["events"] == [{"event": "Event 2", "start": 0, "end": 1, "confidence": 1.0}]


def test_bars_bear_their_own_names_and_silence_is_shown_plain(monkeypatch):
    timeline = replace(some_timeline(3), probabilities=np.eye(4, dtype=np.float32)[[2, 3, 0]])
    figure = Figure()
    rows = shown_classes(timeline)
    image = timeline_plot._draw_bars(figure.add_subplot(), timeline, rows)
    names = [label.get_text() for label in image.axes.get_yticklabels()]
    assert names == [timeline.classes[row] for row in rows]
    assert np.array_equal(image.get_array(), timeline.probabilities[:, rows].T)
    monkeypatch.setattr(timeline_plot, "attention_overlay", lambda picture, _attention: np.zeros_like(picture))
    strip = figure.add_subplot()
    timeline_plot._draw_strip(strip, timeline, 3)
    shown = strip.images[0].get_array()
    assert [bool(shown[:, place * 112 : (place + 1) * 112].any()) for place in range(3)] == [False, False, True]


def test_a_model_that_says_nothing_finite_is_damaged(predictor, long_video):
    with torch.no_grad():
        predictor.model.network.L2.bias[0] = torch.nan
    with pytest.raises(WeightsError, match="not finite"):
        predictor.timeline(long_video[0])


@pytest.mark.parametrize(("length", "seconds"), [(1.6, 2), (1.4, 1)])
def test_the_last_second_may_be_short(predictor, tmp_path, length, seconds):
    path = make_video(tmp_path / "in.mp4", seconds=length, fps=10, size=(96, 48), sound=tone(length, 16_000))
    timeline = predictor.timeline(path)
    assert len(timeline.probabilities) == seconds
    assert timeline.aspect == 2
    make_video(tmp_path / "short.mp4", seconds=0.3, fps=10, sound=tone(0.3, 16_000))
    with pytest.raises(InputError, match=r"shorter than 0.5 s"):
        predictor.timeline(tmp_path / "short.mp4")


def test_a_video_that_breaks_off_leaves_nothing(tmp_path):
    make_video(tmp_path / "in.mp4", seconds=3.0, fps=10, size=(224, 224), sound=tone(3.0, 22_050))
    data = (tmp_path / "in.mp4").read_bytes()
    (tmp_path / "in.mp4").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError):
        write_timeline_video(tmp_path / "in.mp4", tmp_path / "out.mp4", some_timeline(3))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


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


# --- values -----------------------------------------------------------------------------------------------------


@pytest.fixture
def predictor(tmp_path, tiny_teachers) -> TimelinePredictor:
    torch.manual_seed(1)
    config = ModelConfig(**EVENT_SPECS["ave"].settings["model"], own={"classes": 2})
    save_model(tmp_path / "ave.safetensors", config, build_network(config).state_dict(), {"classes": ["Bell", "Dog"]})
    return TimelinePredictor(VideoEventOptions(inputs=(), model=tmp_path / "ave.safetensors", device="cpu"))


@pytest.fixture
def long_video(tmp_path):
    """17 s, of which the sound has the third to the twelfth."""
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.3, 0.3, 10 * 16_000) * np.repeat(np.linspace(0.2, 1, 10), 16_000)

    def frame(time: float) -> np.ndarray:
        return np.full((48, 64, 3), 10 * int(time) + 20, np.uint8)

    make_video(
        tmp_path / "long.mkv",
        seconds=17.0,
        fps=8,
        frame_fn=frame,
        sound=sound,
        rate=16_000,
        sound_start_s=2.0,
        audio_codec="pcm_s16le",
    )
    return tmp_path / "long.mkv", sound


def test_every_second_is_heard_and_seen_where_it_is(predictor, long_video):
    path, sound = long_video
    heard, without = predictor._audio_features(path, 17)
    assert np.flatnonzero(~without).tolist() == list(range(2, 12))
    for second in (2, 7, 11):
        own = torch.from_numpy(sound[(second - 2) * 16_000 : (second - 1) * 16_000].astype(np.float32))
        with torch.inference_mode():
            expected = predictor.vggish.embed(log_mel_patches(own[None], 16_000))[0, 0]
        torch.testing.assert_close(heard[0, second], expected, rtol=1e-3, atol=1e-4)
    seen, pictures = predictor._visual_features(path, 17, silent)
    levels = pictures.reshape(17, -1).mean(1)
    assert np.allclose(levels, 10 * np.arange(17) + 20, atol=4)
    colours = np.arange(17)[:, None] * 10 + 20 - 255 * np.array(IMAGENET_MEAN)
    assert np.allclose(seen[:, 3, 3, :3], colours / (255 * np.array(IMAGENET_STD)), atol=0.15)


def test_windows_are_averaged_second_by_second(predictor, long_video):
    path, _ = long_video
    timeline = predictor.timeline(path)
    heard, _ = predictor._audio_features(path, 17)
    seen = torch.from_numpy(predictor._visual_features(path, 17, silent)[0])[None]
    for second in range(17):
        predicted = []
        for start in (0, 5, 7):
            if start <= second < start + 10:
                window = slice(start, start + 10)
                part = predictor.model.predict(seen[:, window], heard[:, window])
                predicted.append(part.probabilities[0, second - start].numpy())
                assert np.allclose(timeline.attention[second], part.attention[0, second - start].numpy(), atol=1e-6)
        assert np.allclose(timeline.probabilities[second], np.mean(predicted, 0), atol=1e-6)
    assert np.allclose(timeline.probabilities.sum(1), 1, atol=1e-5)
    assert timeline.silent.tolist() == [not 2 <= second < 12 for second in range(17)]


def test_pictures_of_a_second_are_averaged(tiny_teachers):
    teacher = Vgg19Teacher(StoreSpec(seconds=2.0, rate=16_000), Located(path=None, hashes={}, verified=False), CPU)
    frames = np.random.default_rng(0).integers(0, 255, (32, 224, 224, 3), dtype=np.uint8)
    seen = teacher.features(frames)
    for second in range(2):
        own = torch.from_numpy(frames[16 * second : 16 * second + 16]).permute(0, 3, 1, 2)
        each = [teacher.model(normalise_frames(frame[None]))[0] for frame in own]
        assert np.allclose(seen[second], torch.stack(each).mean(0).permute(1, 2, 0).numpy(), atol=1e-4)


def test_what_is_attended_to_is_bright():
    attention = np.full((7, 7), 0.01, np.float32)
    attention[1, 5] = 0.5
    bright = attention_overlay(np.zeros((112, 112, 3), np.uint8), attention).sum(2)
    assert bright[24, 88] > 200
    assert bright[90, 20] < 20


def test_a_narrow_video_has_a_timeline(tmp_path):
    write_timeline(tmp_path / "line.png", replace(some_timeline(3), aspect=0.003))
    with Image.open(tmp_path / "line.png") as picture:
        assert picture.height < 2_000


def test_a_card_that_does_not_fit_is_named(tmp_path, here, tiny_teachers):
    config = ModelConfig(**EVENT_SPECS["ave"].settings["model"], own={"classes": 2})
    for classes in (["a"], 5, [1, 2]):
        save_model(tmp_path / "a.safetensors", config, build_network(config).state_dict(), {"classes": classes})
        done = here("localize", __file__, "--events", "--model", tmp_path / "a.safetensors")
        assert (done.code, "does not name as many" in done.err) == (4, True), done.err
