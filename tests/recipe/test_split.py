"""Parts are decided by file, recording and speaker before anything else, and the licences by source."""

from __future__ import annotations

import csv
import hashlib
import re

import pytest

from tests.recipe.material_makers import KINDS, NUMBER
from tests.recipe.split import (
    CLASSES,
    TRAINING_ONLY,
    Classes,
    by_class,
    class_of,
    credited,
    read_sources,
    recording_of,
    source,
    source_of,
)
from tests.recipe_makers import DATA

MATERIAL = DATA.parent
needs_material = pytest.mark.skipif(
    not MATERIAL.is_dir(), reason="no labelled pictures and sounds beside the repository"
)


def test_no_file_and_no_recording_is_in_two_parts(data):
    classes = Classes(data)
    pictures = [path for part in classes.pictures.values() for path in part]
    assert len(pictures) == len(set(pictures)) == len(list(data.glob("*/images/*/*")))
    assert not any("/hc_" in path for path in classes.pictures["test"])
    recordings = [{recording_of(path) for path in classes.sounds[part]} for part in ("train", "test")]
    assert recordings[0].isdisjoint(recordings[1])
    assert all(len(found) > 20 for found in recordings)
    few = [path for path in pictures if classes.is_well_boxed(path) and path.startswith(CLASSES)]
    assert {source_of(path) for path in few} == {"cocotrain"}
    assert set(few) <= set(classes.pictures["test"])  # six of a class are few


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("classes/sounds/dog/us8k_17-2.wav", "us8k_17"),
        ("classes/sounds/cat/yn_17-2.wav", "yn_17-2.wav"),
        ("everyday/sounds/speech/libri_911-128684-0000.ogg", "libri_911"),
        ("everyday/sounds/speech/gsc_fc28c8d8-marvin.ogg", "gsc_fc28c8d8"),
        ("everyday/sounds/speech/emodb_16a05Ea.ogg", "emodb_16"),
        ("everyday/sounds/speech/urdu_Happy-SF10-F12-H012.ogg", "urdu_SF10"),
        ("everyday/sounds/speech/arab_00000030-start.ogg", "arab_00000030"),
        ("everyday/sounds/water/kitchen20_0-152977-A-7.ogg", "kitchen20_152977"),
        ("everyday/sounds/water/wakee_ocean+2.ogg", "wakee_ocean"),
        ("everyday/sounds/water/wakee_ocean.ogg", "wakee_ocean"),
        ("everyday/sounds/horse/animalia_animalia-horse-idle.1.ogg", "animalia_animalia-horse-idle"),
        ("everyday/sounds/train/opensfx_osfx-04.ogg", "opensfx_osfx-04"),
        ("everyday/sounds/violin/fsdk18_fec00143.ogg", "fsdk18_fec00143"),
    ],
)
def test_recordings_and_speakers_are_read_from_names(name, recording):
    assert recording_of(name) == recording


def test_what_cannot_be_told_apart_is_for_training(data):
    classes = Classes(data)
    tested = [*classes.pictures["test"], *classes.sounds["test"]]
    assert not [path for path in tested if TRAINING_ONLY.match(path.split("/")[-1])]
    trained = {source_of(path) for path in [*classes.pictures["train"], *classes.sounds["train"]]}
    assert trained >= {"cal101", "pacs", "snore", "shoyo", "picoint"}
    for path in classes.sounds["test"]:
        assert class_of(path) != "goose"  # of one recording


def test_the_same_picture_in_two_classes_is_not_in_two_parts(data, tmp_path):
    (tmp_path / "classes").symlink_to(data / "classes")
    folder = tmp_path / "copies"
    for kind in ("cat", "piano"):
        (folder / "images" / kind).mkdir(parents=True)
    for index in range(40):
        for kind in ("cat", "piano"):
            (folder / f"images/{kind}/cocotrain_{index:06d}.jpg").touch()
    (folder / "boxes.json").write_text("{}")
    classes = Classes(tmp_path, ("copies",))
    train, test = ({path.split("/")[-1] for path in classes.pictures[part]} for part in ("train", "test"))
    assert train.isdisjoint(test)
    assert min(len(train), len(test)) > 5


def test_the_split_of_classes_is_that_of_earlier_versions(data):
    classes = Classes(data, (CLASSES,))
    listed = [
        f"{part} {path.partition('/')[2]}"
        for parts in (classes.pictures, classes.sounds)
        for part in sorted(parts)
        for path in sorted(parts[part])
    ]
    assert len(listed) == NUMBER * (2 * len(KINDS) + 3)
    digest = hashlib.sha256("\n".join(listed).encode()).hexdigest()
    assert digest == "a8a93d0ea67df432587d5c50e496d322ea9cb712315edfb3476703c80e22bc2a"
    both = Classes(data)
    assert set(classes.pictures["test"]) <= set(both.pictures["test"])
    assert set(classes.sounds["test"]) <= set(both.sounds["test"])


def test_open_material_is_cleared_and_split_alike(data):
    every, cleared = Classes(data), Classes(data, open_only=True)
    for whole, part in ((every.pictures, cleared.pictures), (every.sounds, cleared.sounds)):
        for name, paths in part.items():
            assert paths == [path for path in whole[name] if source(path).any_use]
    sources = {source_of(path) for paths in [*cleared.pictures.values(), *cleared.sounds.values()] for path in paths}
    assert {"cal101", "libri"} <= sources
    assert sources.isdisjoint({"voc07", "hc", "us8k", "shtech", "shoyo"})
    with pytest.raises(KeyError):
        source("everyday/images/dog/new_1.jpg")


def test_credited_sources_count_the_files_of_each_source_to_train_on():
    pictures = {"train": ["everyday/images/dog/cal101_1.jpg", "classes/images/dog/pet_1.jpg"], "test": []}
    sounds = {"train": ["classes/sounds/dog/fsdd_1.ogg", "classes/sounds/dog/fsdd_2.ogg"], "test": ["new_1.ogg"]}
    found = credited([pictures, sounds])
    assert {folder: {key: row["files"] for key, row in rows.items()} for folder, rows in found.items()} == {
        "classes": {"pet": 1, "fsdd": 2},
        "everyday": {"cal101": 1},
    }
    assert found["classes"]["fsdd"]["licence"] == "CC BY-SA 4.0"


def test_what_may_be_used_for_any_purpose_has_a_licence_that_says_so():
    allowed = re.compile(r"CC0|CC BY|MIT|Apache-2\.0|public domain|ODbL")
    cleared = [one for rows in read_sources().values() for one in rows.values() if one.any_use]
    assert len(cleared) > 15
    for one in cleared:
        assert allowed.search(one.licence), one
        assert not re.search(r"BY-N|none|mixed|not said|research", one.licence), one


@needs_material
def test_every_source_has_a_licence_and_uncleared_words_are_not_cleared():
    table = read_sources()
    with (MATERIAL / "everyday" / "sources.csv").open(encoding="utf-8") as file:
        rows = {row["source"]: row["licence"] for row in csv.DictReader(file)}
    assert set(rows) == set(table["everyday"])
    for key, licence in rows.items():
        if any(word in licence for word in ("none", "mixed", "NC", "research", "Pixabay", "not listed", "AGPL")):
            assert not table["everyday"][key].any_use, f"{key}: {licence}"
    for folder in ("classes", "everyday"):
        found = {source_of(path.as_posix()) for path in (MATERIAL / folder).glob("*/*/*_*")}
        assert found == set(table[folder])


@needs_material
def test_the_real_files_are_split_for_every_class():
    classes = Classes(MATERIAL, (CLASSES,))
    kinds = {part: set(by_class(paths)) for part, paths in classes.pictures.items()}
    assert len(kinds["train"]) == 32
    assert kinds["train"] - kinds["test"] == {"lion"}  # all its pictures look machine-made
    assert kinds["test"] <= set(by_class(classes.sounds["test"])) == set(by_class(classes.sounds["train"]))
    assert sum(classes.is_well_boxed(path) for path in classes.pictures["test"]) == 202


@needs_material
def test_the_real_recordings_and_pictures_are_in_one_part():
    classes = Classes(MATERIAL)
    recordings = [{recording_of(path) for path in classes.sounds[part]} for part in ("train", "test")]
    assert recordings[0].isdisjoint(recordings[1])
    pictures = [{(MATERIAL / path).read_bytes() for path in classes.pictures[part]} for part in ("train", "test")]
    assert pictures[0].isdisjoint(pictures[1])
