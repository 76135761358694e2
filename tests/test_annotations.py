"""Lists, ids and boxes: the published numbers hold, and every format comes out in one form."""

from __future__ import annotations

import json
import lzma
from pathlib import Path, PurePath

import numpy as np
import pytest

from avloc import annotations as ann
from avloc.errors import InputError, UsageError

SIZES = {
    "flickr_10k": 10_000,
    "flickr_10k_random": 10_000,
    "flickr_144k": 144_000,
    "flickr_144k_random": 144_000,
    "flickr_test": 249,
    "vggsound_10k_random": 10_000,
    "vggsound_144k_random": 144_000,
    "vggss_10k": 10_000,
    "vggss_144k": 144_000,
    "vggss_heard": 59_468,
    "vggss_heard_test": 2564,
    "vggss_test": 5158,
    "vggss_test_4692": 4692,
    "vggss_unheard_test": 2575,
}
OVERLAPS = {
    "vggss_144k": ("vggss_test", 3709),
    "vggss_10k": ("vggss_test", 238),
    "vggsound_144k_random": ("vggss_test", 3710),
    "vggsound_10k_random": ("vggss_test", 258),
    "vggss_heard": ("vggss_test", 0),
    "flickr_10k": ("flickr_test", 1),
    "flickr_10k_random": ("flickr_test", 2),
    "flickr_144k": ("flickr_test", 20),
    "flickr_144k_random": ("flickr_test", 13),
}
METADATA = Path(__file__).parents[2] / "shared" / "data" / "metadata"


def test_every_list_has_its_published_size():
    assert {name: len(set(ann.published_list(name))) for name in ann.list_names()} == SIZES


@pytest.mark.parametrize("training", OVERLAPS)
def test_training_lists_overlap_the_test_sets_as_published(training):
    test, count = OVERLAPS[training]
    assert len(set(ann.published_list(training)) & set(ann.published_list(test))) == count


@pytest.mark.skipif(not METADATA.is_dir(), reason="the published lists lie beside the checkout and are not there")
@pytest.mark.parametrize("name", SIZES)
def test_shipped_lists_are_the_published_ones(name):
    path = next(p for p in METADATA.iterdir() if p.name.split(".")[0] == name)
    data = path.read_bytes()
    lines = (lzma.decompress(data) if path.suffix == ".xz" else data).decode().split()
    published = [ann.canonical_id(line.split(",")[0]) for line in lines]
    shipped = ann.published_list(name)
    if name in ann.TEST_LISTS:
        assert list(shipped) == published
    else:
        assert sorted(shipped) == sorted(published)


def test_test_sets_and_their_names():
    assert ann.testset_list("vggss-heard") == "vggss_heard_test"
    assert ann.testset_list("mine") == ""
    assert ann.list_name("vggss-test-4692") == ann.list_name("vggss_test_4692") == "vggss_test_4692"
    assert ann.list_name("vggss-unheard") == "vggss_unheard_test"
    assert (ann.list_name("vggss-heard"), ann.list_name("vggss_heard")) == ("vggss_heard_test", "vggss_heard")
    assert len(ann.test_ids()) == 5158 + 250
    assert "3908875357" in ann.test_ids(), "Flickr's 250th test clip is in no published list, and yet one to leave out"
    assert all(ann.test_ids().issuperset(ann.published_list(name)) for name in ann.TEST_LISTS)
    with pytest.raises(UsageError, match=r"vgg_test: .*valid: flickr_10k"):
        ann.list_name("vgg_test")


def test_silent_pairs_keep_their_three_columns():
    assert len(ann.silent_pairs("flickr")) == 250
    pairs = ann.silent_pairs("vggss")
    assert len(pairs) == 5158
    assert pairs[0] == ann.SilentPair("9PmzQI8ZYpg_000147", "9PmzQI8ZYpg_000147", "non-sounding")


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("e_2-tPyNgcw_90000_100000", "e_2-tPyNgcw_000090"),
        ("HYzEJns51Vg_1000_11000", "HYzEJns51Vg_000001"),
        ("e_2-tPyNgcw_000090", "e_2-tPyNgcw_000090"),
        ("10000130166", "10000130166"),
        ("holidays_19_2024_2025", "holidays_19_2024_2025"),
    ],
)
def test_the_two_spellings_are_one_id(spelling, canonical):
    assert ann.canonical_id(spelling) == canonical
    assert ann.media_id(PurePath(f"frames/{spelling}.jpg")) == canonical


def test_vggss_boxes_are_as_published():
    boxes = ann.published_boxes()
    assert boxes.rule == "union"
    assert list(boxes.by_id) == list(ann.published_list("vggss_test"))
    assert sum(len(entry.boxes) for entry in boxes.by_id.values()) == 5941
    assert len({entry.label for entry in boxes.by_id.values()}) == 221
    everything = np.concatenate([entry.boxes for entry in boxes.by_id.values()])
    assert int((everything < -1).any(axis=1).sum()) == 12
    widths = everything[:, 2:] - everything[:, :2]
    broken = (widths <= 0).any(axis=1)
    assert int(broken.sum()) >= 18
    np.testing.assert_array_equal(boxes.by_id["zpWuikVorYg_000032"].boxes, [[0.403125, 0.253125, 0.6, 0.75]])


def test_flickr_xml_is_read_by_structure(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "12.xml").write_text(
        "<root><annotator><bbox><first/><xmin>10</xmin><ymin>20</ymin><xmax>100</xmax><ymax>128</ymax></bbox>"
        "<note>blurred</note></annotator>"
        "<deep><er><bbox><n>7</n><a> 0 </a><b>64</b><c>256</c><d>192</d></bbox></er></deep>"
        "<bbox>empty</bbox></root>"
    )
    (tmp_path / "sub" / "13.XML").write_text("<root/>")
    (tmp_path / "14.xml").write_text("<root><bbox>")
    read = ann.read_annotations(tmp_path)
    assert read.rule == "consensus"
    np.testing.assert_array_equal(
        read.find("12", PurePath("12.jpg")).boxes, [[10 / 256, 20 / 256, 100 / 256, 0.5], [0, 0.25, 1, 0.75]]
    )
    assert read.find("13", PurePath("13.jpg")).boxes.shape == (0, 4)
    assert read.find("99", PurePath("99.jpg")) is None
    with pytest.raises(InputError, match=r"14\.xml cannot be read"):
        read.find("14", PurePath("14.jpg"))


def test_boxes_of_our_own_are_found_by_path_name_and_stem(tmp_path):
    file = tmp_path / "boxes.json"
    content = {
        "dog/a.jpg": [[0, 0, 1, 1]],
        "cat/a.jpg": [[0, 0, 0.5, 0.5]],
        "b.mp4": {"boxes": [[0.1, 0.2, 0.3, 0.4]], "label": "bell"},
        "e_2-tPyNgcw_90000_100000": [],
    }
    file.write_text(json.dumps(content))
    read = ann.read_annotations(file)
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
        ann.read_annotations(tmp_path / "boxes.json")


@pytest.mark.parametrize(
    "box", [[10, 20, 110, 220], [0.1, 0.1, 0.1, 0.5], [0.5, 0.1, 0.2, 0.5], [-0.1, 0, 1, 1], [0, 0, 1, 1.01]]
)
def test_own_boxes_in_pixels_or_without_size_are_named(tmp_path, box):
    (tmp_path / "boxes.json").write_text(json.dumps({"dog.mp4": [[0, 0, 1, 1], box]}))
    with pytest.raises(UsageError, match=r"--annotations .*dog\.mp4: box .* fractions of the picture are wanted"):
        ann.read_annotations(tmp_path / "boxes.json")


@pytest.mark.parametrize("rows", [[[0.5, 0.5]], [[0, 0, 1, 1, 0.9]], [0, 0, 1, 1], [[0, 0, True, 1]], "abcd"])
def test_own_boxes_are_four_numbers(tmp_path, rows):
    (tmp_path / "boxes.json").write_text(json.dumps({"dog.mp4": rows}))
    with pytest.raises(UsageError, match=r"dog\.mp4: a box (is a list of 4|holds)"):
        ann.read_annotations(tmp_path / "boxes.json")


def test_a_clip_does_not_get_the_boxes_of_its_namesake(tmp_path):
    (tmp_path / "boxes.json").write_text('{"a/dog.mp4": [[0, 0, 1, 1]]}')
    read = ann.read_annotations(tmp_path / "boxes.json")
    assert read.find("dog", PurePath("/data/b/dog.mp4")) is None
    assert read.find("dog", PurePath("/data/a/dog.mp4")) is not None
    assert read.ids == ("dog",)


def test_annotations_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="no such"):
        ann.read_annotations(tmp_path / "absent.json")
    with pytest.raises(UsageError, match=r"no \.xml"):
        ann.read_annotations(tmp_path)


def test_ids_from_a_file(tmp_path):
    (tmp_path / "my.csv").write_text("e_2-tPyNgcw_90000_100000,3\n\nclip.mp4,1\nclip.mp4,2\n")
    mine = ann.read_ids(str(tmp_path / "my.csv"))
    assert (mine.ids, mine.name, mine.is_test) == (("e_2-tPyNgcw_000090", "clip"), "", False)
    copy = tmp_path / "copy.txt.xz"
    copy.write_bytes(lzma.compress("\n".join(ann.published_list("flickr_test")).encode()))
    assert (ann.read_ids(str(copy)).name, ann.read_ids(str(copy)).is_test) == ("flickr_test", True)
    (tmp_path / "blank.txt").write_text("\n")
    with pytest.raises(UsageError, match="holds no id"):
        ann.read_ids(str(tmp_path / "blank.txt"))
