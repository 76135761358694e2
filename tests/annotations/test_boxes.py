"""Boxes and masks of clips: the published ones, JSON files and folders of masks."""

from __future__ import annotations

import json
from pathlib import PurePath

import numpy as np
import pytest

from avloc.annotations import testsets
from avloc.annotations.boxes import published_boxes, read_annotations
from avloc.errors import InputError, UsageError


def test_vggss_boxes_are_as_published():
    boxes = published_boxes()
    assert boxes.rule == "union"
    assert list(boxes.by_id) == list(testsets.published_list("vggss_test"))
    assert sum(len(entry.boxes) for entry in boxes.by_id.values()) == 5941
    assert len({entry.label for entry in boxes.by_id.values()}) == 221
    everything = np.concatenate([entry.boxes for entry in boxes.by_id.values()])
    assert int((everything < -1).any(axis=1).sum()) == 12
    widths = everything[:, 2:] - everything[:, :2]
    broken = (widths <= 0).any(axis=1)
    assert int(broken.sum()) >= 18
    np.testing.assert_array_equal(boxes.by_id["zpWuikVorYg_000032"].boxes, [[0.403125, 0.253125, 0.6, 0.75]])


def test_own_boxes_are_found_by_path_name_and_stem(tmp_path):
    file = tmp_path / "boxes.json"
    content = {
        "dog/a.jpg": [[0, 0, 1, 1]],
        "cat/a.jpg": [[0, 0, 0.5, 0.5]],
        "b.mp4": {"boxes": [[0.1, 0.2, 0.3, 0.4]], "label": "bell"},
        "e_2-tPyNgcw_90000_100000": [],
    }
    file.write_text(json.dumps(content))
    read = read_annotations(file)
    assert read.find("a", PurePath("/data/cat/a.jpg")).boxes.tolist() == [[0, 0, 0.5, 0.5]]
    assert read.find("a", PurePath("/data/dog/a.jpg")).boxes.tolist() == [[0, 0, 1, 1]]
    assert read.find("b", PurePath("b.mp4")).label == "bell"
    assert read.find("b", PurePath("elsewhere/b.mkv")).label == "bell"
    assert read.find("e_2-tPyNgcw_000090", PurePath("x/e_2-tPyNgcw_000090.jpg")).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    "text", ['{"a": [[0, 0, 1]]}', '{"a": [[0, 0, 1, "x"]]}', "[1, 2]", "no json", '{"a": {"box": []}}', "3"]
)
def test_unreadable_annotations_are_a_usage_error(tmp_path, text):
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(UsageError, match="--annotations"):
        read_annotations(tmp_path / "boxes.json")


@pytest.mark.parametrize(
    "box", [[10, 20, 110, 220], [0.1, 0.1, 0.1, 0.5], [0.5, 0.1, 0.2, 0.5], [-0.1, 0, 1, 1], [0, 0, 1, 1.01]]
)
def test_own_boxes_in_pixels_or_empty_are_refused(tmp_path, box):
    (tmp_path / "boxes.json").write_text(json.dumps({"dog.mp4": [[0, 0, 1, 1], box]}))
    with pytest.raises(UsageError, match=r"--annotations .*dog\.mp4: box .* in fractions of the picture, not pixels"):
        read_annotations(tmp_path / "boxes.json")


@pytest.mark.parametrize("rows", [[[0.5, 0.5]], [[0, 0, 1, 1, 0.9]], [0, 0, 1, 1], [[0, 0, True, 1]], "abcd"])
def test_own_boxes_are_four_numbers(tmp_path, rows):
    (tmp_path / "boxes.json").write_text(json.dumps({"dog.mp4": rows}))
    with pytest.raises(UsageError, match=r"dog\.mp4: a box (is a list of 4|has values)"):
        read_annotations(tmp_path / "boxes.json")


def test_path_keys_do_not_apply_to_other_folders(tmp_path):
    (tmp_path / "boxes.json").write_text('{"a/dog.mp4": [[0, 0, 1, 1]]}')
    read = read_annotations(tmp_path / "boxes.json")
    assert read.find("dog", PurePath("/data/b/dog.mp4")) is None
    assert read.find("dog", PurePath("/data/a/dog.mp4")) is not None
    assert read.ids == ("dog",)


def test_a_folder_of_masks_is_matched_by_id(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "duet1_dog.png").write_bytes(b"dog")
    (tmp_path / "deep" / "er" / "e_2-tPyNgcw_90000_100000.PNG").write_bytes(b"horn")
    (tmp_path / "deep" / "notes.txt").write_text("no mask")
    read = read_annotations(tmp_path)
    assert (read.rule, set(read.ids)) == ("mask", {"duet1_dog", "e_2-tPyNgcw_000090"})
    dog = read.find("duet1_dog", PurePath("frames/duet1.jpg"))
    assert (dog.mask, dog.mask_name, dog.boxes.shape) == (b"dog", "duet1_dog.png", (0, 4))
    assert read.find("e_2-tPyNgcw_000090", PurePath("x/e_2-tPyNgcw_000090.jpg")).mask == b"horn"
    assert read.find("duet1", PurePath("frames/duet1.jpg")) is None


def test_unusable_masks_are_refused_by_name(tmp_path):
    for name in ("twice.png", "sub/twice.png", "empty.png", "huge.png", "folder.png/inside.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name in ("twice.png", "sub/twice.png", "folder.png/inside.png"):
        (tmp_path / name).write_bytes(b"mask")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate((1 << 26) + 1)  # a hole in the file: it takes no room
    read = read_annotations(tmp_path)
    problems = {
        "twice": r"two masks for clip twice: .*twice\.png and .*twice\.png",
        "empty": r"empty\.png has 0 bytes",
        "huge": r"huge\.png has 67108865 bytes; valid: 1 to 67108864",
        "folder": r"folder\.png cannot be read",
    }
    for clip_id, problem in problems.items():
        with pytest.raises(InputError, match=problem):
            read.find(clip_id, PurePath(f"{clip_id}.jpg"))
    assert read.find("inside", PurePath("inside.jpg")).mask == b"mask"


def test_folder_with_boxes_and_masks_is_refused(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.xml").write_text("<root/>")
    (tmp_path / "sub" / "b.png").write_bytes(b"mask")
    with pytest.raises(UsageError, match=r"has both \.xml and \.png files"):
        read_annotations(tmp_path)


def test_first_annotated_path_is_used(tmp_path):
    (tmp_path / "boxes.json").write_text('{"frames/d_1.jpg": [[0, 0, 1, 1]], "a/d_1.wav": [], "d_1": [[0, 0, 0.5, 1]]}')
    read = read_annotations(tmp_path / "boxes.json")
    frame, sound = PurePath("/x/frames/d_1.jpg"), PurePath("/x/a/d_1.wav")
    assert read.find("d_1", frame, sound).boxes.tolist() == [[0, 0, 1, 1]]
    assert read.find("d_1", sound, frame).boxes.tolist() == []
    assert read.find("d_1", PurePath("/x/b/d_1.wav")).boxes.tolist() == [[0, 0, 0.5, 1]]


def test_missing_annotations_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no such"):
        read_annotations(tmp_path / "absent.json")
    with pytest.raises(UsageError, match=r"no \.xml"):
        read_annotations(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a.mp4": ' + "[" * 100_000,
        '{"a.mp4": [[0, 0, 1e400, 1]]}',
        '{"a.mp4": [[0, 0, ' + "9" * 400 + ", 1]]}",
        '[{"file": "a", "class": "b", "bbox": [[0, 0, ' + "9" * 400 + ", 1]]}]",
        '[{"file": ["a"], "class": "b", "bbox": []}]',
        '{"a.mp4": [[NaN, 0, 1, 1]]}',
    ],
    ids=range(7),
)
def test_malicious_boxes_are_refused(tmp_path, text):
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(UsageError, match=r"boxes\.json"):
        read_annotations(tmp_path / "boxes.json")
