"""Output files of `avloc localize`: their paths, folders and picture formats."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avloc.errors import InputError, UsageError
from avloc.localize import LocalizeOptions, Times, localize
from avloc.localize.outputs import plan_outputs, write_picture
from tests.timed_video import film


def overlay_of(model: Path, clip: Path) -> np.ndarray:
    first = next(localize(LocalizeOptions(inputs=(str(clip),), model=model, as_json=True)))
    return first.result.overlay().astype(int)


@pytest.mark.parametrize("name", ["new/deep/h.png", "new/deep/h.npy", "new/deep/h.mp4", "new/deep/"])
def test_missing_folders_are_created_unless_the_input_fails(here, model, clip, tmp_path, name):
    (tmp_path / "bad.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    done = here("localize", tmp_path / "bad.mp4", "--model", model, "-o", f"{tmp_path}/{name}")
    assert (done.code, done.out) == (3, "")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]
    done = here("localize", clip, "--model", model, "-o", f"{tmp_path}/{name}")
    (written,) = (tmp_path / "new" / "deep").iterdir()
    assert (done.code, done.out) == (0, f"{written}\n")


@pytest.mark.parametrize("name", ["h.png", "h.npy", "h.mp4", "several.npy"])
def test_created_folders_are_removed_if_writing_fails(model, clip, tmp_path, monkeypatch, name):
    (tmp_path / "there").mkdir()

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    times = Times(every=1.0) if name == "several.npy" else Times()
    for folder in ("there", "there/new/deep"):
        options = LocalizeOptions(inputs=(str(clip),), model=model, out=(str(tmp_path / folder / name),), times=times)
        with pytest.raises(OSError, match="No space left"):
            list(localize(options))
        assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_webp_is_lossless_and_gif_has_one_frame_of_256_colours(here, model, clip, tmp_path):
    overlay = overlay_of(model, clip)
    for name, kind in (("h.webp", "WEBP"), ("h.gif", "GIF")):
        done = here("localize", clip, "--model", model, "-o", tmp_path / name)
        assert (done.code, done.out) == (0, f"{tmp_path / name}\n")
        with Image.open(tmp_path / name) as picture:
            assert (picture.format, picture.n_frames, picture.size) == (kind, 1, (64, 48))
            rgb = np.asarray(picture.convert("RGB")).astype(int)
        if kind == "WEBP":
            np.testing.assert_array_equal(rgb, overlay)
        else:
            assert np.abs(rgb - overlay).mean() < 4, "colours chosen by the picture; fixed ones are 15 off"


@pytest.mark.parametrize(("name", "largest"), [("h.webp", 16_383), ("h.gif", 65_535), ("h.jpg", 65_500)])
def test_pictures_too_large_for_their_format_are_refused(tmp_path, name, largest):
    write_picture(tmp_path / name, np.zeros((1, largest, 3), np.uint8))
    with Image.open(tmp_path / name) as picture:
        assert picture.size == (largest, 1)
    with pytest.raises(InputError, match=rf"{largest + 1} x 1 pixels, more than \w+ supports .*\.png"):
        write_picture(tmp_path / "new" / name, np.zeros((1, largest + 1, 3), np.uint8))
    assert not (tmp_path / "new").exists()


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
        (["a.mp4", "b.mp4"], "all.json", True, ["all.json", "all.json"]),
        (["a.mp4", "b.mp4"], "all.coco.json", False, ["all.coco.json", "all.coco.json"]),
        (["a.mp4", "x/a.mp4"], "{stem}.csv", True, ["a.csv", "a-2.csv"]),
        (["a.mp4"], "h-{time}.mask.png", True, ["h-{time}.mask.png"]),
    ],
)
def test_outputs_from_arguments(tmp_path, monkeypatch, inputs, out, every, expected):
    monkeypatch.chdir(tmp_path)
    files = plan_outputs(inputs, list(filter(None, [out])), every=every)
    assert [file.path for (file,) in files] == [Path(name) for name in expected]
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
        (["a.mp4"], "h.mask.png", True, "is one picture for several times"),
        (["a.mp4", "b.mp4"], "h.mask.png", False, "one file for 2 inputs"),
        (["a.mp4"], "{time}.coco.json", True, "a .coco.json file contains all times; valid: a name without {time}"),
    ],
)
def test_invalid_outputs(inputs, out, every, words):
    with pytest.raises(UsageError) as caught:
        plan_outputs(inputs, [out], every=every)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("x.coco.json", ".coco.json"),
        ("x.COCO.JSON", ".coco.json"),
        ("coco.json", ".json"),
        (".coco.json", ".json"),
        ("x.mask.png", ".mask.png"),
        ("mask.png", ".png"),
        ("x.mask.jpg", ".jpg"),
        ("x.mask.json", ".json"),
        ("x.PNG", ".png"),
    ],
)
def test_the_longest_suffix_selects_the_format(name, suffix):
    ((file,),) = plan_outputs(["a.mp4"], [name])
    assert (file.path, file.suffix) == (Path(name), suffix)


@pytest.mark.parametrize(
    ("inputs", "outs"),
    [
        (["a.mp4"], ["h.png", "h.png"]),
        (["a.mp4"], ["{stem}.png", "a.png"]),
        (["a.mp4", "b.mp4"], ["all.json", "./all.json"]),
    ],
)
def test_the_same_file_twice_is_refused(inputs, outs):
    with pytest.raises(UsageError, match=r"--out: \w+\.\w+ would be written by two of them"):
        plan_outputs(inputs, outs)


def test_too_long_output_name_fails_only_its_input(here, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "a.mp4")
    for length in (240, 250):
        film(tmp_path / "short.mp4").rename(tmp_path / f"{length * 'b'}.mp4")
    done = here("localize", f"{250 * 'b'}.mp4", f"{240 * 'b'}.mp4", "a.mp4", "--model", model)
    assert done.code == 1
    assert "its output name is too long" in done.err
    assert sorted(path.name for path in tmp_path.glob("*.heat.png")) == ["a.heat.png", f"{240 * 'b'}.heat.png"]
