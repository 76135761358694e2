"""Training clips: labelled by what is in them, with boxes where it is known what sounds; one seed, the same bytes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import soundfile

from avloc.annotations.boxes import read_annotations
from avloc.annotations.labels import parse_label
from avloc.errors import Refused
from avloc.media.pictures import decode_picture
from tests.folder_contents import folder_contents
from tests.recipe import compose as module
from tests.recipe.boxes import head_and_shoulders
from tests.recipe.clips import SHARES, Part
from tests.recipe.compose import compose_training, plain_order, sources_of
from tests.recipe.material_makers import faces_in
from tests.recipe.pairs import read_pairs
from tests.recipe.pictures import SIDE, Scene, plain
from tests.recipe.sounds import SAMPLES
from tests.recipe.split import Classes, class_of
from tests.recipe.train import composed

SETS = ["train", "test/scenes", "test/scenes-everyday", "test/mixed", "test/boxed", "wrong"]


def entries(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "boxes.json").read_text())


@pytest.fixture(scope="module")
def part(data) -> Part:
    return Part.train(Classes(data), faces_in(data))


@pytest.mark.parametrize("folder", SETS)
def test_every_clip_has_picture_sound_and_label(made, folder):
    folder = made / folder
    annotations = read_annotations(folder / "boxes.json")
    frames = {path.stem for path in (folder / "frames").iterdir()}
    assert frames == {path.stem for path in (folder / "audio").iterdir()} == set(annotations.ids)
    pairs = read_pairs()
    known = {name for names in pairs.fits.values() for name in names} | pairs.pictureless
    for entry in entries(folder).values():
        label = parse_label(entry["label"])
        assert label.sounding in known | {"silence", "noise"}
        assert label.visible <= known
        assert len(entry["boxes"]) == 0 or label.sounding in label.visible


def test_training_clips_are_square_and_some_sounds_are_wrong(made):
    clips = entries(made / "train")
    assert len(clips) == 60
    assert {decode_picture((made / "train" / name).read_bytes()).shape for name in clips} == {(SIDE, SIDE, 3)}
    assert {soundfile.info(path).frames for path in (made / "train" / "audio").iterdir()} == {SAMPLES}
    labels = [parse_label(entry["label"]) for entry in clips.values()]
    wrong = [label for label in labels if label.sounding not in label.visible]
    assert 2 <= len(wrong) <= 20
    people = {*read_pairs().fits["face"]}
    assert not any("speech" in label.visible and label.sounding in people for label in wrong)
    assert not any("violin" in label.visible and label.sounding == "cello" for label in wrong)


def test_classes_with_few_pictures_or_no_sounds_are_not_composed(part):
    assert part.kinds == sorted(
        ["cat", "dog", "lion", "piano", "sheep", "violin", "person", "face", "crowd", "bus", "keyboard"]
    )
    assert {class_of(path) for path in part.album.grounds} >= {"baseball", "goose"}  # but things are pasted on them


def test_kinds_of_things_have_their_shares(part):
    weights = dict(zip(part.kinds, part.weights, strict=True))
    shares = {name: sum(weights.get(kind, 0) for kind in read_pairs().kinds[name]) for name in SHARES}
    assert shares == pytest.approx(SHARES)
    assert sum(weights.values()) == pytest.approx(1)
    pool = part.album.pool
    assert weights["person"] / weights["face"] == pytest.approx(len(pool["person"]) / len(pool["face"]))
    drawn = Counter(class_of(path) for path in plain_order(part, 4000, 0))
    assert {kind: count / 4000 for kind, count in drawn.items()} == pytest.approx(weights, abs=0.025)


def test_pictures_of_a_class_are_taken_in_turn(part):
    order = plain_order(part, 3000, 1)
    assert order[:100] == plain_order(part, 100, 1)
    for kind in part.kinds:
        counts = Counter(path for path in order if class_of(path) == kind)
        assert set(counts) == set(part.album.pool[kind])
        assert max(counts.values()) - min(counts.values()) <= 1


def test_open_material_alone_is_trained_on(data):
    part = Part.train(Classes(data, open_only=True), {})
    assert part.kinds == ["keyboard"]
    assert part.weights.tolist() == [1]
    assert {path.split("/")[-1].split("_")[0] for path in part.album.pool["keyboard"]} == {"cal101"}
    assert {path.split("/")[-1].split("_")[0] for path in part.sounds.pool["typing"]} == {"woven"}


def test_a_plain_picture_of_a_person_has_its_head(part):
    path = next(path for path in part.album.pool["person"] if part.album.boxes.faces[path])
    scene = plain(part.album, path)
    assert sources_of(part, scene, "speech") == [head_and_shoulders(part.album.boxes.faces[path][0])]


def test_boxes_are_of_everything_that_makes_the_sound_or_none(part):
    one, other = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    scene = Scene(plain(part.album, part.album.pool["dog"][0]).picture)
    scene.boxes = {"dog": [one], "person": [other]}
    scene.shown = {"dog": ["dog"], "person": ["speech"]}
    assert sources_of(part, scene, "speech") == [other]
    scene.boxes, scene.shown = {"face": [one], "person": [other]}, {"face": ["speech"], "person": ["speech"]}
    assert sources_of(part, scene, "speech") == [one, other]
    scene.shown = {"person": ["speech"], "bus": ["engine", "speech"]}  # somebody may be in the bus
    assert sources_of(part, scene, "speech") == []
    scene.boxes = {"dog": [one], "bus": [other]}
    scene.shown = {"dog": ["dog", "speech"], "bus": ["engine"]}
    assert sources_of(part, scene, "speech") == []  # of nobody who is boxed


def test_the_same_seed_gives_the_same_bytes(data, made, tmp_path):
    classes, faces = Classes(data), faces_in(data)
    compose_training(classes, faces, tmp_path / "again", 60, 3)
    assert folder_contents(tmp_path / "again") == folder_contents(made / "train")
    compose_training(classes, faces, tmp_path / "other", 12, 4)
    assert folder_contents(tmp_path / "other") != {
        k: v for k, v in folder_contents(made / "train").items() if k in folder_contents(tmp_path / "other")
    }


def test_what_is_composed_is_not_composed_again(data, made, tmp_path, monkeypatch):
    before = folder_contents(made)
    composed(data, tmp_path, made, clips=60, seed=3)
    assert folder_contents(made) == before
    with pytest.raises(Refused, match="with clips 60, not 61"):
        composed(data, tmp_path, made, clips=61, seed=3)
    with pytest.raises(Refused) as caught:
        composed(data, tmp_path, made, clips=60, seed=3, open_only=True)
    assert caught.value.hint == "take another --out"
    with monkeypatch.context() as patch, pytest.raises(Refused, match="with tables"):
        patch.setattr(module, "tables_hash", lambda: "other")
        composed(data, tmp_path, made, clips=60, seed=3)


def test_the_record_names_the_files_of_each_part(data, made):
    record = json.loads((made / "split.json").read_text())
    assert record["pictures"] == Classes(data).pictures
    assert record["sounds"] == Classes(data).sounds
    assert (record["seed"], record["clips"], record["open_only"]) == (3, 60, False)
