"""Published id lists and test sets: counts, overlaps, spellings of ids, and lists of the user."""

from __future__ import annotations

import lzma
from pathlib import Path, PurePath

import pytest

from avloc.annotations import testsets
from avloc.errors import UsageError

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
