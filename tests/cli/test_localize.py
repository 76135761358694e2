"""`avloc localize` with several inputs and times: output paths, skipping, progress, and what it imports."""

from __future__ import annotations

import errno
from itertools import combinations
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import avloc
from avloc.localize import InputDone, LocalizeOptions, Times, localize
from avloc.media.probing import probe
from avloc.media.video_frames import read_frame
from avloc.progress import Notice, Progress
from tests import program
from tests.clip_folder import make_clip
from tests.json_output import json_lines
from tests.media_makers import make_sound, tone
from tests.responsive_model import RATE, save_responsive

FLAT = {"slope": 1e-9}
"""A match that depends on the offset alone."""
MATCHES = "match 0.88: the source is in the picture"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    return save_responsive(path, verdict={**FLAT, "offset": 2.0, "least_effect": 0.001})


def test_a_folder_with_one_bad_clip(here, clips, model, tmp_path):
    done = here("localize", clips, "--model", model, "--out", tmp_path)
    assert (done.code, done.out) == (1, f"{tmp_path}/a.png\n{tmp_path}/b.png\n")
    assert f"{clips}/c.avi: cannot be decoded" in done.err
    assert f"{clips}/a.mp4: {MATCHES}\n" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


# --- times ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "times"),
    [
        ((), [2.0]),
        (("--at", 1.2), [1.2]),
        (("--at", 0), [0.0]),
        (("--every", 1), [0.0, 1.0, 2.0, 3.0]),
        (("--every", 1.5, "--start", 0.6), [0.6, 2.0, 3.6]),
        (("--every", 1, "--end", 2), [0.0, 1.0]),
        (("--start", 1, "--end", 2), [1.4]),
        (("--start", 3), [3.4]),
        (("--every", 100), [0.0]),
    ],
)
def test_one_json_line_per_time(here, clips, model, flags, times):
    done = here("localize", clips / "a.mp4", "--model", model, "--json", *flags)
    assert (done.code, done.err) == (0, "")
    assert [line["time_s"] for line in json_lines(done.out)] == pytest.approx(times), (
        "when the picture then shown appeared"
    )


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--at", 9), 3, "has no picture at 9 s: the video ends at 4.000 s"),
        (("--start", 4), 3, "has no picture after 4 s"),
        (("--at", -1), 2, "--at -1 is impossible; valid: 0 seconds or more"),
        (("--every", 0), 2, "--every 0 is impossible; valid: 0.01 seconds or more"),
        (("--start", 3, "--end", 2), 2, "--end 2 is not after the start, 3 s"),
        (("--at", 1, "--every", 1), 2, "--at is a single time and cannot be combined with --every, --start or --end"),
        (("--at", 1, "--out", "h.mp4"), 2, "--at is a single time and --out h.mp4 a video"),
        (("--skip-existing", "--json"), 2, "--skip-existing needs --out"),
        (("--skip-existing", "--out", "{time}.png"), 2, "cannot know the time in --out {time}.png in advance"),
        (("--map-weights", "av"), 2, "'av' is not name=number"),
        (("--map-weights", "av=1,object=1"), 2, "--map-weights names av, object; the maps are av"),
        (("--object-prior", "nonsense"), 2, "unknown object prior 'nonsense'"),
        (("--style", "box"), 2, "is not key=value"),
    ],
)
def test_invalid_combinations_of_options(here, clips, model, tmp_path, monkeypatch, flags, code, words):
    monkeypatch.chdir(tmp_path)
    done = here("localize", clips / "a.mp4", "--model", model, *flags)
    assert (done.code, words in done.err, "Traceback" in done.err) == (code, True, False), done.err
    assert list(tmp_path.iterdir()) == []


def test_a_prior_without_weights(here, offline, clips, model):
    done = here("localize", clips / "a.mp4", "--model", model, "--json", "--object-prior", "resnet18")
    assert (done.code, done.out) == (4, "")
    assert "resnet18" in done.err


def test_the_deprecated_flag_of_map_weights_works_with_a_notice(here, clips, model, tmp_path):
    def arrays(flag: str) -> tuple[str, bytes]:
        out = tmp_path / f"{flag}.npy"
        fused = ("--object-prior", "own", flag, "av=1,own=3")
        done = here("localize", clips / "a.mp4", "--model", model, "--out", out, *fused)
        assert done.code == 0, done.err
        return done.err, out.read_bytes()

    (old_messages, old), (messages, new) = arrays("--weights"), arrays("--map-weights")
    assert "avloc: --weights is deprecated; use --map-weights\n" in old_messages
    assert "deprecated" not in messages
    assert old == new
    both = here("localize", clips / "a.mp4", "--model", model, "--weights", "av=1", "--map-weights", "av=1")
    assert (both.code, "--weights is the old spelling of --map-weights" in both.err) == (2, True)
    assert "--weights <" not in here("localize", "--help").out


def test_a_picture_has_no_times(here, clips, model, tmp_path):
    sound = make_sound(tmp_path / "s.wav", tone(3, RATE), RATE)
    done = here("localize", clips / "p.png", "--audio", sound, "--model", model, "--json", "--every", 1)
    assert (done.code, json_lines(done.out)[0]["error"]) == (
        *(3, "is a picture; --every, --start and --end apply to videos only"),
    )


def test_a_picture_without_suffix_is_recognized_by_its_bytes(here, clips, model, tmp_path):
    sound = make_sound(tmp_path / "s.wav", tone(3, RATE), RATE)
    (tmp_path / "picture").write_bytes((clips / "p.png").read_bytes())
    done = here("localize", tmp_path / "picture", "--audio", sound, "--model", model, "--json")
    assert (done.code, json_lines(done.out)[0]["frame_hw"]) == (0, [48, 64])


def test_a_video_with_another_sound(here, clips, model, tmp_path):
    sound = make_sound(tmp_path / "s.wav", tone(4, RATE, hz=300), RATE)
    (own,) = json_lines(here("localize", clips / "a.mp4", "--model", model, "--json").out)
    (line,) = json_lines(here("localize", clips / "a.mp4", "--audio", sound, "--model", model, "--json").out)
    assert (line["time_s"], line["frame_hw"]) == (own["time_s"], own["frame_hw"])
    frame, time_s = read_frame(clips / "a.mp4")
    start = round((time_s - 1.5) * RATE)
    reference = avloc.load(model).localize(frame, tone(4, RATE, hz=300)[start : start + 3 * RATE], RATE)
    assert line["peak_similarity"] == pytest.approx(reference.peak_similarity, abs=1e-3)
    assert line["peak_similarity"] != pytest.approx(own["peak_similarity"], abs=1e-2)


# --- outputs of several times -----------------------------------------------------------------------------------


def test_one_picture_per_time(here, clips, model, tmp_path):
    out = f"{tmp_path}/{{stem}}/at {{time}}.jpg"
    done = here("localize", clips / "a.mp4", clips / "b.mkv", "--model", model, "--every", 1.5, "--out", out)
    names = [f"{tmp_path}/{stem}/at 000{time}00.jpg" for stem in "ab" for time in ("0.0", "1.5", "3.0")]
    assert (done.code, done.out.splitlines()) == (0, names)
    for name in names:
        with Image.open(name) as picture:
            assert (picture.format, picture.size) == ("JPEG", (64, 48))


def test_all_times_in_one_array(here, clips, model, tmp_path):
    done = here("localize", clips / "b.mkv", "--model", model, "--every", 1, "--out", tmp_path / "h.npy", "--json")
    maps, each = np.load(tmp_path / "h.npy"), json_lines(done.out)
    assert (maps.dtype, maps.shape, len(each)) == (np.float32, (4, 48, 64), 4)
    for heat, line, reference in zip(maps, each, avloc.load(model).localize_video(clips / "b.mkv"), strict=True):
        np.testing.assert_array_equal(heat, reference.heatmap)
        assert (line["peak_xy"], line["silent"]) == (reference.peak_xy, reference.silent)
    assert [line["silent"] for line in each] == [False, False, True, True]
    assert not maps[2:].any()


def test_an_array_of_a_truncated_video_holds_the_decoded_times(here, model, tmp_path):
    whole = make_clip(tmp_path / "whole.mp4", seconds=12, sound=tone(12, RATE), faststart=True)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    done = here("localize", cut, "--model", model, "--every", 1, "--out", tmp_path / "h.npy", "--json")
    *fine, failed = json_lines(done.out)
    assert done.code == 1
    assert len(fine) == 8
    assert all(line["error"] is None for line in fine)
    assert "is cut off" in failed["error"]
    assert np.load(tmp_path / "h.npy").shape == (8, 48, 64)


def test_an_unfinished_array_is_removed(model, clips, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("avloc.localize.result_files.HeatMapStack.finish", full)
    options = LocalizeOptions(
        inputs=(str(clips / "a.mp4"),), model=model, times=Times(every=1), out=(str(tmp_path / "h.npy"),), device="cpu"
    )
    with pytest.raises(OSError, match="No space left"):
        list(localize(options))
    assert list(tmp_path.iterdir()) == []


def test_an_overlay_video(here, clips, model, tmp_path):
    done = here("localize", clips / "a.mp4", "--model", model, "--out", tmp_path / "h.mp4", "--style", "peak=off")
    assert (done.code, done.out) == (0, f"{tmp_path}/h.mp4\n")
    assert f"a.mp4: {MATCHES}\n" in done.err
    with av.open(str(tmp_path / "h.mp4")) as movie:
        assert (len(movie.streams.video), len(movie.streams.audio)) == (1, 1)
        assert sum(1 for _ in movie.decode(video=0)) == 20


def test_the_verdict_of_an_overlay_video_is_from_five_times(here, clips, model, tmp_path):
    done = here("localize", clips / "b.mkv", "--model", model, "--out", tmp_path / "h.mp4")
    assert f"b.mkv: {MATCHES}; silent at 3 of 5 times\n" in done.err
    assert Times(start=1, end=3, count=4).within(probe(clips / "a.mp4")) == [1.25, 1.75, 2.25, 2.75]


def test_json_of_an_overlay_video_has_the_times_of_the_verdict(here, clips, model, tmp_path):
    command = ("localize", clips / "a.mp4", "--model", model, "--out", tmp_path / "h.mp4", "--json")
    assert [line["time_s"] for line in json_lines(here(*command).out)] == Times(count=5).within(probe(clips / "a.mp4"))
    assert len(json_lines(here(*command, "--every", 2).out)) == 2


def test_every_frame_of_an_overlay_video_has_its_verdict_unless_it_matches(here, clips, tmp_path):
    frames = []
    for name, card, line in (
        ("matches", {**FLAT, "offset": 2.0}, MATCHES),
        ("unsure", {**FLAT, "offset": 0.0}, "match 0.50: unsure whether"),
        ("no_match", {**FLAT, "offset": -2.0}, "match 0.12: no source of this sound"),
        ("uncalibrated", {}, "the map depends on the sound"),
        ("constant", {"least_effect": 1.0}, "the map hardly depends on the sound"),
    ):
        model = save_responsive(tmp_path / f"{name}.safetensors", verdict={"least_effect": 0.0, **card})
        done = here("localize", clips / "a.mp4", "--model", model, "--out", tmp_path / f"{name}.mp4")
        assert done.code == 0
        assert f"a.mp4: {line}" in done.err
        frames.append(read_frame(tmp_path / f"{name}.mp4", at=2.0)[0].astype(int))
    matches, unsure, no_match, uncalibrated, constant = frames
    assert np.abs(uncalibrated - matches).max() < 60, "no caption; the encoder's threads differ a little"
    for one, other in combinations((matches, unsure, no_match, constant), 2):
        assert np.abs(one - other).max() > 100


def test_a_picture_is_not_overwritten_by_its_time(here, clips, model, tmp_path):
    picture = tmp_path / "0000.000.png"
    picture.write_bytes((clips / "p.png").read_bytes())
    sound = make_sound(tmp_path / "s.wav", tone(3, RATE), RATE)
    done = here("localize", picture, "--audio", sound, "--model", model, "--out", f"{tmp_path}/{{time}}.png")
    assert (done.code, "would overwrite the input" in done.err) == (2, True)
    assert picture.read_bytes() == (clips / "p.png").read_bytes()


def test_videos_of_several_inputs(here, clips, model, tmp_path):
    out = f"{tmp_path}/{{stem}}.mp4"
    done = here("localize", clips, "--model", model, "--out", out, "--every", 1, "--json")
    each = json_lines(done.out)
    assert done.code == 1
    assert [Path(line["input"]).name for line in each] == ["a.mp4"] * 4 + ["b.mkv"] * 4 + ["c.avi"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_a_video_of_a_picture_is_refused(here, clips, model, tmp_path):
    sound = make_sound(tmp_path / "s.wav", tone(3, RATE), RATE)
    done = here("localize", clips / "p.png", "--audio", sound, "--model", model, "--out", tmp_path / "h.mp4")
    assert (done.code, done.err.count("is a picture; an overlay video needs a video")) == (3, 1)
    again = here("localize", clips / "p.png", "--audio", sound, "--model", model, "--out", tmp_path / "h.mp4", "--json")
    assert [line["peak_xy"] for line in json_lines(again.out)] == [None]  # refused before anything was localized


def test_styles_change_the_overlay(here, clips, model, tmp_path):
    for name, style in (("plain", ()), ("bare", ("--style", "opacity=0", "--style", "contour=off"))):
        here(
            "localize",
            clips / "a.mp4",
            "--model",
            model,
            "--out",
            tmp_path / f"{name}.png",
            *style,
            "--style",
            "peak=off",
        )
    plain, bare = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("plain", "bare"))
    np.testing.assert_array_equal(bare, read_frame(clips / "a.mp4", at=2.0)[0])
    assert (plain != bare).any()


# --- existing outputs ------------------------------------------------------------------------------------------


def test_existing_outputs_are_skipped(here, clips, model, tmp_path):
    command = (
        "localize",
        clips / "a.mp4",
        clips / "b.mkv",
        "--model",
        model,
        "--out",
        f"{tmp_path}/",
        "--skip-existing",
    )
    (tmp_path / "a.png").write_bytes(b"mine")
    done = here(*command)
    assert (done.code, done.out) == (0, f"{tmp_path}/b.png\n")
    assert f"{clips}/a.mp4: skipped, its output exists" in done.err
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    again = here(*command, "--json")
    assert (again.code, again.out, again.err.count("skipped")) == (0, "", 2)


def test_times_with_existing_outputs_are_skipped(here, clips, model, tmp_path):
    out = f"{tmp_path}/{{time}}.npy"
    command = ("localize", clips / "a.mp4", "--model", model, "--every", 1, "--out", out, "--skip-existing")
    first = here(*command).out.splitlines()
    assert len(first) == 4
    whole = Path(first[2]).read_bytes()
    Path(first[2]).unlink()
    assert here(*command).out.splitlines() == [first[2]]
    assert Path(first[2]).read_bytes() == whole
    assert "skipped" in here(*command).err


# --- progress, imports --------------------------------------------------------------------------------------------


def test_progress_counts_times_up_to_the_total(clips, model):
    events = []
    options = LocalizeOptions(
        inputs=(str(clips / "a.mp4"), str(clips / "b.mkv")), model=model, times=Times(every=1.0), as_json=True
    )
    done = [one for one in localize(options, events.append) if isinstance(one, InputDone)]
    steps = [(event.done, event.total) for event in events if isinstance(event, Progress)]
    assert steps == [(number, 8) for number in range(1, 9)]
    assert not [event for event in events if isinstance(event, Notice)]
    assert [one.summary for one in done] == [
        MATCHES,
        f"{MATCHES}; silent at 2 of 4 times",
    ]


MEDIA = program.ROOT / "tests" / "data"
NEEDLESS = {"torchvision", "torch._dynamo", "transformers", "librosa", "panns_inference", "matplotlib", "scipy"}


def test_a_picture_imports_no_unneeded_packages(tmp_path: Path) -> None:
    """Each of these imports takes as long as inference, torchvision as long as torch."""
    inputs = (str(MEDIA / "frame.jpg"), "--audio", str(MEDIA / "sound.wav"), "--style", "caption=off")  # of a font
    result = program.avloc("localize", *inputs, "--out", str(tmp_path / "heat.png"), loaded=tmp_path / "loaded.txt")
    assert result.returncode == 0, result.stderr
    loaded = set((tmp_path / "loaded.txt").read_text().split())
    assert "torch" in loaded
    assert not NEEDLESS & loaded
