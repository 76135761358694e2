"""`avloc localize`: maps, output files and error messages."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from avloc.checkpoint import load_model
from avloc.config import ModelConfig
from avloc.engine import Engine
from avloc.errors import UsageError, WeightsError
from avloc.heatmap import heat_maps
from avloc.localize import Localization, LocalizeOptions, localize
from avloc.localize.outputs import plan_outputs
from avloc.localize.result import peak_and_box, peak_of
from avloc.localize.run import prefetch
from avloc.media.video_frames import read_frame, read_moment
from avloc.methods import build
from avloc.transforms import log_spectrogram
from tests.json_output import json_lines
from tests.media_makers import disc, make_picture, make_sound, make_video, tone
from tests.parity import drawing
from tests.processes import start
from tests.small_models import SMALL, save_small

RATE = 22_050
FIELDS = (
    *("schema", "input", "time_s", "window_s", "tiled", "frame_hw", "peak_xy", "box_xyxy", "peak_similarity"),
    *("mean_similarity", "cohort_similarity", "silent", "sound_effect", "sound_effect_noise", "match", "verdict"),
    *("model", "protocol", "seconds", "error"),
)


def video(path: Path, **changes) -> Path:
    """Three seconds, 64 x 48, with a tone."""
    return make_video(path, **{"seconds": 3, "fps": 5, "sound": tone(3, RATE), "rate": RATE, **changes})


def run(model: Path, *inputs: Path | str, **options) -> list[Localization]:
    made = localize(LocalizeOptions(inputs=tuple(map(str, inputs)), model=model, device="cpu", **options))
    return [one for one in made if isinstance(one, Localization)]


def timeless(line: dict) -> dict:
    """A line without its computing time."""
    return {key: value for key, value in line.items() if key != "seconds"}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# --- where the result goes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "out", "expected"),
    [
        (["a.mp4"], "", ["a.heat.png"]),
        (["x/a.mp4", "y/a.mkv", "b.mp4"], "", ["a.heat.png", "a-2.heat.png", "b.heat.png"]),
        (["-"], "", ["stdin.heat.png"]),
        (["a.mp4"], "h.png", ["h.png"]),
        (["a.mp4"], "h.NPY", ["h.NPY"]),
        (["a.mp4"], "new/", ["new/a.png"]),
        (["a.b.mp4"], "new/", ["new/a.b.png"]),
        (["a.mp4", "b.mp4"], "new", ["new/a.png", "new/b.png"]),
        (["a.mp4", "x/a.mp4", "y/a.mp4"], "new/", ["new/a.png", "new/a-2.png", "new/a-3.png"]),
        (["a-2.mp4", "a.mp4", "x/a.mp4"], "new/", ["new/a-2.png", "new/a.png", "new/a-3.png"]),
        (["a.mp4"], "there", ["there/a.png"]),
        (["a.mp4"], "there.png", ["there.png/a.png"]),
        (["a.mp4"], "h.webp", ["h.webp"]),
        (["a.mp4"], "h.GIF", ["h.GIF"]),
        (["a.mp4"], "absent/deep/h.png", ["absent/deep/h.png"]),
        (["a.mp4"], "with {foo}", ["with {foo}/a.png"]),
        (["a.mp4"], "with {foo}/{stem}.png", ["with {foo}/a.png"]),
        (["a.mp4"], "with {foo}/new/h.png", ["with {foo}/new/h.png"]),
        (["a.mp4"], "odd}{.png", ["odd}{.png"]),
    ],
)
def test_outputs_from_arguments(tmp_path, monkeypatch, inputs, out, expected):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("there.png").mkdir()
    Path("with {foo}").mkdir()
    assert [file.path for (file,) in plan_outputs(inputs, list(filter(None, [out])))] == [
        Path(name) for name in expected
    ]
    assert sorted(map(str, Path().rglob("*"))) == ["there", "there.png", "with {foo}"], "planning makes nothing"


def test_no_output_is_planned_without_pictures():
    assert plan_outputs(["a.mp4", "b.mp4"], [], pictures=False) == [(), ()]


@pytest.mark.parametrize(
    ("inputs", "out", "words"),
    [
        (["a.mp4", "b.mp4"], "h.png", "one file for 2 inputs; valid: a folder"),
        (
            ["a.mp4"],
            "h.tiff",
            r"unknown suffix; valid: \.png, \.jpg, \.jpeg, \.webp, \.gif, \.npy, \.mp4, \.mask\.png, "
            r"\.json, \.csv, \.coco\.json, or a folder",
        ),
        (["a.mp4"], "h", r"unknown suffix; valid: \.png, \.jpg"),
        (["a.mp4"], "file.txt/h.png", r"file\.txt is a file; valid: a new or existing folder"),
        (["a.mp4"], "file.txt/new/deep/", r"file\.txt is a file; valid: a new or existing folder"),
        *(
            ([*names], out, rf"\{{{name}\}} is unknown; valid: \{{stem\}}, \{{time\}}")
            for names, out, name in (
                ("a", "{foo}.png", "foo"),
                ("a", "{stem}-{foo}.png", "foo"),
                ("a", "{foo}/{stem}.png", "foo"),
                ("a", "new/{Stem}.png", "Stem"),
                ("a", "{time:.2f}.png", r"time:\.2f"),
                ("a", "{}.png", ""),
                ("ab", "{foo}", "foo"),
                ("a", "{foo}/", "foo"),
            )
        ),
        (["a.mp4"], "file.txt/", "is a file; valid: a new or existing folder"),
        (["a.mp4", "b.mp4"], "file", "is a file; valid: a new or existing folder"),
    ],
)
def test_invalid_outputs(tmp_path, monkeypatch, inputs, out, words):
    monkeypatch.chdir(tmp_path)
    for name in ("file.txt", "file"):
        Path(name).write_text("mine")
    with pytest.raises(UsageError, match=words) as caught:
        plan_outputs(inputs, [out])
    assert "--out" in str(caught.value)


def test_the_path_of_the_default_output_is_printed(here, model, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = here("localize", clip, "--model", model, "--device", "cpu")
    assert (done.code, done.out) == (0, "clip.heat.png\n")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.heat.png"]


def test_json_alone_writes_no_file(here, model, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = here("localize", clip, "--model", model, "--json")
    assert (done.code, done.err, len(json_lines(done.out))) == (0, "", 1)
    assert list(tmp_path.iterdir()) == []


def test_json_and_a_file_together(here, model, clip, tmp_path):
    done = here("localize", clip, "--model", model, "--json", "--out", tmp_path / "h.npy")
    assert (done.code, len(json_lines(done.out))) == (0, 1)
    assert np.load(tmp_path / "h.npy").shape == (48, 64)


def test_several_inputs_fill_a_new_folder(here, model, clip, tmp_path):
    (tmp_path / "in").mkdir()
    other = video(tmp_path / "in" / "clip.mp4")
    done = here("localize", clip, other, "--model", model, "--out", f"{tmp_path}/new/deep/")
    assert done.code == 0
    assert done.out.splitlines() == [f"{tmp_path}/new/deep/clip.png", f"{tmp_path}/new/deep/clip-2.png"]
    assert all(pixels(Path(line)).shape == (48, 64, 3) for line in done.out.splitlines())


def test_an_input_is_never_overwritten(here, model, tmp_path, monkeypatch):
    picture = make_picture(tmp_path / "frame.png", disc((64, 48), (0.3, 0.5)))
    sound = make_sound(tmp_path / "sound.wav", tone(3, RATE), RATE)
    before = picture.read_bytes()
    monkeypatch.chdir(tmp_path)
    for out in (".", "./", "frame.png"):
        done = here("localize", "frame.png", "--audio", sound, "--model", model, "--out", out)
        assert (done.code, "--out" in done.err, "overwrite the input" in done.err) == (2, True, True)
        assert picture.read_bytes() == before
    assert here("localize", "frame.png", "--audio", sound, "--model", model).code == 0


@pytest.mark.parametrize("ending", [".png", ".npy"])
def test_files_are_replaced_atomically(model, clip, tmp_path, monkeypatch, ending):
    """A full disk in the middle of writing leaves the old file and nothing else."""
    out = tmp_path / f"h{ending}"
    run(model, clip, out=(str(out),))
    fine = out.read_bytes()

    def full(path_or_image, target, *_args, **_kwargs):
        target = target if isinstance(path_or_image, Image.Image) else path_or_image
        with Path(target).open("wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    out.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            run(model, clip, out=(str(out),))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {out.name: b"old"}
    run(model, clip, out=(str(out),))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {out.name: fine}


# --- the map and its picture ------------------------------------------------------------------------------------


def reference_similarity(path: Path, rgb: np.ndarray, waveform: np.ndarray) -> np.ndarray:
    """Cell by cell: features of the two networks, cosines in double precision."""
    engine = Engine.from_file(load_model(path), torch.device("cpu"))
    side, net = engine.config.frame, engine.model
    small = np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    normal = (small - np.float32((0.485, 0.456, 0.406))) / np.float32((0.229, 0.224, 0.225))
    with torch.inference_mode():
        image = net.img_proj(net.imgnet(torch.from_numpy(normal).permute(2, 0, 1)[None]).features)[0].double().numpy()
        sound = net.audnet(log_spectrogram(torch.from_numpy(waveform)[None], RATE)).features
        audio = net.aud_proj(sound.amax((2, 3)))[0].double().numpy()
    grid = np.zeros(image.shape[1:])
    for y in range(grid.shape[0]):
        for x in range(grid.shape[1]):
            cell = image[:, y, x]
            grid[y, x] = cell @ audio / np.linalg.norm(cell) / np.linalg.norm(audio)
    return grid


def reference_heat(grid: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    big = F.interpolate(torch.from_numpy(grid)[None, None], size=hw, mode="bilinear", align_corners=True)[0, 0].numpy()
    return (big - big.min()) / (big.max() - big.min())


def test_the_heat_map_equals_its_definition(model, clip, tmp_path):
    (result,) = run(model, clip, out=(str(tmp_path / "h.npy"),))
    moment = read_moment(clip, seconds=3.0, rate=RATE)
    grid = reference_similarity(model, moment.picture, moment.sound.waveform)
    np.testing.assert_allclose(result.result.similarity, grid, atol=1e-5)
    heat = np.load(tmp_path / "h.npy")
    assert (heat.dtype, heat.shape, heat.min(), heat.max()) == (np.float32, (48, 64), 0.0, 1.0)
    np.testing.assert_allclose(heat, reference_heat(grid, (48, 64)), atol=1e-3)
    wave = moment.sound.waveform
    noise = np.random.default_rng(0).standard_normal(len(wave), np.float32) * np.sqrt(np.mean(wave**2))
    square = reference_heat(grid, (224, 224))
    for other, effect in (
        (np.zeros_like(wave), result.result.sound_effect),
        (np.clip(noise, -1, 1), result.result.sound_effect_noise),
    ):
        unlike = reference_heat(reference_similarity(model, moment.picture, other), (224, 224))
        assert effect == pytest.approx(np.abs(square - unlike).mean(), abs=1e-3)
    line = result.as_json()
    assert line["peak_similarity"] == pytest.approx(grid.max(), abs=1e-5)
    assert line["mean_similarity"] == pytest.approx(grid.mean(), abs=1e-5)
    assert line["time_s"] == moment.time_s


def turned(path: Path) -> Path:
    """A video with a display rotation of 90 degrees in its container."""
    data = bytearray(video(path).read_bytes())
    upright = b"".join(value.to_bytes(4, "big") for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    quarter = (0).to_bytes(4, "big") + (1 << 16).to_bytes(4, "big") + bytes(4) + b"\xff\xff\0\0" + bytes(16)
    place = data.find(upright, data.find(b"tkhd"))
    assert place > 0
    data[place : place + 36] = quarter + (1 << 30).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def exif(path: Path) -> Path:
    tag = Image.Exif()
    tag[0x0112] = 6
    return make_picture(path, disc((64, 48), (0.2, 0.5)), exif=tag)


@pytest.mark.parametrize(
    ("make", "name", "hw"),
    [
        (video, "plain.mp4", (48, 64)),
        (turned, "turned.mp4", (64, 48)),
        (lambda path: video(path, pixel_aspect=Fraction(3, 2)), "wide-pixels.mp4", (48, 96)),
        (exif, "exif.jpg", (64, 48)),
    ],
)
def test_map_and_overlay_match_the_displayed_frame(model, tmp_path, make, name, hw):
    source = make(tmp_path / name)
    sound = make_sound(tmp_path / "sound.wav", tone(3, RATE), RATE)
    audio = sound if source.suffix == ".jpg" else None
    for ending in (".npy", ".png"):
        (result,) = run(model, source, audio=audio, out=(str(tmp_path / f"h{ending}"),))
    heat, overlay = np.load(tmp_path / "h.npy"), pixels(tmp_path / "h.png")
    assert (heat.dtype, heat.shape, overlay.shape) == (np.float32, hw, (*hw, 3)), "size and aspect as shown"
    assert result.as_json()["frame_hw"] == list(hw)
    frame = result.result.frame
    if audio is None:
        np.testing.assert_array_equal(frame, read_frame(source)[0])
    else:
        red = frame[..., 0].astype(int) - frame[..., 1]
        assert np.nonzero(red > 60)[0].mean() < hw[0] / 2, "EXIF turned the left-hand disc to the top"
    np.testing.assert_array_equal(heat, result.result.heatmap)
    np.testing.assert_array_equal(overlay, result.result.overlay(), "overlay and array hold one map")


def reference_peak_and_box(heat: np.ndarray) -> tuple[list[int], list[int]]:
    """Flood fill over the four neighbours, from the hottest pixel; from the one nearest to the middle of several."""
    height, width = heat.shape
    hottest = [at for at in np.ndindex(height, width) if heat[at] == heat.max()]
    half = Fraction(1, 2)
    y, x = min(
        hottest,
        key=lambda at: (
            (Fraction(2 * at[0] + 1, 2 * height) - half) ** 2 + (Fraction(2 * at[1] + 1, 2 * width) - half) ** 2
        ),
    )
    if heat[y, x] < 0.5:
        return [x, y], [0, 0, heat.shape[1], heat.shape[0]]
    reached, front = {(y, x)}, [(y, x)]
    while front:
        y0, x0 = front.pop()
        for cell in ((y0 - 1, x0), (y0 + 1, x0), (y0, x0 - 1), (y0, x0 + 1)):
            inside = 0 <= cell[0] < heat.shape[0] and 0 <= cell[1] < heat.shape[1]
            if inside and cell not in reached and heat[cell] >= 0.5:
                reached.add(cell)
                front.append(cell)
    rows, columns = zip(*reached, strict=True)
    return [x, y], [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


@given(hnp.arrays(np.float32, (6, 9), elements=st.sampled_from([0.0, 0.25, 0.49, 0.5, 0.75, 1.0])))
@settings(max_examples=150, deadline=None)
def test_peak_and_box_equal_a_flood_fill(heat):
    assert peak_and_box(heat) == reference_peak_and_box(heat)


def test_the_box_stops_at_a_corner_and_a_flat_map_has_the_whole_frame():
    heat = np.zeros((5, 6), np.float32)
    heat[1, 2], heat[2, 3], heat[1, 1] = 1.0, 0.9, 0.5
    assert peak_and_box(heat) == ([2, 1], [1, 1, 3, 2])
    assert peak_and_box(np.zeros((5, 6), np.float32)) == ([2, 2], [0, 0, 6, 5])


@pytest.mark.parametrize("size", [(224, 224), (360, 640), (1080, 1919)])
@given(place=st.tuples(st.integers(0, 13), st.integers(0, 13)), low=st.floats(-1, 0.875, width=32))
@settings(max_examples=20, deadline=None)
def test_with_half_pixel_resize_the_peak_is_the_centre_of_the_hottest_cell(size, place, low):
    cells = np.full((1, 14, 14), low, np.float32)
    cells[0, *place] = np.float32(low) + np.float32(0.02)
    x, y = peak_of(heat_maps(torch.from_numpy(cells), size, "bilinear-halfpixel")[0].numpy())
    for found, cell, pixels in ((y, place[0], size[0]), (x, place[1], size[1])):
        assert abs(found + 0.5 - (cell + 0.5) * pixels / 14) <= 1, "to the pixel"


def test_silence_shows_the_plain_frame_with_a_caption(here, model, tmp_path):
    mute = video(tmp_path / "mute.mp4", sound=np.zeros(3 * RATE, np.float32), size=(320, 240))
    done = here("localize", mute, "--model", model, "--json", "--out", tmp_path / "h.png")
    (line,) = json_lines(done.out)
    assert (done.code, line["silent"], line["error"], line["frame_hw"]) == (0, True, None, [240, 320])
    assert [line[key] for key in ("peak_xy", "box_xyxy", "peak_similarity", "mean_similarity")] == [None] * 4
    frame, overlay = read_frame(mute)[0], pixels(tmp_path / "h.png")
    np.testing.assert_array_equal(overlay[:200], frame[:200])
    assert (overlay[-17:].min(axis=2) > 230).any(), "a caption in white letters at the lower edge"
    run(model, mute, out=(str(tmp_path / "h.npy"),))
    heat = np.load(tmp_path / "h.npy")
    assert (heat.dtype, heat.shape, np.abs(heat).max()) == (np.float32, (240, 320), 0)


@pytest.mark.parametrize("size", [(2, 2), (16, 2), (2, 64)])
def test_tiny_pictures(model, tmp_path, size):
    rgb = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    picture = make_picture(tmp_path / "p.png", rgb)
    for name, wave in (("loud", tone(3, RATE)), ("mute", np.zeros(3 * RATE, np.float32))):
        sound = make_sound(tmp_path / f"{name}.wav", wave, RATE)
        (result,) = run(model, picture, audio=sound, out=(str(tmp_path / f"{name}.png"),))
        assert result.error == ""
        assert pixels(tmp_path / f"{name}.png").shape == (size[1], size[0], 3)


# --- lines of JSON ----------------------------------------------------------------------------------------------


def test_a_json_line_has_exactly_the_documented_fields(here, model, clip):
    done = here("localize", clip, "--model", model, "--json")
    (line,) = json_lines(done.out)
    assert sorted(line) == sorted(FIELDS)
    assert (line["schema"], line["input"], line["frame_hw"]) == ("avloc.localize/3", str(clip), [48, 64])
    assert (line["model"], line["protocol"], line["silent"], line["error"]) == ("small", "avloc/fp32", False, None)
    assert line["time_s"] == pytest.approx(1.5, abs=0.21)
    (x, y), (x0, y0, x1, y1) = line["peak_xy"], line["box_xyxy"]
    assert 0 <= x0 <= x < x1 <= 64
    assert 0 <= y0 <= y < y1 <= 48
    assert -1 <= line["mean_similarity"] <= line["peak_similarity"] <= 1
    assert 0 <= line["sound_effect"] <= 1
    assert 0 <= line["sound_effect_noise"] <= 1
    assert line["window_s"] == pytest.approx([0, 3], abs=0.1)
    assert (line["match"], line["verdict"]) == (None, None), "the model has no calibration"
    assert line["seconds"] > 0


def test_the_same_command_gives_the_same_bytes(here, model, clip, tmp_path):
    out = tmp_path / "h.png"
    runs = []
    for _ in range(2):
        done = here("localize", clip, "--model", model, "--json", "--out", out)
        runs.append((done.code, timeless(*json_lines(done.out)), out.read_bytes()))
    assert runs[0] == runs[1]


def test_one_bad_input_among_others(here, model, clip, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    other = video(tmp_path / "other.mp4")
    done = here("localize", clip, bad, other, "--model", model, "--json", "--out", f"{tmp_path}/out/")
    lines = json_lines(done.out)
    assert done.code == 1
    assert [line["input"] for line in lines] == [str(clip), str(bad), str(other)]
    assert [bool(line["error"]) for line in lines] == [False, True, False]
    assert sorted(lines[1]) == sorted(FIELDS), "a failed input has the same fields"
    assert {key for key, value in lines[1].items() if value is not None} == {
        *("schema", "input", "model", "protocol", "error")
    }
    assert f"{bad}: {lines[1]['error']}" in done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip.png", "other.png"]


def test_every_input_bad(here, model, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"")
    done = here("localize", tmp_path / "a.mp4", tmp_path / "b.mp4", "--model", model, "--out", f"{tmp_path}/out/")
    assert (done.code, done.out) == (3, "")
    reasons = [f"avloc: {tmp_path}/{name}: is empty (0 bytes)" for name in ("a.mp4", "b.mp4")]
    assert done.err.splitlines() == [*reasons, "avloc: no input could be localized"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no-sound.mp4", "has no sound"),
        ("no-picture.wav", "has no picture"),
        ("frame.jpg", "has no sound; add one with"),
    ],
)
def test_errors_name_missing_streams(here, model, tmp_path, name, words):
    path = tmp_path / name
    if name == "no-sound.mp4":
        video(path, sound=None)
    elif name == "no-picture.wav":
        make_sound(path, tone(3, RATE), RATE)
    else:
        make_picture(path, disc((64, 48), (0.5, 0.5)))
    done = here("localize", path, "--model", model, "--json")
    assert (done.code, words in json_lines(done.out)[0]["error"]) == (3, True)
    (line,) = done.err.splitlines()
    assert words in line
    plain = here("localize", path, "--model", model)
    assert (plain.code, plain.out, plain.err) == (3, "", done.err)


def test_a_picture_with_a_sound(here, model, tmp_path):
    picture = make_picture(tmp_path / "frame.png", disc((80, 60), (0.3, 0.5)))
    sound = make_sound(tmp_path / "sound.flac", tone(5, RATE), RATE)
    done = here("localize", picture, "--audio", sound, "--model", model, "--json")
    (line,) = json_lines(done.out)
    assert (done.code, line["frame_hw"], line["time_s"], line["silent"]) == (0, [60, 80], 0.0, False)
    rgb, wave = pixels(picture), tone(5, RATE)[RATE : 4 * RATE]
    assert line["peak_similarity"] == pytest.approx(reference_similarity(model, rgb, wave).max(), abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frame.png", "frame.png", "--audio", "s.wav"], "--audio needs exactly one picture or video; there are 2"),
        (["frame.png", "--audio", "absent.wav"], "--audio: no such file: absent.wav"),
        (["absent.mp4"], "no such file: absent.mp4"),
        (["-", "-"], "can be read once"),
        (["frame.png", "--audio", "s.wav", "--precision", "fp16"], "precision = 'fp16' is impossible; valid: fp32"),
        (["frame.png", "--audio", "s.wav", "--device", "abacus"], "--device abacus is not usable here"),
        (["frame.png", "--audio", "s.wav", "--model", "absent.pth"], "no model at absent.pth"),
    ],
)
def test_invalid_arguments(here, model, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    make_picture(tmp_path / "frame.png", disc((64, 48), (0.5, 0.5)))
    make_sound(tmp_path / "s.wav", tone(1, RATE), RATE)
    with_model = arguments if "--model" in arguments else [*arguments, "--model", model]
    done = here("localize", *with_model)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "Traceback" not in done.err


def test_a_lower_rate_than_the_model_takes_is_reported(here, model, tmp_path):
    slow = video(tmp_path / "slow.mp4", sound=tone(3, 16_000), rate=16_000)
    done = here("localize", slow, "--model", model, "--json")
    assert done.code == 0
    assert "sampled at 16000 Hz; the model takes 22050 Hz" in done.err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let such a name be")
def test_a_file_name_that_is_not_unicode(here, model, clip, tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    odd.write_bytes(clip.read_bytes())
    done = here("localize", odd, "--model", model, "--json", "--out", f"{tmp_path}/out/")
    assert (done.code, json_lines(done.out)[0]["input"]) == (0, str(odd))
    printed = subprocess.run(
        [sys.executable, "-c", "from avloc.cli import main; main()", "localize", str(odd), "--model", str(model)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=False,
    )
    assert (printed.returncode, printed.stdout) == (0, b"caf\xe9.heat.png\n")


# --- published models, pipes ------------------------------------------------------------------------------------


def test_a_published_checkpoint(here, tmp_path):
    """AVC's own file: 2048-d, keys with the prefix of parallel training, 44.1 kHz."""
    drawn = {name: torch.from_numpy(value) for name, value in drawing.weights("avc_keys.json", 7).items()}
    torch.save({"model": drawn, "epoch": 10}, tmp_path / "best_10.pth")
    clip = video(tmp_path / "clip.mp4", sound=tone(3, 44_100), rate=44_100)
    npy = tmp_path / "h.npy"
    done = here("localize", clip, "--model", tmp_path / "best_10.pth", "--json", "--out", npy, "--device", "cpu")
    (line,) = json_lines(done.out)
    assert (done.code, done.err, line["model"], line["error"]) == (0, "", "best_10", None)
    network = build(ModelConfig(method="avc", dim=2048, rate=44_100)).eval()
    network.load_state_dict({name.removeprefix("module."): value for name, value in drawn.items()})
    moment = read_moment(clip, seconds=3.0, rate=44_100)
    square = np.asarray(Image.fromarray(moment.picture).resize((224, 224), Image.Resampling.BICUBIC), np.float32) / 255
    normal = (square - np.float32((0.485, 0.456, 0.406))) / np.float32((0.229, 0.224, 0.225))
    spectrogram = log_spectrogram(torch.from_numpy(moment.sound.waveform)[None], 44_100)
    assert spectrogram.shape[-1] > 500, "44.1 kHz gives the wide spectrogram of the published code"
    with torch.inference_mode():
        image = network.encode_image(torch.from_numpy(normal).permute(2, 0, 1)[None])[0]
        audio = network.encode_audio(spectrogram)
    grid = torch.einsum("dhw,d->hw", image[0], audio[0]).double().numpy()
    assert line["peak_similarity"] == pytest.approx(grid.max(), abs=1e-4)
    np.testing.assert_allclose(np.load(npy), reference_heat(grid, (48, 64)), atol=1e-2)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_a_damaged_model_is_named(clip, tmp_path, name):
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=name):
        run(tmp_path / name, clip)


def test_a_model_of_any_rate_uses_the_rate_of_the_file(tmp_path, clip):
    own = save_small(tmp_path / "any.safetensors", ModelConfig(**{**vars(SMALL), "method": "ezvsl", "rate": 0}))
    slow = video(tmp_path / "slow.mp4", sound=tone(3, 16_000), rate=16_000)
    assert [result.error for result in run(own, slow, clip, as_json=True)] == ["", ""]


def test_a_video_through_a_pipe(model, clip, tmp_path):
    command = ("localize", "-", "--model", model, "--json", "--out", "h.npy")
    process = start(*command, stdin=subprocess.PIPE, cwd=tmp_path)
    out, err = process.communicate(clip.read_bytes(), timeout=120)
    assert (process.returncode, err) == (0, b"")
    line = json.loads(out)
    assert (line["input"], line["error"]) == ("-", None)
    (result,) = run(model, clip, as_json=True)
    assert timeless(line) == timeless({**result.as_json(), "input": "-"})
    np.testing.assert_array_equal(np.load(tmp_path / "h.npy"), result.result.heatmap)


def test_a_closed_pipe_causes_no_traceback(model, clip):
    """`avloc localize --json a.mp4 b.mp4 ... | head -1`."""
    process = start("localize", "--json", "--model", model, *[clip] * 40)
    first = json.loads(process.stdout.readline())
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert first["input"] == str(clip)
    assert process.wait(timeout=120) != 70
    assert b"Traceback" not in err
    assert b"Error" not in err


def test_prefetching_keeps_order_and_is_bounded():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    for taken, number in enumerate(prefetch(items(), depth=2)):
        assert number == taken
        assert len(made) <= taken + 3
    assert made == list(range(20))


def test_prefetching_raises_errors_in_order():
    def items():
        yield 1
        yield 2
        raise OSError("disk gone")

    coming = prefetch(items())
    assert [next(coming), next(coming)] == [1, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(coming)


def test_closing_stops_prefetching():
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
