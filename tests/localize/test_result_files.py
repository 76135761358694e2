"""Files with the results of several times: JSON, CSV, COCO; and several outputs of one run."""

from __future__ import annotations

import csv
import errno
import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import avloc
from avloc.checkpoint import load_model
from avloc.localize import LocalizeOptions, Times, localize
from avloc.localize.result_files import run_lengths
from tests.json_output import json_lines
from tests.media_makers import make_sound, tone
from tests.responsive_model import RATE, save_responsive

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0.11

RECORDS = ("all.json", "all.csv", "all.coco.json")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("calibrated") / "calibrated.safetensors"
    return save_responsive(path, verdict={"slope": 1.0, "offset": -2.0, "least_effect": 0.001})


def outputs(folder: Path, *names: str) -> list[str]:
    return [part for name in names for part in ("--out", f"{folder}/{name}")]


def timeless(lines: list[dict]) -> list[dict]:
    """Lines without their computing time."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- several inputs in one file ---------------------------------------------------------------------------------


def test_one_file_holds_the_lines_of_all_inputs_and_times(here, clips, calibrated, tmp_path):
    """a.mp4 has sound, the second half of b.mkv is silent, c.avi is no video."""
    command = ("localize", clips, "--model", calibrated, "--every", 2)
    lines = json_lines(here(*command, "--json").out)
    done = here(*command, *outputs(tmp_path, *RECORDS))
    assert (done.code, done.out) == (1, "".join(f"{tmp_path}/{name}\n" for name in RECORDS))
    found = json.loads((tmp_path / "all.json").read_text())
    assert timeless(found) == timeless(lines)
    assert [(Path(line["input"]).name, line["silent"], bool(line["error"])) for line in found] == [
        *[("a.mp4", False, False)] * 2,
        *[("b.mkv", False, False), ("b.mkv", True, False), ("c.avi", None, True)],
    ]
    table = rows(tmp_path / "all.csv")
    assert len(table) == len(found)
    for row, line in zip(table, found, strict=True):
        assert row == {name: expected_cell(value) for name, value in flat(line).items() if name != "seconds"} | {
            "seconds": row["seconds"]
        }


def flat(line: dict) -> dict:
    """A JSON line with its lists in columns."""
    window, size, peak, box = (
        line[name] or [None] * length
        for name, length in (("window_s", 2), ("frame_hw", 2), ("peak_xy", 2), ("box_xyxy", 4))
    )
    lists = {
        **dict(zip(("window_start_s", "window_end_s"), window, strict=True)),
        **dict(zip(("height", "width"), size, strict=True)),
        **dict(zip(("peak_x", "peak_y"), peak, strict=True)),
        **dict(zip(("box_x0", "box_y0", "box_x1", "box_y1"), box, strict=True)),
    }
    return {
        name: value for name, value in line.items() if not name.endswith(("window_s", "_hw", "_xy", "_xyxy"))
    } | lists


def expected_cell(value: object) -> str:
    return "" if value is None else json.dumps(value) if isinstance(value, bool | float | int) else str(value)


def test_pycocotools_reads_the_data_set(here, clips, calibrated, tmp_path):
    done = here("localize", clips, "--model", calibrated, "--every", 2, *outputs(tmp_path, "all.coco.json"))
    assert done.code == 1
    coco = COCO(str(tmp_path / "all.coco.json"))
    reference = [
        result
        for name in ("a.mp4", "b.mkv")
        for result in avloc.load(calibrated).localize_video(clips / name, every=2.0)
    ]
    assert coco.dataset["info"] == {
        "description": "Sound sources localized by avloc localize",
        "version": avloc.__version__,
        "model": "calibrated",
        "model_sha256": load_model(calibrated).sha256,
        "protocol": "avloc/fp32",
    }
    assert coco.cats == {1: {"id": 1, "name": "sound source"}}
    names = [f"{clips}/a.mp4#t=0.000", f"{clips}/a.mp4#t=2.000", f"{clips}/b.mkv#t=0.000", f"{clips}/b.mkv#t=2.000"]
    assert [image["file_name"] for image in coco.imgs.values()] == names
    assert [(image["height"], image["width"], image["time_s"]) for image in coco.imgs.values()] == [
        (48, 64, result.time_s) for result in reference
    ]
    assert [len(coco.getAnnIds(imgIds=[image])) for image in coco.imgs] == [1, 1, 1, 0], "silence has no source"
    for (number, annotation), result in zip(coco.anns.items(), reference, strict=False):
        x0, y0, x1, y1 = result.box_xyxy
        assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert (annotation["image_id"], annotation["category_id"], annotation["iscrowd"]) == (number, 1, 0)
        assert annotation["score"] == pytest.approx(result.match)
        assert str(result.verdict) == "no_match", "kept, with its low score"
        mask = coco.annToMask(annotation)
        np.testing.assert_array_equal(mask, result.mask)
        assert annotation["area"] == mask.sum() == coco_mask.area(coco.annToRLE(annotation))
        assert coco_mask.toBbox(coco.annToRLE(annotation)).tolist() == annotation["bbox"]
    loaded = coco.loadRes([{**one, "score": 0.5} for one in coco.anns.values()])
    assert len(loaded.anns) == 3


def test_annotations_have_no_score_without_calibration(here, clips, model, tmp_path):
    sound = make_sound(tmp_path / "s.wav", tone(3, RATE), RATE)
    done = here(
        "localize",
        clips / "p.png",
        "--audio",
        sound,
        "--model",
        model,
        *outputs(tmp_path, "one.COCO.json", "h.mask.png"),
    )
    assert done.code == 0
    coco = COCO(str(tmp_path / "one.COCO.json"))
    (image,), (annotation,) = coco.imgs.values(), coco.anns.values()
    assert (image["file_name"], "score" in annotation) == (f"{clips}/p.png", False), "a picture has no time"
    np.testing.assert_array_equal(coco.annToMask(annotation) * 255, np.asarray(Image.open(tmp_path / "h.mask.png")))


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)))
def test_run_lengths_are_those_of_pycocotools(mask):
    counts = run_lengths(mask)
    encoded = coco_mask.frPyObjects({"size": list(mask.shape), "counts": counts}, *mask.shape)
    assert encoded == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert sum(counts) == mask.size
    assert all(after > 0 for _, after in pairwise(counts))


@given(st.lists(st.booleans(), min_size=1))
def test_run_lengths_of_one_column_alternate(pixels):
    counts = run_lengths(np.array(pixels)[:, None])
    assert [bool(number % 2) for number, count in enumerate(counts) for _ in range(count)] == pixels


def test_one_file_an_input(here, clips, calibrated, tmp_path):
    done = here("localize", clips, "--model", calibrated, *outputs(tmp_path, "{stem}.json", "{stem}.csv"))
    assert done.code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json", "b.csv", "b.json"], "c has no result"
    assert [line["input"] for line in json.loads((tmp_path / "b.json").read_text())] == [f"{clips}/b.mkv"]


def test_inputs_that_fail_first_are_in_the_file(here, clips, calibrated, tmp_path):
    done = here("localize", clips / "c.avi", clips / "a.mp4", "--model", calibrated, *outputs(tmp_path, *RECORDS))
    assert done.code == 1
    assert [bool(line["error"]) for line in json.loads((tmp_path / "all.json").read_text())] == [True, False]
    assert [bool(row["error"]) for row in rows(tmp_path / "all.csv")] == [True, False]
    assert len(COCO(str(tmp_path / "all.coco.json")).imgs) == 1


def test_without_a_result_no_file_is_written_or_replaced(here, clips, calibrated, tmp_path):
    (tmp_path / "all.json").write_text("old")
    done = here("localize", clips / "c.avi", "--model", calibrated, *outputs(tmp_path, *RECORDS))
    assert (done.code, done.out) == (3, "")
    assert [path.name for path in tmp_path.iterdir()] == ["all.json"]
    assert (tmp_path / "all.json").read_text() == "old"


@pytest.mark.parametrize("name", RECORDS)
def test_a_run_that_is_stopped_leaves_no_file(clips, calibrated, tmp_path, name):
    (tmp_path / name).write_text("old")
    options = LocalizeOptions(
        inputs=(str(clips / "a.mp4"), str(clips / "b.mkv")),
        model=calibrated,
        times=Times(every=1),
        out=(str(tmp_path / name), str(tmp_path / "new" / name)),
        device="cpu",
    )
    results = localize(options)
    next(results)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"], "it grows with each result"
    results.close()
    assert [path.name for path in tmp_path.rglob("*")] == [name]
    assert (tmp_path / name).read_text() == "old"


def test_a_full_disk_at_the_end_leaves_no_file(clips, calibrated, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    options = LocalizeOptions(
        inputs=(str(clips / "a.mp4"),),
        model=calibrated,
        out=tuple(str(tmp_path / name) for name in RECORDS),
        device="cpu",
    )
    with pytest.raises(OSError, match="No space left"):
        list(localize(options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let such a name be")
def test_a_file_name_that_is_not_unicode(here, clips, calibrated, tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    odd.write_bytes((clips / "a.mp4").read_bytes())
    assert here("localize", odd, "--model", calibrated, *outputs(tmp_path, *RECORDS)).code == 0
    assert json.loads((tmp_path / "all.json").read_text())[0]["input"] == str(odd)
    assert rows(tmp_path / "all.csv")[0]["input"] == f"{tmp_path}/caf\\udce9.mp4"
    (image,) = COCO(str(tmp_path / "all.coco.json")).imgs.values()
    assert image["file_name"].startswith(f"{odd}#t=")


# --- several outputs --------------------------------------------------------------------------------------------


def test_several_outputs_are_those_of_several_runs(here, clips, calibrated, tmp_path):
    names = ("h.mp4", "h.png", "h.mask.png", "h.npy", "all.json")
    together, alone = tmp_path / "together", tmp_path / "alone"
    command = ("localize", clips / "a.mp4", "--model", calibrated)
    done = here(*command, *outputs(together, *names))
    assert done.code == 0
    assert sorted(done.out.splitlines()) == sorted(f"{together}/{name}" for name in names)
    for name in names[1:4]:
        assert here(*command, *outputs(alone, name)).code == 0
        assert (together / name).read_bytes() == (alone / name).read_bytes(), "of the middle of the video"
    lines = json_lines(here(*command, *outputs(alone, "h.mp4"), "--json").out)
    assert timeless(json.loads((together / "all.json").read_text())) == timeless(lines)
    assert len(lines) == 5, "the times that determine the verdict of the overlay video"


def test_masks_of_several_times(here, clips, calibrated, tmp_path):
    done = here("localize", clips / "b.mkv", "--model", calibrated, "--every", 2, *outputs(tmp_path, "{time}.mask.png"))
    assert done.out.splitlines() == [f"{tmp_path}/0000.000.mask.png", f"{tmp_path}/0002.000.mask.png"]
    results = avloc.load(calibrated).localize_video(clips / "b.mkv", every=2.0)
    for path, result in zip(done.out.splitlines(), results, strict=True):
        with Image.open(path) as picture:
            assert (picture.format, picture.mode) == ("PNG", "L")
            np.testing.assert_array_equal(np.asarray(picture), 255 * result.mask)
    assert not result.mask.any(), "silence has no source"


def test_an_input_named_like_a_mask_has_an_overlay(here, clips, calibrated, tmp_path):
    (tmp_path / "x.mask.mp4").write_bytes((clips / "a.mp4").read_bytes())
    done = here("localize", tmp_path / "x.mask.mp4", "--model", calibrated, *outputs(tmp_path, "maps/"))
    assert done.out == f"{tmp_path}/maps/x.mask.png\n"
    with Image.open(tmp_path / "maps" / "x.mask.png") as picture:
        assert picture.mode == "RGB"


def test_a_list_of_inputs_is_never_overwritten(here, clips, calibrated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clips.csv").write_text(f"{clips}/a.mp4\n")
    done = here("localize", "@clips.csv", "--model", calibrated, "--out", "clips.csv")
    assert (done.code, "--out clips.csv would overwrite the input" in done.err) == (2, True)
    assert Path("clips.csv").read_text() == f"{clips}/a.mp4\n"


def test_an_existing_file_of_several_inputs_is_kept(here, clips, calibrated, tmp_path):
    inputs = (clips / "a.mp4", clips / "b.mkv")
    command = ("localize", *inputs, "--model", calibrated, "--skip-existing")
    assert here(*command, *outputs(tmp_path, "all.json", "{stem}.npy")).code == 0
    (tmp_path / "b.npy").unlink()
    table = (tmp_path / "all.json").read_bytes()
    done = here(*command, *outputs(tmp_path, "all.json", "{stem}.npy"))
    assert (done.code, done.out, done.err.count("skipped")) == (0, f"{tmp_path}/b.npy\n", 1)
    assert (tmp_path / "all.json").read_bytes() == table, "it holds the input that is skipped"
    assert here(*command, *outputs(tmp_path, "all.json")).err.count("skipped, its output exists") == 2
