"""Id lists, ids, boxes and masks: published counts, and reading of every annotation format."""

from __future__ import annotations

import json
import lzma
from pathlib import Path, PurePath

import numpy as np
import pytest

from avloc.annotations import testsets
from avloc.annotations.boxes import Annotation, Annotations, published_boxes, read_annotations
from avloc.errors import InputError, UsageError

SIZES = {
    "flickr_10k": 10_000,
    "flickr_10k_random": 10_000,
    "flickr_144k": 144_000,
    "flickr_144k_random": 144_000,
    "flickr_250": 250,
    "flickr_ext": 250,
    "flickr_test": 249,
    "vggsound_10k_random": 10_000,
    "vggsound_144k_random": 144_000,
    "vggss_10k": 10_000,
    "vggss_144k": 144_000,
    "vggss_ext": 5158 + 379,
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
EXTENDED = {"flickr_250": "flickr_test", "flickr_ext": "flickr_test", "vggss_ext": "vggss_test"}
METADATA = Path(__file__).parents[3] / "shared" / "data" / "metadata"


def test_every_list_has_its_published_size():
    assert {name: len(testsets.published_list(name)) for name in testsets.list_names()} == SIZES
    assert {name: len(set(testsets.published_list(name))) for name in testsets.list_names()} == SIZES


@pytest.mark.parametrize("training", OVERLAPS)
def test_training_lists_overlap_the_test_sets_as_published(training):
    test, count = OVERLAPS[training]
    assert len(set(testsets.published_list(training)) & set(testsets.published_list(test))) == count
    assert not testsets.pair_only_ids() & set(testsets.published_list(training)), (
        "clips used only by the pairs are in no training list"
    )


@pytest.mark.skipif(not METADATA.is_dir(), reason="the published lists lie beside the checkout and are not there")
@pytest.mark.parametrize("name", sorted(SIZES.keys() - EXTENDED))
def test_shipped_lists_are_the_published_ones(name):
    path = next(p for p in METADATA.iterdir() if p.name.split(".")[0] == name)
    data = path.read_bytes()
    lines = (lzma.decompress(data) if path.suffix == ".xz" else data).decode().split()
    published = [testsets.canonical_id(line.split(",")[0]) for line in lines]
    shipped = testsets.published_list(name)
    if name in testsets.TEST_LISTS:
        assert list(shipped) == published
    else:
        assert sorted(shipped) == sorted(published)


def test_test_sets_and_their_names():
    assert testsets.TESTSETS["vggss-heard"] == "vggss_heard_test"
    assert "mine" not in testsets.TESTSETS
    assert testsets.list_name("vggss-test-4692") == testsets.list_name("vggss_test_4692") == "vggss_test_4692"
    assert testsets.list_name("vggss-unheard") == "vggss_unheard_test"
    assert (testsets.list_name("vggss-heard"), testsets.list_name("vggss_heard")) == ("vggss_heard_test", "vggss_heard")
    assert len(testsets.test_ids()) == 5158 + 250 + 379
    assert testsets.test_ids() > testsets.pair_only_ids()
    assert all(testsets.test_ids().issuperset(testsets.published_list(name)) for name in testsets.TEST_LISTS)
    with pytest.raises(UsageError, match=r"vgg_test: .*valid: flickr_10k"):
        testsets.list_name("vgg_test")


def test_the_sounding_clips_of_every_test_set():
    counts = {name: len(testsets.testset_ids(name)) for name in testsets.TESTSETS}
    assert counts == {
        "flickr": 249,
        "flickr-250": 250,
        "flickr-ext": 250,
        "vggss": 5158,
        "vggss-4692": 4692,
        "vggss-ext": 5158,
        "vggss-heard": 2564,
        "vggss-unheard": 2575,
    }
    assert testsets.testset_ids("vggss-ext") == testsets.testset_ids("vggss")
    assert testsets.testset_ids("flickr-ext") == testsets.testset_ids("flickr-250")
    assert testsets.testset_ids("mine") == ()
    for name in testsets.TESTSETS:
        assert set(testsets.testset_ids(name)) <= set(testsets.published_list(testsets.TESTSETS[name]))


def test_flickr_250_adds_the_clip_missing_from_the_published_list():
    """`test_list.txt` of Senocak et al. has the 249 clips and this one."""
    assert testsets.published_list("flickr-250") == (*testsets.published_list("flickr_test"), "3908875350")


@pytest.mark.parametrize(
    ("testset", "pairs", "more", "first"),
    [
        ("flickr-ext", 250, 0, testsets.SilentPair("10000130166", "10437048305", "non-sounding")),
        ("vggss-ext", 5158, 379, testsets.SilentPair("9PmzQI8ZYpg_000147", "9PmzQI8ZYpg_000147", "non-sounding")),
    ],
)
def test_extended_lists_have_all_clips(testset, pairs, more, first):
    found = testsets.silent_pairs(testset)
    assert len(found) == len(set(found)) == pairs
    assert found[0] == first
    assert {pair.label for pair in found} == {"non-sounding"}
    assert all(testsets.canonical_id(name) == name for pair in found for name in (pair.video, pair.audio))
    sounding, every = testsets.testset_ids(testset), testsets.published_list(testsets.TESTSETS[testset])
    expected = list(sounding)
    for pair in found:
        for clip_id in (pair.video, pair.audio):
            if clip_id not in expected:
                expected.append(clip_id)
    assert list(every) == expected
    assert len(every) - len(sounding) == more
    own = {pair.video for pair in found if pair.video == pair.audio}
    assert own == set(every) - set(sounding), "an added clip's sound is used only with its own picture"


@pytest.mark.skipif(not METADATA.is_dir(), reason="the published lists lie beside the checkout and are not there")
@pytest.mark.parametrize("testset", ["flickr-ext", "vggss-ext"])
def test_silent_pairs_match_the_published_order(testset):
    name = f"{testset.removesuffix('-ext')}_test_plus_silent.csv"
    rows = [line.split(",") for line in (METADATA / name).read_text().splitlines()]
    assert rows[0] == ["video", "audio", "label"]
    assert [[pair.video, pair.audio, pair.label] for pair in testsets.silent_pairs(testset)] == rows[1:]


@pytest.mark.parametrize("testset", ["flickr", "vggss", "mine", ""])
def test_other_test_sets_have_no_silent_pairs(testset):
    with pytest.raises(UsageError, match="valid: flickr-ext, vggss-ext"):
        testsets.silent_pairs(testset)


@pytest.mark.parametrize(
    ("clip_id", "is_vggsound"),
    [
        ("e_2-tPyNgcw_000090", True),
        ("9PmzQI8ZYpg_000147", True),
        ("9PmzQI8ZYpg_147", False),
        ("9PmzQI8ZYpg", False),
        ("10000130166", False),
        ("duet1_dog", False),
        ("a_9PmzQI8ZYpg_000147", False),
    ],
)
def test_vggsound_ids_are_detected(clip_id, is_vggsound):
    assert testsets.is_vggsound_id(clip_id) is is_vggsound


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
def test_ids_are_normalized(spelling, canonical):
    assert testsets.canonical_id(spelling) == canonical
    assert testsets.media_id(PurePath(f"frames/{spelling}.jpg")) == canonical


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
    read = read_annotations(tmp_path)
    assert read.rule == "consensus"
    np.testing.assert_array_equal(
        read.find("12", PurePath("12.jpg")).boxes, [[10 / 256, 20 / 256, 100 / 256, 0.5], [0, 0.25, 1, 0.75]]
    )
    assert read.find("13", PurePath("13.jpg")).boxes.shape == (0, 4)
    assert read.find("99", PurePath("99.jpg")) is None
    with pytest.raises(InputError, match=r"14\.xml cannot be read"):
        read.find("14", PurePath("14.jpg"))


def _box(*values: object, tag: str = "bbox") -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, values, strict=False))
    return f"<{tag}>{inside}</{tag}>"


def _voc(*boxes: str, width: object = 200, height: object = 100) -> str:
    objects = "".join(f"<object><name>dog</name>{box}</object>" for box in boxes)
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>"


_VOC = _box(20, 10, 100, 50, tag="bndbox")


def _read_xml(folder: Path, text: str) -> tuple[Annotations, Annotation]:
    (folder / "1.xml").write_text(text)
    read = read_annotations(folder)
    return read, read.find("1")


@pytest.mark.parametrize(
    "text",
    [
        f"<a><b>{_box('10.0', ' 20.5', '+100', '128.')}</b></a>",
        "<a><b><bbox><name>dog 1</name><a>10</a><b>20.5</b><c>100.0</c><d>128</d></bbox></b></a>",
        "<a><b><BBox><ymax>128</ymax><xmin>10</xmin><ymin>20.5</ymin><xmax>100</xmax><pose>3</pose></BBox></b></a>",
        f'<a xmlns="http://example.org/a">{_box(10, 20.5, 100, 128)}<bbox/></a>',
        _box(10, 20.5, 100, 128),
    ],
)
def test_coordinates_may_be_fractional_and_in_any_order(tmp_path, text):
    read, found = _read_xml(tmp_path, text)
    assert read.rule == "consensus"
    np.testing.assert_allclose(found.boxes, [[10 / 256, 20.5 / 256, 100 / 256, 0.5]])


def test_flickr_boxes_are_kept_as_published(tmp_path):
    _, found = _read_xml(tmp_path, f"<a>{_box(-64, 128, 64, 0)}</a>")
    np.testing.assert_allclose(found.boxes, [[-0.25, 0.5, 0.25, 0]])


def test_pascal_voc_boxes_are_scaled_by_the_size_in_the_file(tmp_path):
    part = f"<object><part><name>head</name>{_box(30, 20, 40, 30, tag='bndbox')}</part>{_VOC}</object>"
    read, found = _read_xml(tmp_path, _voc(_VOC, _box("0", "0.5", "200", "100", tag="bndbox"), part))
    assert read.rule == "union"
    np.testing.assert_allclose(found.boxes, [[0.1, 0.1, 0.5, 0.5], [0, 0.005, 1, 1], [0.1, 0.1, 0.5, 0.5]])


@pytest.mark.parametrize("text", ["<root/>", _voc(), "<a><b><name>nothing</name></b></a>"])
def test_xml_without_objects_gives_no_boxes(tmp_path, text):
    assert _read_xml(tmp_path, text)[1].boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<a><bbox/></a>", "has no box that can be read"),
        ("<a><bbox>nothing</bbox></a>", "has no box that can be read"),
        (_voc(""), "has no box that can be read"),
        ("<annotations><box xtl='1' ytl='2' xbr='3' ybr='4'/></annotations>", "has no box that can be read"),
        ("<annotation><object><polygon><x1>1</x1></polygon></object></annotation>", "has no box that can be read"),
        (f"<a>{_box(1, 2, 30, 40)}<bbox xmin='1'/></a>", "a bbox has no xmin"),
        ("<a><bbox>1 2 30 40</bbox></a>", "a bbox has no xmin"),
        (f"<a>{_box(1, 2, 30)}</a>", "a bbox has no ymax"),
        (f"<a>{_box(1, 2, 30, 'nan')}</a>", "ymax is 'nan'"),
        (f"<a>{_box(1, 2, '1e400', 3)}</a>", "xmax is '1e400'"),
        (f"<a>{_box('', 2, 30, 40)}</a>", "xmin is ''"),
        (f"<a>{_box(1, 2, 30, 40)}{_box(1, 'two', 30, 40)}</a>", "ymin is 'two'"),
        ("<a><bbox><n>7</n><a>1</a><b>2</b><c>30</c><d>nan</d></bbox></a>", "d is 'nan'"),
        (f"<a>{_VOC}</a>", "picture size is missing"),
        (_voc(_VOC, width=0), "picture size is missing"),
        (_voc(_VOC, width="wide"), "width is 'wide'"),
        (_voc(_box(100, 10, 20, 50, tag="bndbox")), "box 100 10 20 50 is not valid in a picture of 200 x 100 pixels"),
        (_voc(_box(-1, 10, 20, 50, tag="bndbox")), "box -1 10 20 50 is not valid"),
        (_voc(_box(1, 10, 201, 50, tag="bndbox")), "box 1 10 201 50 is not valid"),
        (f"<a>{_VOC}{_box(1, 2, 30, 40)}</a>", "boxes of two kinds, bbox and bndbox"),
    ],
)
def test_invalid_box_is_refused_by_name(tmp_path, text, reason):
    """Invalid boxes are never dropped silently."""
    with pytest.raises(InputError, match=rf"annotation 1\.xml cannot be read \(.*{reason}"):
        _read_xml(tmp_path, text)


def test_folder_with_two_xml_formats_is_refused(tmp_path):
    (tmp_path / "2.xml").write_text(_voc(_VOC))
    with pytest.raises(UsageError, match=r"two kinds: bbox in 1\.xml and bndbox in 2\.xml"):
        _read_xml(tmp_path, f"<a>{_box(1, 2, 30, 40)}</a>")


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


def test_ids_from_a_file(tmp_path):
    (tmp_path / "my.csv").write_text("e_2-tPyNgcw_90000_100000,3\n\nclip.mp4,1\nclip.mp4,2\n")
    mine = testsets.read_ids(str(tmp_path / "my.csv"))
    assert (mine.ids, mine.name, mine.is_test) == (("e_2-tPyNgcw_000090", "clip"), "", False)
    copy = tmp_path / "copy.txt.xz"
    copy.write_bytes(lzma.compress("\n".join(testsets.published_list("flickr_test")).encode()))
    assert (testsets.read_ids(str(copy)).name, testsets.read_ids(str(copy)).is_test) == ("flickr_test", True)
    (tmp_path / "blank.txt").write_text("\n")
    with pytest.raises(UsageError, match="holds no id"):
        testsets.read_ids(str(tmp_path / "blank.txt"))


ROWS = """---g-f_I2yQ,1,people marching,test
--0PQM4-hqg,30,"waterfall, burbling",train
 "zzzzzzzzzzz" , "110" , playing accordion ,"train"
"""
VGGSOUND = ("---g-f_I2yQ_000001", "--0PQM4-hqg_000030", "zzzzzzzzzzz_000110")


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        "youtube_id,start_seconds,label,split\n" + ROWS,
        "# YouTube ID, start seconds, label, train/test split.\r\n" + ROWS.replace("\n", "\r\n"),
        "\ufeff" + ROWS + "\n" + ROWS,
        ROWS.replace(",1,", ",1.0,").replace(",30,", ",30.,"),
    ],
)
def test_vggsound_csv_is_read(tmp_path, text):
    (tmp_path / "vggsound.csv").write_text(text)
    assert testsets.read_ids(str(tmp_path / "vggsound.csv")).ids == VGGSOUND


@pytest.mark.parametrize(
    "text",
    [
        ROWS + "another_one\n",
        ROWS.replace(",test", ",held out"),
        ROWS.replace(",30,", ",half a minute,"),
        ROWS.replace("people marching,", ""),
    ],
)
def test_other_csv_is_read_as_plain_ids(tmp_path, text):
    (tmp_path / "ids.csv").write_text(text)
    assert testsets.read_ids(str(tmp_path / "ids.csv")).ids[0] == "---g-f_I2yQ"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("VGGSS", "vggss"), ("vgg-ss-test", "vggss_test"), ("vgssound_10k_random", "vggsound_10k_random"), ("abc", "")],
)
def test_misspelt_list_name_suggests_the_right_one(name, meant):
    with pytest.raises(UsageError, match="neither a file nor a published list") as error:
        testsets.read_ids(name)
    assert error.value.hint == (f"Did you mean {meant}?" if meant else "")
