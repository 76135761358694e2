"""Several inputs and times: expansion, output paths, skipping and prefetching."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import avloc
from avloc.errors import UsageError
from avloc.localize import InputDone, LocalizeOptions, Times, localize, plan_outputs
from avloc.localize.inputs import expand_inputs
from avloc.localize.run import prefetch
from avloc.media.probing import probe
from avloc.media.video_frames import read_frame
from avloc.progress import Notice, Progress
from tests.media_makers import disc, make_picture, make_sound, make_video, tone
from tests.responsive_model import RATE, save_responsive


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    return save_responsive(path, verdict={"least_effect": 0.001})


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """a.mp4 and b.mkv, four seconds each, the second half of b silent; a broken c.avi; files that are not videos."""
    folder = tmp_path_factory.mktemp("clips")
    video(folder / "a.mp4")
    video(folder / "b.mkv", sound=tone(4, RATE, span=(0, 0.5)), audio_codec="flac")
    (folder / "c.avi").write_text("no video")
    (folder / "notes.txt").write_text("none either")
    (folder / ".hidden.mp4").write_text("nor this")
    make_picture(folder / "p.png", disc((64, 48), (0.3, 0.5)))
    (folder / "deeper.mp4").mkdir()
    video(folder / "deeper.mp4" / "d.mp4")
    return folder


def video(path: Path, **changes) -> Path:
    return make_video(path, **{"seconds": 4, "fps": 5, "sound": tone(4, RATE), "rate": RATE, **changes})


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# --- inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["a.mp4", "-", "a.mp4"], ["a.mp4", "-", "a.mp4"]),
        (["*.m*"], ["a.mp4", "b.mkv"]),
        (["b.mkv", "?.mp4"], ["b.mkv", "a.mp4"]),
        (["**/*.mp4"], ["a.mp4", "deeper.mp4/d.mp4"]),
        (["."], ["a.mp4", "b.mkv", "c.avi"]),
        (["deeper.mp4/"], ["deeper.mp4/d.mp4"]),
        (["@list.txt", "a.mp4"], ["b.mkv", "notes.txt", "a.mp4"]),
        (["[odd].mp4"], ["[odd].mp4"]),
    ],
)
def test_inputs_by_what_was_typed(clips, tmp_path, monkeypatch, typed, expected):
    for path in clips.iterdir():
        (tmp_path / path.name).symlink_to(path)
    if "[odd].mp4" in typed:
        (tmp_path / "[odd].mp4").symlink_to(clips / "a.mp4")
    (tmp_path / "list.txt").write_text("# mine\nb.mkv\n\n  notes.txt  \n")
    monkeypatch.chdir(tmp_path)
    assert expand_inputs(typed, pictures=False) == expected


def test_a_folder_gives_its_pictures_where_a_sound_goes_with_them(clips):
    names = [Path(name).name for name in expand_inputs([str(clips)], pictures=True)]
    assert names == ["a.mp4", "b.mkv", "c.avi", "p.png"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["absent.mp4"], "no such file: absent.mp4"),
        (["x*.mp4"], r"no such file: x\*\.mp4 matches nothing"),
        (["deeper*"], "matches nothing"),
        (["@absent.txt"], "no such list: absent.txt"),
        (["@short.txt"], "no such file: gone.mp4, in the list short.txt"),
        (["@empty.txt"], "the list empty.txt is empty"),
        (["empty"], "empty contains no video"),
        (["-", "-"], "can be read once"),
    ],
)
def test_inputs_that_cannot_be_meant(tmp_path, monkeypatch, typed, words):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "deeper"):
        Path(name).mkdir()
    Path("short.txt").write_text("gone.mp4\n")
    Path("empty.txt").write_text("# nothing\n")
    with pytest.raises(UsageError, match=words):
        expand_inputs(typed, pictures=False)


def test_a_folder_with_one_bad_clip(here, clips, model, tmp_path):
    done = here("localize", clips, "--model", model, "--out", tmp_path)
    assert (done.code, done.out) == (1, f"{tmp_path}/a.png\n{tmp_path}/b.png\n")
    assert f"{clips}/c.avi: cannot be decoded" in done.err
    assert f"{clips}/a.mp4: the map follows the sound" in done.err
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
def test_a_line_a_time(here, clips, model, flags, times):
    done = here("localize", clips / "a.mp4", "--model", model, "--json", *flags)
    assert (done.code, done.err) == (0, "")
    assert [line["time_s"] for line in lines(done.out)] == pytest.approx(times), "when the picture then shown appeared"


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
def test_what_cannot_be_meant(here, clips, model, tmp_path, monkeypatch, flags, code, words):
    monkeypatch.chdir(tmp_path)
    done = here("localize", clips / "a.mp4", "--model", model, *flags)
    assert (done.code, words in done.err, "Traceback" in done.err) == (code, True, False), done.err
    assert list(tmp_path.iterdir()) == []


def test_a_prior_without_weights(here, offline, clips, model):
    done = here("localize", clips / "a.mp4", "--model", model, "--json", "--object-prior", "resnet18")
    assert (done.code, done.out) == (4, "")
    assert "resnet18" in done.err


def test_the_old_spelling_of_map_weights_works_with_a_line_that_says_so(here, clips, model, tmp_path):
    def arrays(flag: str) -> tuple[str, bytes]:
        out = tmp_path / f"{flag}.npy"
        fused = ("--object-prior", "own", flag, "av=1,own=3")
        done = here("localize", clips / "a.mp4", "--model", model, "--out", out, *fused)
        assert done.code == 0, done.err
        return done.err, out.read_bytes()

    (old_said, old), (said, new) = arrays("--weights"), arrays("--map-weights")
    assert "avloc: --weights is deprecated; use --map-weights\n" in old_said
    assert "deprecated" not in said
    assert old == new
    both = here("localize", clips / "a.mp4", "--model", model, "--weights", "av=1", "--map-weights", "av=1")
    assert (both.code, "--weights is the old spelling of --map-weights" in both.err) == (2, True)
    assert "--weights <" not in here("localize", "--help").out


def test_a_picture_has_no_times(here, clips, model, tmp_path):
    sound = make_sound(tmp_path / "s.wav", tone(3, RATE), RATE)
    done = here("localize", clips / "p.png", "--audio", sound, "--model", model, "--json", "--every", 1)
    assert (done.code, lines(done.out)[0]["error"]) == (
        *(3, "is a picture; --every, --start and --end apply to videos only"),
    )


def test_a_picture_without_an_ending_is_known_by_its_bytes(here, clips, model, tmp_path):
    sound = make_sound(tmp_path / "s.wav", tone(3, RATE), RATE)
    (tmp_path / "picture").write_bytes((clips / "p.png").read_bytes())
    done = here("localize", tmp_path / "picture", "--audio", sound, "--model", model, "--json")
    assert (done.code, lines(done.out)[0]["frame_hw"]) == (0, [48, 64])


def test_a_video_with_another_sound(here, clips, model, tmp_path):
    sound = make_sound(tmp_path / "s.wav", tone(4, RATE, hz=300), RATE)
    (own,) = lines(here("localize", clips / "a.mp4", "--model", model, "--json").out)
    (line,) = lines(here("localize", clips / "a.mp4", "--audio", sound, "--model", model, "--json").out)
    assert (line["time_s"], line["frame_hw"]) == (own["time_s"], own["frame_hw"])
    frame, time_s = read_frame(clips / "a.mp4")
    start = round((time_s - 1.5) * RATE)
    twin = avloc.load(model).localize(frame, tone(4, RATE, hz=300)[start : start + 3 * RATE], RATE)
    assert line["peak_similarity"] == pytest.approx(twin.peak_similarity, abs=1e-3)
    assert line["peak_similarity"] != pytest.approx(own["peak_similarity"], abs=1e-2)


# --- outputs of several times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "out", "every", "expected"),
    [
        (["a.mp4"], "", True, ["a.heat/{time}.png"]),
        (["a.mp4"], "new/", True, ["new/a-{time}.png"]),
        (["a.mp4"], "new", True, ["new/a-{time}.png"]),
        (["a.mp4"], "h.npy", True, ["h.npy"]),
        (["a.mp4"], "h.mp4", True, ["h.mp4"]),
        (["a.mp4"], "h-{time}.jpg", True, ["h-{time}.jpg"]),
        (["a.mp4"], "h-{time}.jpg", False, ["h-{time}.jpg"]),
        (["a.mp4", "b.mp4"], "{stem}.JPEG", False, ["a.JPEG", "b.JPEG"]),
        (["x/a.mp4", "y/a.mp4"], "deep/{stem}/{stem}.mp4", False, ["deep/a/a.mp4", "deep/a-2/a-2.mp4"]),
        (["x/a.mp4", "y/a.mp4"], "m/{stem}.npy", True, ["m/a.npy", "m/a-2.npy"]),
        (["a.mp4"], "{stem}.npy", False, ["a.npy"]),
        (["-", "a.mp4"], "{stem}/", False, ["stdin/stdin.png", "a/a.png"]),
    ],
)
def test_outputs_by_what_was_typed(tmp_path, monkeypatch, inputs, out, every, expected):
    monkeypatch.chdir(tmp_path)
    assert plan_outputs(inputs, out, every=every) == [Path(name) for name in expected]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("inputs", "out", "every", "words"),
    [
        (["a.mp4"], "h.png", True, "is one picture for several times; valid: a folder, a name with {time}, or .npy"),
        (["a.mp4"], "{stem}.png", True, "is one picture for several times"),
        (["a.mp4"], "{time}.mp4", True, "a video contains all times"),
        (
            ["a.mp4", "b.mp4"],
            "h.npy",
            True,
            "one file for 2 inputs; valid: a folder, as in --out h/, or a name with {stem}",
        ),
        (["a.mp4", "b.mp4"], "{time}.png", True, "one file for 2 inputs"),
        (["a.mp4"], "{stem}.tiff", False, "unknown suffix"),
        (["a.mp4"], "h.webp", True, "is one picture for several times"),
        (["a.mp4"], "{foo}-{time}.png", True, "{foo} is unknown; valid: {stem}, {time}"),
    ],
)
def test_outputs_that_cannot_be_meant(inputs, out, every, words):
    with pytest.raises(UsageError) as caught:
        plan_outputs(inputs, out, every=every)
    assert words in str(caught.value)


def test_a_picture_a_time(here, clips, model, tmp_path):
    out = f"{tmp_path}/{{stem}}/at {{time}}.jpg"
    done = here("localize", clips / "a.mp4", clips / "b.mkv", "--model", model, "--every", 1.5, "--out", out)
    names = [f"{tmp_path}/{stem}/at 000{time}00.jpg" for stem in "ab" for time in ("0.0", "1.5", "3.0")]
    assert (done.code, done.out.splitlines()) == (0, names)
    for name in names:
        with Image.open(name) as picture:
            assert (picture.format, picture.size) == ("JPEG", (64, 48))


def test_all_times_in_one_array(here, clips, model, tmp_path):
    done = here("localize", clips / "b.mkv", "--model", model, "--every", 1, "--out", tmp_path / "h.npy", "--json")
    maps, each = np.load(tmp_path / "h.npy"), lines(done.out)
    assert (maps.dtype, maps.shape, len(each)) == (np.float32, (4, 48, 64), 4)
    for heat, line, twin in zip(maps, each, avloc.load(model).localize_video(clips / "b.mkv"), strict=True):
        np.testing.assert_array_equal(heat, twin.heatmap)
        assert (line["peak_xy"], line["silent"]) == (twin.peak_xy, twin.silent)
    assert [line["silent"] for line in each] == [False, False, True, True]
    assert not maps[2:].any()


def test_an_array_of_a_video_that_breaks_off_holds_what_is_there(here, model, tmp_path):
    whole = video(tmp_path / "whole.mp4", seconds=12, sound=tone(12, RATE), faststart=True)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    done = here("localize", cut, "--model", model, "--every", 1, "--out", tmp_path / "h.npy", "--json")
    *fine, failed = lines(done.out)
    assert done.code == 1
    assert len(fine) == 8
    assert all(line["error"] is None for line in fine)
    assert "is cut off" in failed["error"]
    assert np.load(tmp_path / "h.npy").shape == (8, 48, 64)


def test_an_array_that_cannot_be_finished_is_not_there(model, clips, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("avloc.localize.outputs.HeatMapStack.finish", full)
    options = LocalizeOptions(
        inputs=(str(clips / "a.mp4"),), model=model, times=Times(every=1), out=str(tmp_path / "h.npy"), device="cpu"
    )
    with pytest.raises(OSError, match="No space left"):
        list(localize(options))
    assert list(tmp_path.iterdir()) == []


def test_an_overlay_video(here, clips, model, tmp_path):
    done = here("localize", clips / "a.mp4", "--model", model, "--out", tmp_path / "h.mp4", "--style", "peak=off")
    assert (done.code, done.out) == (0, f"{tmp_path}/h.mp4\n")
    assert "a.mp4: the map follows the sound" in done.err
    with av.open(str(tmp_path / "h.mp4")) as movie:
        assert (len(movie.streams.video), len(movie.streams.audio)) == (1, 1)
        assert sum(1 for _ in movie.decode(video=0)) == 20


def test_an_overlay_video_is_judged_at_five_times(here, clips, model, tmp_path):
    done = here("localize", clips / "b.mkv", "--model", model, "--out", tmp_path / "h.mp4")
    assert "b.mkv: silent: no source (at 3 of 5 times); the map follows the sound (at 2 of 5 times)" in done.err
    assert Times(start=1, end=3, count=4).within(probe(clips / "a.mp4")) == [1.25, 1.75, 2.25, 2.75]


def test_json_beside_an_overlay_video_has_the_moments_that_were_judged(here, clips, model, tmp_path):
    command = ("localize", clips / "a.mp4", "--model", model, "--out", tmp_path / "h.mp4", "--json")
    assert [line["time_s"] for line in lines(here(*command).out)] == Times(count=5).within(probe(clips / "a.mp4"))
    assert len(lines(here(*command, "--every", 2).out)) == 2


def test_an_overlay_video_that_ignores_the_sound_says_so_in_every_picture(here, clips, tmp_path):
    told = []
    for name, rule in (("ignores", {"least_effect": 1.0}), ("unmatched", {"least_similarity": 1.0}), ("follows", {})):
        model = save_responsive(tmp_path / f"{name}.safetensors", verdict={"least_effect": 0.0, **rule})
        done = here("localize", clips / "a.mp4", "--model", model, "--out", tmp_path / f"{name}.mp4")
        assert done.code == 0
        told.append(read_frame(tmp_path / f"{name}.mp4", at=2.0)[0].astype(int))
    ignores, unmatched, follows = told
    for captioned in (ignores, unmatched):
        assert np.abs(captioned - follows).max() > 100
    assert np.abs(ignores - unmatched).max() > 100


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
    each = lines(done.out)
    assert done.code == 1
    assert [Path(line["input"]).name for line in each] == ["a.mp4"] * 4 + ["b.mkv"] * 4 + ["c.avi"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_a_video_of_a_picture_is_refused(here, clips, model, tmp_path):
    sound = make_sound(tmp_path / "s.wav", tone(3, RATE), RATE)
    done = here("localize", clips / "p.png", "--audio", sound, "--model", model, "--out", tmp_path / "h.mp4")
    assert (done.code, done.err.count("is a picture; an overlay video needs a video")) == (3, 1)
    asked = here("localize", clips / "p.png", "--audio", sound, "--model", model, "--out", tmp_path / "h.mp4", "--json")
    assert [line["peak_xy"] for line in lines(asked.out)] == [None]  # refused before anything was localized


def test_styles_reach_the_overlay(here, clips, model, tmp_path):
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


def test_what_is_there_is_left_out(here, clips, model, tmp_path):
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


def test_times_that_are_there_are_left_out(here, clips, model, tmp_path):
    out = f"{tmp_path}/{{time}}.npy"
    command = ("localize", clips / "a.mp4", "--model", model, "--every", 1, "--out", out, "--skip-existing")
    first = here(*command).out.splitlines()
    assert len(first) == 4
    whole = Path(first[2]).read_bytes()
    Path(first[2]).unlink()
    assert here(*command).out.splitlines() == [first[2]]
    assert Path(first[2]).read_bytes() == whole
    assert "skipped" in here(*command).err


# --- prefetching, progress -------------------------------------------------------------------------------------


def test_reading_ahead_keeps_order_and_is_bounded():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    for taken, number in enumerate(prefetch(items(), depth=2)):
        assert number == taken
        assert len(made) <= taken + 3
    assert made == list(range(20))


def test_what_goes_wrong_while_reading_ahead_comes_in_its_turn():
    def items():
        yield 1
        yield 2
        raise OSError("disk gone")

    coming = prefetch(items())
    assert [next(coming), next(coming)] == [1, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(coming)


def test_a_reader_that_is_closed_reads_no_further():
    made = []

    def items():
        for number in range(100):
            made.append(threading.current_thread().name)
            yield number

    coming = prefetch(items())
    next(coming)
    coming.close()
    assert len(made) <= 4
    assert all(name.startswith("avloc-read") for name in made)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("avloc-read")]


def test_progress_counts_moments_and_ends_full(clips, model):
    heard = []
    options = LocalizeOptions(
        inputs=(str(clips / "a.mp4"), str(clips / "b.mkv")), model=model, times=Times(every=1.0), as_json=True
    )
    done = [one for one in localize(options, heard.append) if isinstance(one, InputDone)]
    steps = [(event.done, event.total) for event in heard if isinstance(event, Progress)]
    assert steps == [(number, 8) for number in range(1, 9)]
    assert not [event for event in heard if isinstance(event, Notice)]
    assert [one.summary for one in done] == [
        "the map follows the sound",
        "the map follows the sound (at 2 of 4 times); silent: no source (at 2 of 4 times)",
    ]
