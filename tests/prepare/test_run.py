"""`avloc prepare`: every input is stored or reported, and results are deterministic."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from avloc.annotations.boxes import Annotation
from avloc.annotations.testsets import pair_only_ids, published_list
from avloc.errors import NoInputLeft, Refused, UsageError
from avloc.files import folder_lock, read_json_lines
from avloc.media.pictures import decode_mask, decode_picture
from avloc.prepare import PrepareOptions, prepare
from avloc.prepare.clips import Job
from avloc.prepare.sources import Skip, Source
from avloc.prepare.workers import make_clips
from avloc.progress import Notice, Progress
from avloc.store import Store
from tests.media_makers import disc, make_picture, make_sound, make_video, moving_disc, tone
from tests.program import avloc

CLIPS = Path(__file__).parents[3] / "shared" / "clips"
ONE = PrepareOptions(workers=1)
RATE = 16_000


def run(source: Path | list[Path], out: Path, options: PrepareOptions = ONE, listener=lambda _event: None):
    sources = source if isinstance(source, list) else [source]
    return prepare([str(path) for path in sources], out, options, listener)


def pair(folder: Path, name: str, *, rate: int = RATE, sound=None, colour=(200, 30, 30)) -> None:
    make_picture(folder / "frames" / f"{name}.jpg", disc((80, 60), (0.5, 0.5), colour=colour), quality=92)
    make_sound(folder / "audio" / f"{name}.wav", tone(4, rate) if sound is None else sound, rate)


def pairs(folder: Path, count: int) -> Path:
    for index in range(count):
        pair(folder, f"clip{index}", sound=tone(4, RATE, hz=200 + 50 * index))
    return folder


def skipped(out: Path) -> dict[str, str]:
    return {e["id"]: e["reason"] for e in map(json.loads, (out / "skipped.jsonl").read_text().splitlines())}


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("shard-*.h5"))}


# --- contents of a clip -----------------------------------------------------------------------------------------


def test_a_video_becomes_a_training_clip(tmp_path):
    size = (640, 480)
    sound = tone(6, 44_100, span=(2.5, 3.5))
    path = make_video(tmp_path / "a.mp4", seconds=6, size=size, frame_fn=moving_disc(size, 6), sound=sound, rate=44_100)
    report = run(path, tmp_path / "out")
    assert (report.found, report.stored, report.failed, report.exit_code) == (1, 1, 0, 0)
    store = Store(tmp_path / "out")
    assert (store.header.kind, store.spec.seconds, store.spec.rate) == ("train", 3.0, 22_050)
    clip = store.read("a")
    assert clip.frame_hw == (480, 640)
    assert decode_picture(clip.picture).shape == (256, 341, 3)
    assert (clip.source_rate, clip.flags, Path(clip.sound_source)) == (44_100, (), path.resolve())
    assert clip.source_bytes == path.stat().st_size
    assert (clip.time_s, clip.window_s) == pytest.approx((3.0, 1.5), abs=0.02)
    loud = np.nonzero(np.abs(clip.sound.astype(int)) > 1500)[0] / 22_050 + clip.window_s
    assert (loud[0], loud[-1]) == pytest.approx((2.5, 3.5), abs=0.002)


def test_a_test_store_keeps_the_pictures_own_bytes(tmp_path):
    pair(tmp_path / "in", "a")
    make_picture(tmp_path / "in" / "frames" / "b.png", disc((80, 60), (0.3, 0.3)))
    make_sound(tmp_path / "in" / "audio" / "b.flac", tone(4, RATE), RATE)
    (tmp_path / "boxes.json").write_text('{"a.jpg": [[0.1, 0.2, 0.3, 0.4]], "b": {"boxes": [], "label": "bell"}}')
    run(tmp_path / "in", tmp_path / "out", replace(ONE, annotations=tmp_path / "boxes.json"))
    store = Store(tmp_path / "out")
    assert (store.header.kind, store.header.expected, store.header.box_rule) == ("test", ("a", "b"), "union")
    assert store.read("a").picture == (tmp_path / "in" / "frames" / "a.jpg").read_bytes()
    assert store.read("a").boxes.tolist() == [[0.1, 0.2, 0.3, 0.4]]
    assert store.read("b").label == "bell"
    np.testing.assert_array_equal(decode_picture(store.read("b").picture), disc((80, 60), (0.3, 0.3)))


def test_options_that_no_input_uses_are_named(tmp_path):
    pair(tmp_path / "in", "a")
    notices = []
    run(tmp_path / "in", tmp_path / "out", replace(ONE, frame="5s", track=1), listener=notices.append)
    texts = [n.text for n in notices if isinstance(n, Notice)]
    assert texts == ["--frame has no effect: no input is a video"]
    make_video(tmp_path / "in" / "b.mp4", sound=tone(4, RATE), rate=RATE)
    run(tmp_path / "in", tmp_path / "both", replace(ONE, frame="2s"), listener=notices.append)
    assert [n.text for n in notices if isinstance(n, Notice)] == texts


def test_annotated_clips_can_make_a_training_store(tmp_path):
    for name in ("a", "b", "c"):
        make_picture(tmp_path / "in" / "frames" / f"{name}.jpg", disc((640, 480), (0.5, 0.5)), quality=92)
        make_sound(tmp_path / "in" / "audio" / f"{name}.wav", tone(4, RATE), RATE)
    boxes = {"frames/a.jpg": {"boxes": [[0.1, 0.2, 0.3, 0.4]], "label": "dog | dog, cat"}, "b": [[0, 0, 1, 0.5]]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    options = replace(ONE, annotations=tmp_path / "boxes.json", kind="train")
    report = run(tmp_path / "in", tmp_path / "out", options)
    assert (report.stored, report.missing) == (3, ())
    store = Store(tmp_path / "out")
    assert (store.header.kind, store.header.expected, store.spec.shorter_side) == ("train", (), 256)
    larger = run(tmp_path / "in", tmp_path / "larger", replace(options, side=300))
    assert (larger.stored, Store(tmp_path / "larger").spec.shorter_side) == (3, 300)
    assert decode_picture(Store(tmp_path / "larger").read("a").picture).shape == (300, 400, 3)
    with pytest.raises(UsageError, match="--side applies to training stores"):
        run(tmp_path / "in", tmp_path / "test", replace(options, side=300, kind=""))
    for side in (-1, 31):
        with pytest.raises(UsageError, match=f"--side {side} is impossible"):
            replace(options, side=side)
    clips = [store.read(name) for name in ("a", "b", "c")]
    assert [clip.label for clip in clips] == ["dog | dog, cat", "", ""]
    assert [clip.boxes.tolist() for clip in clips] == [[[0.1, 0.2, 0.3, 0.4]], [[0, 0, 1, 0.5]], []]
    assert [decode_picture(clip.picture).shape for clip in clips] == [(256, 341, 3)] * 3


def test_an_annotated_training_store_leaves_test_clips_out(tmp_path):
    pair(tmp_path / "in", "zpWuikVorYg_000032")
    pair(tmp_path / "in", "mine")
    (tmp_path / "boxes.json").write_text('{"mine": [], "zpWuikVorYg_000032": [[0, 0, 1, 1]]}')
    options = replace(ONE, annotations=tmp_path / "boxes.json", kind="train")
    assert run(tmp_path / "in", tmp_path / "out", options).overlap == ("zpWuikVorYg_000032",)
    assert Store(tmp_path / "out").ids == ["mine"]


def test_the_kind_of_store_can_be_typed(tmp_path):
    pair(tmp_path / "in", "a")
    (tmp_path / "boxes.json").write_text('{"a": {"boxes": [], "label": "dog"}}')
    given = ("--annotations", str(tmp_path / "boxes.json"), "--workers", "1")
    for kind in ("train", "test"):
        done = avloc("prepare", str(tmp_path / "in"), "--out", str(tmp_path / kind), "--kind", kind, *given)
        assert done.returncode == 0, done.stderr
        assert Store(tmp_path / kind).header.kind == kind
    refused = avloc("prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--kind", "both", *given)
    assert (refused.returncode, "--kind both is unknown; valid: train, test" in refused.stderr) == (2, True)


def test_conditions_are_flagged_and_counted(tmp_path):
    still = disc((64, 48), (0.5, 0.5))
    video = {"frame_fn": lambda _t: still, "rate": RATE}
    make_video(tmp_path / "in.mp4", sound=np.zeros(4 * RATE, np.float32), **video)
    pair(tmp_path / "in", "short", sound=tone(1, 44_100), rate=44_100)
    report = run([tmp_path / "in.mp4", tmp_path / "in"], tmp_path / "out")
    assert report.flags == {"silent": 1, "still": 1, "short": 1, "narrowband": 1}
    store = Store(tmp_path / "out")
    assert store.read("in").flags == ("silent", "still", "narrowband")
    assert store.read("short").flags == ("short",)


def test_the_frame_asked_for(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=6, sound=tone(6, RATE), rate=RATE)
    run(path, tmp_path / "out", replace(ONE, frame="5s"))
    clip = Store(tmp_path / "out").read("a")
    assert (clip.time_s, clip.window_s) == pytest.approx((5.0, 3.0), abs=0.03)
    with pytest.raises(NoInputLeft, match="the video ends at 6"):
        run(path, tmp_path / "late", replace(ONE, frame="7.5"))


def test_the_method_and_the_rate_set_the_spec(tmp_path):
    pair(tmp_path / "in", "a")
    run(tmp_path / "in", tmp_path / "out", replace(ONE, rate=44_100, seconds=1.0, method="ezvsl"))
    assert Store(tmp_path / "out").read("a").sound.shape == (44_100,)


@pytest.mark.parametrize(
    "wrong", [{"layout": "flat"}, {"method": "avx"}, {"frame": "-3s"}, {"workers": -1}, {"rate": 5}]
)
def test_impossible_options_are_named(wrong):
    with pytest.raises(UsageError, match="valid:"):
        PrepareOptions(**wrong).spec  # noqa: B018 - the rate is checked where the spec is built


# --- discovery of inputs -----------------------------------------------------------------------------------------


def test_flickr_as_downloaded_with_its_annotations(tmp_path):
    """`Data/0..9` with frame and sound together, suffixes in any case, XML in another folder; matched by id."""
    ids = published_list("flickr_test")[:3]
    for digit, clip_id in enumerate(ids):
        folder = tmp_path / "Data" / str(digit)
        make_picture(folder / f"{clip_id}.JPG", disc((64, 64), (0.5, 0.5)))
        make_sound(folder / f"{clip_id}.WAV", tone(4, RATE), RATE)
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{clip_id}.xml").write_text(
            "<a><b><bbox><i/><c>64</c><c>0</c><c>128</c><c>256</c></bbox></b></a>"
        )
    options = replace(ONE, ids="flickr_test", annotations=tmp_path / "Annotations")
    report = run(tmp_path / "Data", tmp_path / "out", options)
    assert (report.stored, len(report.missing), report.overlap) == (3, 246, ())
    header = Store(tmp_path / "out").header
    assert (header.testset, len(header.expected), header.box_rule) == ("flickr_test", 249, "consensus")
    assert Store(tmp_path / "out").read(ids[0]).boxes.tolist() == [[0.25, 0, 0.5, 1]]


def test_both_spellings_are_one_clip_and_the_shipped_boxes_are_used(tmp_path):
    make_picture(tmp_path / "frames" / "zpWuikVorYg_32000_42000.jpg", disc((64, 48), (0.5, 0.5)))
    make_sound(tmp_path / "audio" / "zpWuikVorYg_000032.flac", tone(10, RATE), RATE)
    report = run(tmp_path, tmp_path / "out", replace(ONE, ids="vggss"))
    assert (report.stored, len(report.missing)) == (1, 5157)
    clip = Store(tmp_path / "out").read("zpWuikVorYg_000032")
    assert (clip.label, len(clip.boxes)) == ("elk bugling", 1)


def test_unpaired_and_duplicate_files_are_reported(tmp_path):
    pair(tmp_path / "in", "good")
    make_picture(tmp_path / "in" / "frames" / "mute.jpg", disc((64, 48), (0.5, 0.5)))
    make_sound(tmp_path / "in" / "audio" / "blind.wav", tone(4, RATE), RATE)
    make_sound(tmp_path / "in" / "more" / "good.flac", tone(4, RATE), RATE)
    make_video(tmp_path / "in" / "good.mp4", sound=tone(4, RATE), rate=RATE)
    report = run(tmp_path / "in", tmp_path / "out")
    assert (report.stored, report.failed, report.exit_code) == (1, 4, 1)
    lines = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    reasons = {(entry["id"], entry["reason"].split(";")[0]) for entry in map(json.loads, lines)}
    assert ("mute", "is a frame without a sound") in reasons
    assert ("blind", "is a sound without a frame") in reasons
    assert ("good", "a second file for clip good") in reasons
    assert any(i == "good" and r.startswith("has the same id as") for i, r in reasons)


def test_folders_globs_and_single_files(tmp_path):
    for name in ("x/1.mp4", "x/y/2.MKV", "3.mov", "x/.hidden.mp4", "x/readme.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / name).write_text("hello")
        else:
            make_video(tmp_path / name.replace("MKV", "mkv"), seconds=3, sound=tone(3, RATE), rate=RATE)
    (tmp_path / "x/y/2.mkv").rename(tmp_path / "x/y/2.MKV")
    report = run([tmp_path / "x", tmp_path / "*.mov", tmp_path / "x" / "1.mp4"], tmp_path / "out")
    assert (report.found, report.failed) == (3, 0)
    assert Store(tmp_path / "out").ids == ["1", "2", "3"]
    with pytest.raises(UsageError, match="no such file"):
        run(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match="nothing to prepare"):
        run(tmp_path / "bare", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_store_inside_the_source_is_ignored(tmp_path):
    pairs(tmp_path, 2)
    run(tmp_path, tmp_path / "store")
    assert run(tmp_path, tmp_path / "store").already == 2
    assert run(tmp_path, tmp_path / "second").found == 2


# --- several sources per picture -------------------------------------------------------------------------------


def frame(folder: Path, name: str, *, colour=(200, 30, 30)) -> None:
    make_picture(folder / "frames" / name, disc((80, 60), (0.5, 0.5), colour=colour), quality=92)


def sounds(folder: Path, *names: str) -> None:
    for place, name in enumerate(names):
        make_sound(folder / "audio" / name, tone(4, RATE, hz=300 + 100 * place), RATE)


def origins(out: Path) -> dict[str, str]:
    """Clip id -> name of its sound file."""
    store = Store(out)
    return {clip_id: Path(store.read(clip_id).sound_source).name for clip_id in store.ids}


def test_several_sounds_share_a_picture(tmp_path):
    frame(tmp_path / "in", "duet1.jpg")
    frame(tmp_path / "in", "solo.jpg", colour=(10, 200, 10))
    sounds(tmp_path / "in", "duet1_dog.wav", "duet1_cat.wav", "solo.wav")
    notices = []
    report = run(tmp_path / "in", tmp_path / "out", listener=notices.append)
    assert (report.found, report.stored, report.failed) == (3, 3, 0)
    assert skipped(tmp_path / "out") == {}
    assert origins(tmp_path / "out") == {
        "duet1_cat": "duet1_cat.wav",
        "duet1_dog": "duet1_dog.wav",
        "solo": "solo.wav",
    }
    groups = Store(tmp_path / "out").picture_groups()
    assert groups["duet1_cat"] == groups["duet1_dog"] != groups["solo"]
    assert sum("2 sounds share 1 pictures" in getattr(notice, "text", "") for notice in notices) == 1


@pytest.mark.parametrize(
    "keys",
    [
        ("duet1_dog", "duet1_cat"),
        ("duet1_dog.jpg", "duet1_cat.jpg"),
        ("frames/duet1_dog.jpg", "frames/duet1_cat.jpg"),
        ("audio/duet1_dog.wav", "audio/duet1_cat.wav"),
    ],
)
@pytest.mark.parametrize("whole", [{}, {"duet1.jpg": [[0, 0, 1, 1]]}])
def test_each_source_of_a_picture_has_its_own_boxes(tmp_path, keys, whole):
    frame(tmp_path / "in", "duet1.jpg")
    sounds(tmp_path / "in", "duet1_dog.wav", "duet1_cat.wav")
    boxes = {keys[0]: [[0, 0, 0.5, 1]], keys[1]: [[0.5, 0, 1, 1]], **whole}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    report = run(tmp_path / "in", tmp_path / "out", replace(ONE, annotations=tmp_path / "boxes.json"))
    assert (report.stored, report.failed, report.missing) == (2, 0, ("duet1",) if whole else ())
    store = Store(tmp_path / "out")
    assert store.read("duet1_dog").boxes.tolist() == [[0, 0, 0.5, 1]]
    assert store.read("duet1_cat").boxes.tolist() == [[0.5, 0, 1, 1]]
    assert store.read("duet1_dog").picture == (tmp_path / "in" / "frames" / "duet1.jpg").read_bytes()


def test_boxes_of_a_shared_picture_apply_to_no_clip(tmp_path):
    frame(tmp_path / "in", "duet1.jpg")
    sounds(tmp_path / "in", "duet1_dog.wav")
    (tmp_path / "boxes.json").write_text('{"frames/duet1.jpg": [[0, 0, 1, 1]]}')
    report = run(tmp_path / "in", tmp_path / "out", replace(ONE, annotations=tmp_path / "boxes.json"))
    assert (report.stored, report.missing) == (1, ("duet1",))
    assert Store(tmp_path / "out").read("duet1_dog").boxes.shape == (0, 4)


def test_frame_of_the_same_name_takes_precedence(tmp_path):
    for place, name in enumerate(("a.jpg", "a_1.jpg", "a_1_2.jpg")):
        frame(tmp_path / "in", name, colour=(70 * place, 0, 0))
    sounds(tmp_path / "in", "a_1.wav", "a_1_2.wav", "a_1_3.wav", "a_4.wav")
    run(tmp_path / "in", tmp_path / "out", replace(ONE, kind="test"))
    assert origins(tmp_path / "out") == {"a_1": "a_1.wav", "a_1_2": "a_1_2.wav", "a_4": "a_4.wav"}
    for clip_id, name in (("a_1", "a_1.jpg"), ("a_1_2", "a_1_2.jpg"), ("a_4", "a.jpg")):
        assert Store(tmp_path / "out").read(clip_id).picture == (tmp_path / "in" / "frames" / name).read_bytes()
    assert skipped(tmp_path / "out") == {"a_1_3": "is a sound without a frame"}


def test_frame_with_its_own_sound_is_not_shared(tmp_path):
    frame(tmp_path / "in", "dog.jpg")
    frame(tmp_path / "in", "dog_1.jpg")
    sounds(tmp_path / "in", "dog.wav", "dog_1.wav", "dog_2.wav")
    report = run(tmp_path / "in", tmp_path / "out")
    assert (report.stored, report.exit_code) == (2, 1)
    assert skipped(tmp_path / "out") == {"dog_2": "is a sound without a frame"}


@pytest.mark.parametrize("sound", ["9PmzQI8ZYpg_000147.wav", "9PmzQI8ZYpg_147000_157000.wav", "e_2-tPyNgcw_000090.wav"])
def test_another_moment_of_a_vggsound_video_is_another_picture(tmp_path, sound):
    frame(tmp_path / "in", f"{sound[:11]}.jpg")
    frame(tmp_path / "in", f"{sound[:11]}_000001.jpg")
    frame(tmp_path / "in", "good.jpg")
    sounds(tmp_path / "in", sound, "good.wav")
    run(tmp_path / "in", tmp_path / "out", replace(ONE, allow_test_overlap=True))
    assert Store(tmp_path / "out").ids == ["good"]
    reasons = sorted(reason for reason in skipped(tmp_path / "out").values())
    assert reasons == ["is a frame without a sound", "is a frame without a sound", "is a sound without a frame"]


def test_unpaired_files_beside_videos_share_no_picture(tmp_path):
    for name in ("duet1.mp4", "trio_dog.mp4"):
        (tmp_path / "in").mkdir(exist_ok=True)
        make_video(tmp_path / "in" / name, sound=tone(4, RATE), rate=RATE)
    frame(tmp_path / "in", "duet1.jpg")
    frame(tmp_path / "in", "trio.jpg")
    sounds(tmp_path / "in", "duet1_dog.wav", "trio_dog.wav")
    run(tmp_path / "in", tmp_path / "out")
    assert Store(tmp_path / "out").ids == ["duet1", "trio_dog"]
    assert sorted(skipped(tmp_path / "out")) == ["duet1_dog", "trio"]
    assert origins(tmp_path / "out")["trio_dog"] == "trio_dog.mp4"


def test_broken_sound_of_a_shared_picture_fails_alone(tmp_path):
    frame(tmp_path / "in", "duet1.jpg")
    sounds(tmp_path / "in", "duet1_dog.wav", "duet1_cat.wav")
    broken = tmp_path / "in" / "audio" / "duet1_cat.wav"
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    assert run(tmp_path / "in", tmp_path / "out").failed == 1
    (entry,) = map(json.loads, (tmp_path / "out" / "skipped.jsonl").read_text().splitlines())
    assert (entry["id"], entry["input"]) == ("duet1_cat", str(broken))
    assert Store(tmp_path / "out").ids == ["duet1_dog"]
    broken.write_bytes(whole)
    again = run(tmp_path / "in", tmp_path / "out")
    assert (again.stored, again.already, skipped(tmp_path / "out")) == (1, 1, {})


# --- masks ------------------------------------------------------------------------------------------------------


def masks(folder: Path) -> dict[str, np.ndarray]:
    """Three masks of different kinds and sizes; the last name is in another folder than the others."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    drawn = {name: rng.random(shape) < 0.5 for name, shape in (("a", (6, 8)), ("b", (60, 80)), ("c", (3, 5)))}
    make_picture(folder / "a.png", drawn["a"].astype(np.uint8))
    paletted = Image.fromarray(drawn["b"].astype(np.uint8)).convert("P")
    paletted.putpalette([0, 0, 0, 128, 0, 0])
    paletted.save(folder / "b.png")
    coloured = np.zeros((3, 5, 4), np.uint8)
    coloured[drawn["c"], 1] = 255
    make_picture(folder / "deeper" / "c.PNG", coloured)
    return drawn


@pytest.mark.parametrize("place", ["masks", "in/annotations", "in/masks"])
@pytest.mark.parametrize("workers", [1, 2])
def test_masks_are_stored_with_their_clips_and_are_no_frames(tmp_path, place, workers):
    """Also if the mask folder is inside the sources and sorts before the frames."""
    drawn = masks(tmp_path / place)
    for name in "abd":
        pair(tmp_path / "in", name)
    make_picture(tmp_path / "in" / "frames" / "c.png", disc((80, 60), (0.5, 0.5)))
    make_sound(tmp_path / "in" / "audio" / "c.wav", tone(4, RATE), RATE)
    notices = []
    options = PrepareOptions(workers=workers, annotations=tmp_path / place)
    report = run(tmp_path / "in", tmp_path / "out", options, notices.append)
    assert (report.found, report.stored, report.failed, report.missing) == (4, 4, 0, ())
    store = Store(tmp_path / "out")
    assert (store.header.kind, store.header.box_rule, store.header.expected) == ("test", "mask", ("a", "b", "c"))
    for name, mask in drawn.items():
        clip = store.read(name)
        np.testing.assert_array_equal(decode_mask(clip.mask), mask)
        assert (clip.frame_hw, clip.boxes.shape) == ((60, 80), (0, 4))
    assert (store.read("d").mask, store.read("a").picture[:2]) == (b"", b"\xff\xd8")
    assert any(getattr(n, "text", "").startswith("clips without annotation: 1;") for n in notices)
    again = run(tmp_path / "in", tmp_path / "out", options)
    assert (again.stored, again.already) == (0, 4)


def test_broken_masks_are_named_and_the_others_stay(tmp_path):
    masks(tmp_path / "masks")
    whole = (tmp_path / "masks" / "b.png").read_bytes()
    (tmp_path / "masks" / "a.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "masks" / "b.png").write_bytes(b"")
    (tmp_path / "masks" / "d.png").write_bytes(b"no picture")
    for name in "abcd":
        pair(tmp_path / "in", name)
    report = run(tmp_path / "in", tmp_path / "out", replace(ONE, annotations=tmp_path / "masks"))
    assert (report.stored, report.failed, report.exit_code, report.missing) == (1, 3, 1, ("a", "b", "d"))
    assert Store(tmp_path / "out").ids == ["c"]
    reasons = skipped(tmp_path / "out")
    assert reasons["a"].startswith("mask a.png: mask cannot be decoded (")
    assert reasons["b"].startswith("mask b.png has 0 bytes")
    assert reasons["d"] == "mask d.png: mask cannot be decoded (not a PNG picture)"


def test_other_masks_make_another_store(tmp_path):
    masks(tmp_path / "masks")
    for name in "abc":
        pair(tmp_path / "in", name)
    options = replace(ONE, annotations=tmp_path / "masks")
    run(tmp_path / "in", tmp_path / "out", options)
    before = Store(tmp_path / "out").data_hash()
    make_picture(tmp_path / "masks" / "a.png", np.ones((6, 8), np.uint8))
    with pytest.raises(Refused, match=r"with other settings: annotations \("):
        run(tmp_path / "in", tmp_path / "out", options)
    run(tmp_path / "in", tmp_path / "second", options)
    assert Store(tmp_path / "second").data_hash() != before


def test_each_source_of_a_picture_has_its_own_mask(tmp_path):
    frame(tmp_path / "in", "duet1.jpg")
    sounds(tmp_path / "in", "duet1_dog.wav", "duet1_cat.wav")
    for name, value in (("duet1_dog", 255), ("duet1_cat", 0)):
        make_picture(tmp_path / "masks" / f"{name}.png", np.full((4, 4), value, np.uint8))
    report = run(tmp_path / "in", tmp_path / "out", replace(ONE, annotations=tmp_path / "masks"))
    assert (report.stored, report.failed, report.missing) == (2, 0, ())
    store = Store(tmp_path / "out")
    assert decode_mask(store.read("duet1_dog").mask).all()
    assert not decode_mask(store.read("duet1_cat").mask).any()


# --- packed sets ------------------------------------------------------------------------------------------------


def packed(folder: Path, name: str, rows: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    part = name.split("_", maxsplit=1)[0]
    names = [f"h5py_{name.replace(part, f'{part}_{kind}', 1)}.h5" for kind in ("frames", "audios", "spects")]
    frames = rng.uniform(0, 255, (rows, 256, 256, 3)).astype(np.float32)
    sounds = rng.uniform(-1, 1, (rows, 48_000)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, kind, values in zip(
        names, ("frames", "audios", "spects"), (frames, sounds, frames[:, :3]), strict=True
    ):
        with h5py.File(folder / file_name, "w") as file:
            file[f"{part}_{kind}"] = values
    return frames, sounds


def test_packed_set_with_ids_beside_it(tmp_path):
    _, sounds = packed(tmp_path / "10k_unlabeled", "train_10k", 3)
    (tmp_path / "flickr_train_videos_10k.csv").write_text("a/11.mp4\na/22.mp4\na/33.mp4\n")
    report = run(tmp_path, tmp_path / "out", replace(ONE, rate=16_000))
    assert (report.found, report.stored, report.flags["narrowband"]) == (3, 3, 0)
    store = Store(tmp_path / "out")
    assert store.ids == ["11", "22", "33"]
    np.testing.assert_array_equal(store.read("22").sound, np.rint(sounds[1] * 32_767).astype(np.int16))
    assert decode_picture(store.read("22").picture).shape == (256, 256, 3)
    assert "min-max normalised" in store.header.provenance["sound"]
    assert run(tmp_path, tmp_path / "wide").flags["narrowband"] == 3


def test_packed_files_use_their_section_of_the_list(tmp_path):
    for shard in (1, 2, 10):
        packed(tmp_path, f"train_144k_{shard}", 2, seed=shard)
    (tmp_path / "flickr_train_videos_144k.csv").write_text("".join(f"v/{i}.mp4\n" for i in range(20)))
    run(tmp_path, tmp_path / "out")
    assert Store(tmp_path / "out").ids == sorted(["0", "1", "2", "3", "18", "19"])


def test_packed_set_without_ids_and_without_sounds(tmp_path):
    packed(tmp_path, "train_10k", 2)
    packed(tmp_path / "half", "test", 1)
    (tmp_path / "half" / "h5py_test_audios.h5").unlink()
    report = run(tmp_path, tmp_path / "out")
    assert Store(tmp_path / "out").ids == ["h5py_train_frames_10k-000000", "h5py_train_frames_10k-000001"]
    assert (report.failed, list(skipped(tmp_path / "out").values())) == (
        1,
        ["has no sounds: h5py_test_audios.h5 is not beside it"],
    )


def test_packed_test_set_is_in_the_order_of_the_published_list(tmp_path):
    ids = published_list("vggss_test_4692")
    for kind, shape in (("frames", (4692, 256, 256, 3)), ("audios", (4692, 48_000))):
        with h5py.File(tmp_path / f"h5py_test_{kind}.h5", "w") as file:
            # Chunked and never written, so 4692 rows take no space.
            values = file.create_dataset(f"test_{kind}", shape, "f4", chunks=(1, *shape[1:]))
            values[4000] = 77.0 if kind == "frames" else 0.5
    (tmp_path / "two.txt").write_text(f"{ids[0]}\n{ids[4000]}\n")
    report = run(tmp_path, tmp_path / "out", replace(ONE, ids=str(tmp_path / "two.txt")))
    assert (report.stored, report.outside) == (2, 4690)
    store = Store(tmp_path / "out")
    assert store.header.kind == "test"
    assert (decode_picture(store.read(ids[4000]).picture) == 77).all()
    assert len(store.read(ids[4000]).boxes)
    assert store.read(ids[0]).flags == ("silent", "narrowband")


# --- lists and overlap ------------------------------------------------------------------------------------------


def test_test_clips_are_left_out_of_a_training_store(tmp_path):
    pair(tmp_path / "in", "zpWuikVorYg_32000_42000")
    pair(tmp_path / "in", "mine")
    notices = []
    report = run(tmp_path / "in", tmp_path / "out", listener=notices.append)
    assert (report.stored, report.overlap, report.exit_code) == (1, ("zpWuikVorYg_000032",), 0)
    assert "--allow-test-overlap" in skipped(tmp_path / "out")["zpWuikVorYg_000032"]
    assert any(isinstance(n, Notice) and "among the inputs: 1, left out" in n.text for n in notices)
    kept = run(tmp_path / "in", tmp_path / "out", replace(ONE, allow_test_overlap=True))
    assert (kept.stored, kept.already, kept.overlap_kept) == (1, 1, True)
    assert skipped(tmp_path / "out") == {}


def test_clips_of_the_silent_pairs_are_left_out_too_and_counted_apart(tmp_path):
    (silent,) = sorted(pair_only_ids())[:1]
    for name in (silent, "zpWuikVorYg_000032", "mine"):
        pair(tmp_path / "in", name)
    notices = []
    report = run(tmp_path / "in", tmp_path / "out", listener=notices.append)
    assert (report.stored, report.overlap, report.overlap_paired) == (1, ("zpWuikVorYg_000032",), (silent,))
    assert Store(tmp_path / "out").ids == ["mine"]
    texts = [n.text for n in notices if isinstance(n, Notice)]
    assert any(t.startswith("test clips of VGG-SS or Flickr-SoundNet among the inputs: 1, left out") for t in texts)
    assert any(t.startswith("test clips of SLAVC's extended VGG-SS among the inputs: 1, left out") for t in texts)
    assert skipped(tmp_path / "out")[silent].startswith("is a test clip of SLAVC's extended VGG-SS;")
    dry = run(tmp_path / "in", tmp_path / "dry", replace(ONE, dry_run=True))
    assert (dry.overlap, dry.overlap_paired) == (report.overlap, report.overlap_paired)
    kept = run(tmp_path / "in", tmp_path / "out", replace(ONE, allow_test_overlap=True))
    assert (kept.stored, kept.already, kept.overlap_paired) == (2, 1, (silent,))


def test_the_picture_of_a_test_clip_is_left_out_whatever_sound_shares_it(tmp_path):
    frame(tmp_path / "in", "10000130166.jpg")
    sounds(tmp_path / "in", "10000130166_dog.wav")
    pair(tmp_path / "in", "mine")
    report = run(tmp_path / "in", tmp_path / "out")
    assert (report.stored, report.overlap) == (1, ("10000130166_dog",))
    assert Store(tmp_path / "out").ids == ["mine"]


def test_an_extended_set_is_a_test_store_with_the_clips_of_its_pairs(tmp_path):
    (silent,) = sorted(pair_only_ids())[:1]
    for name in (silent, "zpWuikVorYg_000032", "mine"):
        pair(tmp_path / "in", name)
    notices = []
    report = run(tmp_path / "in", tmp_path / "out", replace(ONE, ids="vggss-ext"), notices.append)
    assert (report.stored, report.failed, report.outside, report.overlap) == (2, 0, 1, ())
    assert len(report.missing) == 5158 + 379 - 2
    store = Store(tmp_path / "out")
    assert (store.header.kind, store.header.testset, len(store.header.expected)) == ("test", "vggss_ext", 5537)
    assert (len(store.read("zpWuikVorYg_000032").boxes), len(store.read(silent).boxes)) == (1, 0)
    texts = [n.text for n in notices if isinstance(n, Notice)]
    assert any(text.endswith("of vggss-ext, which have no boxes: 1") for text in texts)
    assert not any("without annotation" in text for text in texts)


def test_only_the_ids_asked_for(tmp_path):
    pairs(tmp_path / "in", 3)
    (tmp_path / "ids.txt").write_text("clip2\nclip0\nclip7\n")
    report = run(tmp_path / "in", tmp_path / "out", replace(ONE, ids=str(tmp_path / "ids.txt")))
    assert (report.stored, report.outside, report.missing, report.exit_code) == (2, 1, ("clip7",), 0)
    assert Store(tmp_path / "out").ids == ["clip0", "clip2"]


def test_a_store_without_clips_is_no_success(tmp_path):
    pair(tmp_path / "in", "zpWuikVorYg_32000_42000")
    with pytest.raises(NoInputLeft, match="no clip to store: 1 test clips"):
        run(tmp_path / "in", tmp_path / "out")
    (tmp_path / "ids.txt").write_text("clip7\n")
    listed = replace(ONE, ids=str(tmp_path / "ids.txt"))
    with pytest.raises(UsageError, match=r"no clip to store: inputs 1 not in --ids .*ids\.txt"):
        run(tmp_path / "in", tmp_path / "out", listed)
    assert not (tmp_path / "out" / "store.json").exists()
    assert run(tmp_path / "in", tmp_path / "out", replace(listed, dry_run=True)).outside == 1


def test_provenance_of_a_grown_store_names_every_run(tmp_path):
    pair(tmp_path / "in", "zpWuikVorYg_32000_42000")
    pairs(tmp_path / "in", 2)
    for name, clip_id in (("a.txt", "clip0"), ("b.txt", "clip1")):
        (tmp_path / name).write_text(clip_id)
        run(tmp_path / "in", tmp_path / "out", replace(ONE, ids=str(tmp_path / name)))
    before = Store(tmp_path / "out").header.provenance
    assert (before["ids"], before["allow_test_overlap"]) == ("a.txt, b.txt", False)
    run(tmp_path / "in", tmp_path / "out", replace(ONE, allow_test_overlap=True))
    run(tmp_path / "in", tmp_path / "out")
    after = Store(tmp_path / "out").header.provenance
    assert after == {**before, "ids": "a.txt, b.txt, (no list)", "allow_test_overlap": True}


# --- resuming and interruption --------------------------------------------------------------------------------


def test_the_store_does_not_depend_on_the_number_of_workers(tmp_path):
    pairs(tmp_path / "in", 6)
    (tmp_path / "in" / "frames" / "clip3.jpg").write_bytes(b"no picture")
    for workers in (1, 3):
        run(tmp_path / "in", tmp_path / f"out{workers}", PrepareOptions(workers=workers))
    one, three = Store(tmp_path / "out1"), Store(tmp_path / "out3")
    assert one.data_hash() == three.data_hash()
    assert shards(tmp_path / "out1") == shards(tmp_path / "out3")
    assert skipped(tmp_path / "out1") == skipped(tmp_path / "out3")


def test_counts_of_a_killed_run_are_updated(tmp_path):
    pair(tmp_path / "in", "a")
    run(tmp_path / "in", tmp_path / "out", ONE)
    whole = (tmp_path / "out" / "store.json").read_bytes()
    header = json.loads(whole)
    (tmp_path / "out" / "store.json").write_text(json.dumps({**header, "counts": {}}))
    assert run(tmp_path / "in", tmp_path / "out", ONE).already == 1
    assert (tmp_path / "out" / "store.json").read_bytes() == whole


def test_shards_without_a_header_are_refused(tmp_path):
    """Their settings are unknown, and making the clips again would duplicate them."""
    pair(tmp_path / "in", "a")
    run(tmp_path / "in", tmp_path / "out", ONE)
    (tmp_path / "out" / "store.json").unlink()
    with pytest.raises(Refused, match=r"holds shards but no store\.json"):
        run(tmp_path / "in", tmp_path / "out", ONE)


def test_second_run_adds_only_what_is_missing(tmp_path):
    source = pairs(tmp_path / "in", 3)
    sound = (source / "audio" / "clip1.wav").read_bytes()
    (source / "audio" / "clip1.wav").write_bytes(b"")
    first = run(source, tmp_path / "out")
    assert (first.stored, first.failed) == (2, 1)
    assert "empty" in skipped(tmp_path / "out")["clip1"]
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert run(source, tmp_path / "out").stored == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (source / "audio" / "clip1.wav").write_bytes(sound)
    again = run(source, tmp_path / "out")
    assert (again.stored, again.already, again.failed) == (1, 2, 0)
    assert shards(tmp_path / "out")["shard-00000.h5"] == before["shard-00000.h5"]
    assert skipped(tmp_path / "out") == {}
    whole = run(source, tmp_path / "whole")
    assert whole.stored == 3
    assert Store(tmp_path / "whole").data_hash() == Store(tmp_path / "out").data_hash()


def test_failures_with_unusual_names_are_recorded(tmp_path):
    for name in ("a\u2028b", "a\x85b", "caf\udce9"):
        (tmp_path / f"{name}.mp4").write_bytes(b"")
    pair(tmp_path, "good")
    for _ in range(2):
        run(tmp_path, tmp_path / "out")
    assert sorted(
        entry["input"].rpartition("/")[2] for entry in read_json_lines(tmp_path / "out" / "skipped.jsonl")
    ) == [
        "a\x85b.mp4",
        "a\u2028b.mp4",
        "caf\udce9.mp4",
    ]


def test_failures_of_other_inputs_are_kept(tmp_path):
    pair(tmp_path / "a", "good")
    (tmp_path / "a" / "bad.mp4").write_bytes(b"")
    run(tmp_path / "a", tmp_path / "out")
    run(pairs(tmp_path / "b", 1), tmp_path / "out")
    assert list(skipped(tmp_path / "out")) == ["bad"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_interrupted_run_keeps_finished_clips(tmp_path, signal, workers):
    source = pairs(tmp_path / "in", 5)

    def stop(event):
        if isinstance(event, Progress) and event.done == 3:
            raise signal

    with pytest.raises(signal):
        run(source, tmp_path / "out", PrepareOptions(workers=workers), stop)
    assert Store(tmp_path / "out").ids == ["clip0", "clip1", "clip2"]
    assert (tmp_path / "out" / "skipped.jsonl").is_file()
    before = shards(tmp_path / "out")
    assert run(source, tmp_path / "out").stored == 2
    assert shards(tmp_path / "out").items() >= before.items()


class _Bomb(str):
    """Kills the process that unpickles it."""

    __slots__ = ()

    def __reduce__(self):
        return os._exit, (3,)


def test_killed_worker_loses_one_clip(tmp_path):
    pairs(tmp_path, 5)
    jobs = [
        Job(
            source=Source(
                id=f"clip{i}",
                kind="pair",
                path=tmp_path / f"frames/clip{i}.jpg",
                sound=tmp_path / f"audio/clip{i}.wav",
            ),
            spec=PrepareOptions().spec,
            annotation=Annotation(boxes=np.zeros((0, 4)), label=_Bomb() if i == 2 else ""),
        )
        for i in range(5)
    ]
    made = list(make_clips(jobs, 2))
    assert [isinstance(result, Skip) for result in made] == [False, False, True, False, False]
    assert made[2].reason == "cannot be decoded: the process that decoded it died"
    ids = [result.id if isinstance(result, Skip) else result.clip.id for result in made]
    assert ids == [f"clip{i}" for i in range(5)]


def test_full_disk_leaves_only_complete_shards(tmp_path, monkeypatch):
    source, images = pairs(tmp_path / "in", 2), []
    write = Path.write_bytes

    def full(path, data):
        if ".h5" in path.name:
            images.append(data)
            write(path, bytes(data)[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            run(source, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "skipped.jsonl", "store.json"]
    with pytest.raises(ValueError, match="released"):
        images[0].tobytes()
    assert run(source, tmp_path / "out").stored == 2


def test_large_pictures_make_smaller_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("avloc.store.clips._SHARD_BYTES", 200_000)  # two clips, each 132 kB of sound and a picture
    run(pairs(tmp_path / "in", 4), tmp_path / "out")
    assert len(shards(tmp_path / "out")) == 2
    assert len(Store(tmp_path / "out")) == 4


def test_locked_store_is_refused(tmp_path):
    pairs(tmp_path / "in", 1)
    with folder_lock(tmp_path / "out"), pytest.raises(Refused, match="another avloc process"):
        run(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rate": 44_100}, "rate"),
        ({"seconds": 1.0}, "seconds"),
        ({"kind": "test"}, "kind"),
        ({"frame": "2s"}, "frame"),
        ({"kind": "train", "annotations": "boxes.json"}, "annotations"),
    ],
)
def test_store_with_other_settings_is_refused(tmp_path, change, named):
    source = pairs(tmp_path / "in", 1)
    run(source, tmp_path / "out")
    before = shards(tmp_path / "out")
    if "annotations" in change:
        (tmp_path / "boxes.json").write_text('{"clip0": [[0, 0, 1, 1]]}')
        change = {**change, "annotations": tmp_path / "boxes.json"}
    with pytest.raises(Refused, match=rf"with other settings: .*{named} \("):
        run(source, tmp_path / "out", replace(ONE, **change))
    assert shards(tmp_path / "out") == before


def test_when_every_input_fails(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    make_video(tmp_path / "b.mp4")
    with pytest.raises(NoInputLeft, match=r"every input failed \(2\)"):
        run([tmp_path / "a.mp4", tmp_path / "b.mp4"], tmp_path / "out")
    assert skipped(tmp_path / "out") == {"a": "is empty (0 bytes)", "b": "has no sound"}
    assert not (tmp_path / "out" / "store.json").exists()


def test_progress_runs_to_its_total(tmp_path):
    events = []
    run(pairs(tmp_path / "in", 3), tmp_path / "out", listener=events.append)
    assert [(e.done, e.total) for e in events if isinstance(e, Progress)] == [(1, 3), (2, 3), (3, 3)]


def test_a_dry_run_writes_nothing_and_estimates_well(tmp_path):
    source = pairs(tmp_path / "in", 4)
    (source / "frames" / "clip9.jpg").write_bytes(b"")
    pair(source, "zpWuikVorYg_000032")
    make_sound(source / "audio" / "clip9.wav", tone(4, RATE), RATE)
    dry = run(source, tmp_path / "out", replace(ONE, dry_run=True))
    assert not (tmp_path / "out").exists()
    real = run(source, tmp_path / "out")
    assert (dry.found, dry.stored, dry.failed, dry.overlap) == (real.found, real.stored, real.failed, real.overlap)
    assert dry.bytes == pytest.approx(real.bytes, rel=0.2)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips lie beside the checkout and are not there")
def test_real_clips(tmp_path):
    report = run(CLIPS, tmp_path / "out", PrepareOptions(workers=2, annotations=CLIPS / "boxes.json"))
    assert (report.found, report.stored, report.failed, report.exit_code) == (15, 14, 1, 1)
    assert skipped(tmp_path / "out") == {"tv_basketball": "has no sound"}
    assert len(Store(tmp_path / "out").read("difffoley_car").boxes) == 1
