"""`localize --events`: features, windows and outputs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from avloc.ave.localization import TimelinePredictor, window_starts
from avloc.ave.networks import build_network
from avloc.checkpoint import save_model
from avloc.config import ModelConfig
from avloc.errors import InputError, WeightsError
from avloc.networks.vggish import log_mel_patches
from avloc.progress import silent
from avloc.registry import EVENT_SPECS
from avloc.store import Hints
from avloc.transforms import IMAGENET_MEAN, IMAGENET_STD
from tests.media_makers import make_video, tone


@pytest.fixture
def predictor(tmp_path, tiny_teachers) -> TimelinePredictor:
    torch.manual_seed(1)
    config = ModelConfig(**EVENT_SPECS["ave"].settings["model"], own={"classes": 2})
    save_model(tmp_path / "ave.safetensors", config, build_network(config).state_dict(), {"classes": ["Bell", "Dog"]})
    return TimelinePredictor(tmp_path / "ave.safetensors", device="cpu")


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


def test_videos_become_features_and_a_timeline(tmp_path, here, tiny_teachers):
    ave = tmp_path / "AVE"
    ave.mkdir()
    for number in range(2):
        make_video(
            ave / f"vid-{number}.mp4", seconds=10.0, fps=4, sound=tone(10.0, 16_000) * (number + 1) / 4, rate=16_000
        )
    make_video(ave / "vid-2.mp4", seconds=3.0, fps=4, sound=tone(3.0, 16_000), rate=16_000)
    make_video(ave / "other.mp4", seconds=1.0, sound=tone(1.0, 22_050))
    lines = [f"Bell&vid-{n}&good&{n}&{n + 4}\n" for n in range(3)] + ["Dog&vid-0&good&5&7\n", "Dog&gone&good&0&10\n"]
    (ave / "Annotations.txt").write_text("Category&VideoID&Quality&StartTime&EndTime\n" + "".join(lines))
    data = tmp_path / "store"
    done = here("prepare", ave, "--layout", "ave", "--out", data, "--json")
    assert (done.code, json.loads(done.out)["stored"], json.loads(done.out)["missing"]) == (1, 2, ["vid-2", "gone"]), (
        done.err
    )
    assert "lasts 3.0 s; events are labelled for 10 s" in done.err
    done = here("train", data, "--method", "ave", "--out", tmp_path / "run", "--set", "ave.classes=2")
    assert (done.code, "avloc distill-cache" in done.err) == (5, True)
    done = here("distill-cache", data, "--teacher", "vgg19", "--teacher", "vggish")
    assert done.code == 0, done.err
    assert Hints(data, "vgg19").read("vid-1").shape == (10, 7, 7, 512)
    assert Hints(data, "vggish").read("vid-1").shape == (10, 128)
    flags = ("--set", "ave.classes=2", "--epochs", "1", "--batch", "2")
    done = here("train", data, "--method", "ave", "--out", tmp_path / "run", *flags)
    assert (done.code, "2 rows are left out" in done.err) == (0, True), done.err
    videos = [ave / "vid-0.mp4", ave / "other.mp4", ave / "Annotations.txt"]
    done = here("localize", *videos, "--events", "--model", tmp_path / "run", "--out", f"{tmp_path}/lines/", "--json")
    assert done.code == 1, done.err
    first, second, third = map(json.loads, done.out.splitlines())
    assert (first["seconds"], second["seconds"], third["seconds"]) == (10, 1, None)
    assert third["error"]
    assert {line["event"] for line in first["per_second"]} <= {"Bell", "Dog", "background"}
    assert sorted(path.name for path in (tmp_path / "lines").iterdir()) == ["other.png", "vid-0.png"]
    done = here("localize", ave / "other.mp4", "--events", "--model", tmp_path / "run", "--out", tmp_path / "o.mp4")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "o.mp4")), done.err
    (data / "events.json").unlink()
    done = here("distill-cache", data, "--teacher", "vggish")
    assert (done.code, "no events.json yet" in done.err) == (5, True), done.err
    stored = Hints(data, "vgg19").read("vid-0")
    assert np.isfinite(stored).all()


def test_options_of_maps_are_refused_with_events(here, tmp_path):
    for flag, value in (("--at", "3"), ("--precision", "fp32"), ("--style", "box=false"), ("--object-prior", "none")):
        done = here("localize", __file__, "--events", flag, value)
        assert (done.code, f"{flag} does not apply to --events" in done.err) == (2, True)
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


def test_a_timeline_does_not_overwrite_its_video(tmp_path, here):
    videos = [make_video(tmp_path / f"{name}.mp4", seconds=1.0, sound=tone(1.0, 22_050)) for name in "ab"]
    before = videos[0].read_bytes()
    for given, out in ((videos[:1], videos[0]), (videos, tmp_path / "{stem}.mp4")):
        done = here("localize", *given, "--events", "--model", tmp_path, "--out", out)
        assert (done.code, "would overwrite the input" in done.err) == (2, True), done.err
    assert videos[0].read_bytes() == before


def test_an_output_that_is_not_finite_is_an_error_of_the_weights(predictor, long_video):
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


def test_features_are_of_their_own_second(predictor, long_video):
    path, sound = long_video
    audio, without = predictor._audio_features(path, 17)
    assert np.flatnonzero(~without).tolist() == list(range(2, 12))
    for second in (2, 7, 11):
        own = torch.from_numpy(sound[(second - 2) * 16_000 : (second - 1) * 16_000].astype(np.float32))
        with torch.inference_mode():
            expected = predictor.vggish.embed(log_mel_patches(own[None], 16_000))[0, 0]
        torch.testing.assert_close(audio[0, second], expected, rtol=1e-3, atol=1e-4)
    visual, pictures = predictor._visual_features(path, 17, silent)
    levels = pictures.reshape(17, -1).mean(1)
    assert np.allclose(levels, 10 * np.arange(17) + 20, atol=4)
    colours = np.arange(17)[:, None] * 10 + 20 - 255 * np.array(IMAGENET_MEAN)
    assert np.allclose(visual[:, 3, 3, :3], colours / (255 * np.array(IMAGENET_STD)), atol=0.15)


def test_windows_are_averaged_second_by_second(predictor, long_video):
    path, _ = long_video
    timeline = predictor.timeline(path)
    audio, _ = predictor._audio_features(path, 17)
    visual = torch.from_numpy(predictor._visual_features(path, 17, silent)[0])[None]
    for second in range(17):
        predicted = []
        for start in (0, 5, 7):
            if start <= second < start + 10:
                window = slice(start, start + 10)
                part = predictor.model.predict(visual[:, window], audio[:, window])
                predicted.append(part.probabilities[0, second - start].numpy())
                assert np.allclose(timeline.attention[second], part.attention[0, second - start].numpy(), atol=1e-6)
        assert np.allclose(timeline.probabilities[second], np.mean(predicted, 0), atol=1e-6)
    assert np.allclose(timeline.probabilities.sum(1), 1, atol=1e-5)
    assert timeline.silent.tolist() == [not 2 <= second < 12 for second in range(17)]
