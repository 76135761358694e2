"""The recipe's clips: split before anything else, labelled by what is in them, the same bytes for the same seed."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avloc.annotations.boxes import read_annotations
from avloc.annotations.labels import parse_label
from avloc.config import TrainConfig, from_dict, read_toml
from avloc.engine import ClipCells, Fusion
from avloc.engine.fusion import AdaptiveWeights
from avloc.localize.verdict import VerdictRule
from avloc.media.pictures import decode_picture
from tests.folder_contents import folder_contents
from tests.recipe import compose as recipe
from tests.recipe.compose import ALIKE, compose
from tests.recipe.measure import ClipMaps, calibrated, class_means, fit_calibration
from tests.recipe.pictures import SIDE, around, on_another, pasted, plain, side_by_side
from tests.recipe.sounds import RATE, SAMPLES, in_a_room, only_noise
from tests.recipe.split import Classes, by_class, class_of, recording_of
from tests.recipe.train import RECIPE, composed
from tests.recipe_makers import DATA

KINDS = ("cat", "dog", "lion", "piano", "sheep", "violin")
ONLY = ("cello", "siren", "frog")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Small pictures and sounds of six classes, and sounds of three more; dogs and cats have boxes."""
    folder, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    boxes = {}
    for number, kind in enumerate(KINDS):
        for index in range(24):
            source = ("cocotrain", "ins", "hc", "mk")[index % 4] if kind != "lion" else "hc"
            path = f"images/{kind}/{source}_{index:03d}.jpg"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            ground = np.full((60 + index, 80, 3), 250, np.uint8)
            ground[20:50, 20:60] = rng.integers(0, 120, (30, 40, 3)) // (number + 1)
            Image.fromarray(ground).save(folder / path)
            if kind in ("cat", "dog") and source in ("cocotrain", "ins", "hc"):
                boxes[path] = [[0.25, 20 / (60 + index), 0.75, 50 / (60 + index)]]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    for place, kinds in (("sounds", KINDS), ("sounds_only", ONLY)):
        for kind in kinds:
            (folder / place / kind).mkdir(parents=True)
            for index in range(24):
                name = f"us8k_{98 + index // 2}-{index % 2}.wav" if kind == "dog" else f"{kind}_{index}.wav"
                samples = 0.3 * rng.standard_normal(int(RATE * (1 + index / 6)))
                soundfile.write(folder / place / kind / name, samples, RATE)
    return folder


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as change:
        change.setattr(recipe, "SCENES", 24)
        change.setattr(recipe, "WRONG_PICTURES", 6)
        compose(data, out, clips=60, seed=3)
    return out


def entries(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "boxes.json").read_text())


def test_no_file_and_no_recording_is_in_two_parts(data):
    classes = Classes(data)
    pictures = [path for part in classes.pictures.values() for path in part]
    assert len(pictures) == len(set(pictures)) == 24 * len(KINDS)
    assert not any("/hc_" in path for path in classes.pictures["test"])
    recordings = [{(class_of(path), recording_of(path)) for path in classes.sounds[part]} for part in ("train", "test")]
    assert recordings[0].isdisjoint(recordings[1])
    assert recording_of("sounds/dog/us8k_17-2.wav") == "us8k_17"
    few = [path for path in pictures if classes.is_well_boxed(path)]
    assert {path.split("/")[2].split("_")[0] for path in few} == {"cocotrain"}
    assert set(few) <= set(classes.pictures["test"])  # six of a class are few


@pytest.mark.parametrize("folder", ["train", "test/scenes", "test/boxed", "wrong"])
def test_every_clip_has_picture_sound_and_label(made, folder):
    folder = made / folder
    annotations = read_annotations(folder / "boxes.json")
    frames = {path.stem for path in (folder / "frames").iterdir()}
    assert frames == {path.stem for path in (folder / "audio").iterdir()} == set(annotations.ids)
    for entry in entries(folder).values():
        label = parse_label(entry["label"])
        assert label.sounding
        similar = {other for others in ALIKE.values() for other in others}
        assert label.visible <= {*KINDS, *ONLY, *similar, "street_music"}
        assert len(entry["boxes"]) == 0 or label.sounding in label.visible


def test_training_clips_are_square_and_some_sounds_are_wrong(made):
    clips = entries(made / "train")
    assert len(clips) == 60
    assert {decode_picture((made / "train" / name).read_bytes()).shape for name in clips} == {(SIDE, SIDE, 3)}
    assert {soundfile.info(path).frames for path in (made / "train" / "audio").iterdir()} == {SAMPLES}
    labels = [parse_label(entry["label"]) for entry in clips.values()]
    wrong = [label for label in labels if label.sounding not in label.visible]
    assert 2 <= len(wrong) <= 20
    assert all(("car" not in label.visible or label.sounding != "siren") for label in wrong)
    assert not any("violin" in label.visible and label.sounding == "cello" for label in wrong)


def area(boxes) -> float:
    return sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)


def test_scenes_are_of_two_objects_one_of_which_sounds(made):
    clips = entries(made / "test" / "scenes")
    assert len(clips) == 24
    shares = {"side": [], "on": [], "crowded": []}
    for name, entry in clips.items():
        shares[Path(name).stem.rpartition("-")[2]].append(area(entry["boxes"]))
    assert [len(found) for found in shares.values()] == [8, 8, 8]
    assert all(0.39 < share < 0.61 for share in shares["side"])
    assert min(shares["on"]) < 0.26  # what is pasted sounds
    assert max(shares["on"]) > 0.74  # what it is pasted on
    assert max(shares["crowded"]) < 0.3
    audio_classes = {parse_label(entry["label"]).sounding for entry in clips.values()}
    assert audio_classes == {*KINDS} - {"lion"}  # lions have no test


def test_boxed_pictures_are_as_they_were_with_three_sounds(data, made):
    clips = entries(made / "test" / "boxed")
    assert len(clips) == 3 * 12
    sources = {path.read_bytes() for path in data.glob("images/*/cocotrain_*")}
    for _, names in groupby(clips, key=lambda name: name[:-6]):
        frames = [made / "test" / "boxed" / name for name in names]
        assert len({frame.read_bytes() for frame in frames} & sources) == 1
        sounds = {(made / "test/boxed/audio" / f"{frame.stem}.wav").read_bytes() for frame in frames}
        assert len(sounds) == 3


def test_wrong_pairs_share_their_picture(made):
    clips = entries(made / "wrong")
    for _, group in groupby(clips.items(), key=lambda item: item[0].rpartition("-")[0]):
        right, wrong, silent = (parse_label(entry["label"]) for _, entry in group)
        assert right.sounding in right.visible
        assert wrong.sounding not in wrong.visible
        assert silent.sounding == "silence"
        assert right.visible == wrong.visible == silent.visible
    assert not soundfile.read(next((made / "wrong" / "audio").glob("*-silent.wav")))[0].any()


def test_the_same_seed_gives_the_same_bytes(data, made, tmp_path):
    recipe.compose_training(data, tmp_path / "again", 60, 3)
    assert folder_contents(tmp_path / "again") == folder_contents(made / "train")
    recipe.compose_training(data, tmp_path / "other", 12, 4)
    assert folder_contents(tmp_path / "other") != {
        k: v for k, v in folder_contents(made / "train").items() if k in folder_contents(tmp_path / "other")
    }


def test_what_is_composed_is_not_composed_again(data, made):
    before = folder_contents(made)
    composed(data, made, clips=60, seed=3)
    assert folder_contents(made) == before
    with pytest.raises(ValueError, match="60 clips of seed 3"):
        composed(data, made, clips=61, seed=3)


def dark(picture, box) -> float:
    """Share of dark pixels in a box: the made-up objects are dark on white."""
    x0, y0, x1, y1 = (round(SIDE * value) for value in box)
    return float((np.asarray(picture.convert("L"))[y0:y1, x0:x1] < 140).mean())


def test_boxes_move_with_their_pictures(data):
    album = recipe.Part.of(Classes(data), "train").album
    boxed = next(path for path in album.pool["dog"] if path in album.classes.boxes)
    album.pool = {"dog": [boxed], "cat": album.pool["cat"][:1]}
    assert dark(plain(album, boxed).picture, plain(album, boxed).boxes["dog"][0]) > 0.9
    for seed in range(6):
        scene = side_by_side(album, ["dog", "cat"], np.random.default_rng(seed))
        (box,) = scene.boxes["dog"]
        assert dark(scene.picture, box) > 0.8
        (place,) = scene.places["dog"]
        assert place[0] <= box[0] < box[2] <= place[2]
        assert place[1] <= box[1] < box[3] <= place[3]


def test_what_is_pasted_lies_where_its_box_says(data):
    album = recipe.Part.of(Classes(data), "train").album
    boxed = next(path for path in album.pool["dog"] if path in album.classes.boxes)
    album.pool, album.grounds = {"dog": [boxed]}, [path for path in album.grounds if class_of(path) == "violin"]
    for seed in range(6):
        scene = pasted(album, ["dog"], np.random.default_rng(seed))
        assert scene.visible == ["dog", "violin"]
        assert dark(scene.picture, scene.boxes["dog"][0]) > 0.8


def test_an_object_on_another_leaves_that_the_rest_of_the_picture(data):
    album = recipe.Part.of(Classes(data), "train").album
    boxed = next(path for path in album.pool["dog"] if path in album.classes.boxes)
    album.pool = {"dog": [boxed], "violin": album.pool["violin"][:1], "cat": [boxed.replace("dog", "cat")]}
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scene = on_another(album, ["dog", "violin"], rng)
        (hole,) = scene.places["dog"]
        assert dark(scene.picture, hole) > 0.8
        wide, high = (max(0.0, min(hole[k + 2], 0.65) - max(hole[k], 0.35)) for k in (0, 1))
        assert wide * high < 0.11 * area([hole])  # it does not hide the middle
        assert scene.places["violin"] == scene.boxes["violin"] == around(hole)
        assert area(around(hole)) == pytest.approx(1 - area([hole]))
        covered = on_another(album, ["dog", "cat"], rng)
        assert all(dark(covered.picture, box) > 0.7 for box in covered.boxes["cat"] if area([box]) > 0.02)


@given(st.tuples(*[st.integers(0, 8)] * 4))
def test_what_is_around_a_box_and_the_box_are_the_picture(corners):
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    hole = (x0 / 8, y0 / 8, x1 / 8, y1 / 8)
    cells = np.zeros((8, 8), int)
    for left, top, right, bottom in (*around(hole), hole):
        cells[round(top * 8) : round(bottom * 8), round(left * 8) : round(right * 8)] += 1
    assert (cells == 1).all()


def test_sounds_stay_in_range_and_lengthless_ones_are_repeated(data):
    sounds = recipe.Part.of(Classes(data), "train").sounds
    for seed in range(12):
        rng = np.random.default_rng(seed)
        kind = sounds.any_kind(rng)
        for sound in (in_a_room(sounds.any_of(kind, rng), sounds, rng), only_noise(rng)):
            assert (sound.dtype, sound.shape) == (np.float32, (SAMPLES,))
            assert 0 < np.abs(sound).max() <= 1


def test_what_is_calibrated_follows_the_peaks():
    card = calibrated([0.5, 0.6, 0.9], [0.1, *np.linspace(0.2, 0.3, 9), 0.4])
    assert (card["fusion"]["unsure"], card["fusion"]["sure"]) == (0.25, 0.6)
    assert card["verdict"].items() >= {"matches": 0.6, "no_match": 0.3, "least_effect": 0.04}.items()
    AdaptiveWeights(**card["fusion"])
    VerdictRule(**card["verdict"])


def test_the_calibration_is_that_of_the_peaks():
    rng = np.random.default_rng(0)
    peaks = rng.uniform(-0.5, 1, 40_000)
    is_right = rng.random(len(peaks)) < 1 / (1 + np.exp(-(8 * peaks - 2)))
    right, wrong = peaks[is_right], peaks[~is_right]
    slope, offset = fit_calibration([*right], [*wrong])
    prior = np.log(len(wrong) / len(right))  # both have the same total weight
    assert (slope, offset) == (pytest.approx(8, rel=0.05), pytest.approx(-2 + prior, abs=0.1))
    assert fit_calibration([*right, *right], [*wrong]) == pytest.approx((slope, offset), abs=0.02)


@given(st.lists(st.floats(0.51, 1), min_size=1, max_size=9), st.lists(st.floats(-1, 0.49), min_size=1, max_size=9))
def test_separable_peaks_have_a_finite_calibration(right, wrong):
    slope, offset = fit_calibration(right, wrong)
    rule = VerdictRule(slope=slope, offset=offset)
    assert min(map(rule.match, right)) > max(map(rule.match, wrong))


def test_shares_are_means_over_classes():
    left = np.tile(np.linspace(1, 0, 4, dtype=np.float32), (4, 1))
    maps = dict.fromkeys(("av", "own", "shipped"), left)
    cells = ClipCells(id="one", boxes=np.array([[0, 0, 0.5, 1]]), maps=maps)
    clips = [ClipMaps(f"{row}", "dog | dog", cells) for row in range(3)]
    clips.append(ClipMaps("3", "cat | cat", replace(cells, maps=dict.fromkeys(maps, left[:, ::-1].copy()))))
    assert class_means(clips, Fusion(own=AdaptiveWeights()))["av"] == [0.5, 0.5, 0.5]


def test_the_recipe_is_a_configuration():
    config = from_dict(TrainConfig, read_toml(RECIPE))
    assert (config.loss.same_class, config.freeze, config.init) == ("masked", True, "concepts")


@pytest.mark.skipif(not DATA.is_dir(), reason="no labelled pictures and sounds beside the repository")
def test_the_real_files_are_split_for_every_class():
    classes = Classes(DATA)
    kinds = {part: set(by_class(paths)) for part, paths in classes.pictures.items()}
    assert len(kinds["train"]) == 32
    assert kinds["train"] - kinds["test"] == {"lion"}  # all its pictures look machine-made
    assert kinds["test"] <= set(by_class(classes.sounds["test"])) == set(by_class(classes.sounds["train"]))
    assert sum(classes.is_well_boxed(path) for path in classes.pictures["test"]) == 202
