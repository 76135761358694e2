"""The tables of sounds and pictures: complete, and consistent with each other and with the material."""

from __future__ import annotations

import tomllib

import pytest

from tests.recipe.clips import composed_kinds
from tests.recipe.pairs import TABLES, read_pairs
from tests.recipe.split import Classes, class_of, sound_class_of
from tests.recipe_makers import DATA

MATERIAL = DATA.parent
needs_material = pytest.mark.skipif(
    not MATERIAL.is_dir(), reason="no labelled pictures and sounds beside the repository"
)

PAIRS = read_pairs()
PAIRED = {name for names in PAIRS.fits.values() for name in names}


def test_every_sound_class_is_paired_or_known_to_have_no_picture():
    assert PAIRED.isdisjoint(PAIRS.pictureless)
    known = PAIRED | PAIRS.pictureless
    for table in (PAIRS.may, PAIRS.objects):
        assert {name for names in table.values() for name in names} <= known
    assert set(PAIRS.same.values()) <= known
    assert known.isdisjoint(PAIRS.same)  # a folder of another name is not a class


def test_tables_are_of_picture_classes():
    raw = tomllib.loads(TABLES.read_text())
    kinds = set(raw["fits"])
    assert {*raw["may"], *raw["boxes"], *raw["kinds"]["people"], *raw["kinds"]["instruments"]} <= kinds
    assert set(PAIRS.kinds["people"]).isdisjoint(PAIRS.kinds["instruments"])
    assert set(PAIRS.kinds["people"]).isdisjoint(raw["boxes"])  # they have rules of their own
    for kind, names in raw["may"].items():
        assert set(PAIRS.may[kind]) > set(PAIRS.fits[kind]), f"{kind}: {names} adds nothing"
    used = {entry[1:] for table in ("fits", "may", "objects") for names in raw[table].values() for entry in names}
    assert set(raw["groups"]) <= used


def test_what_fits_a_picture_may_be_in_it():
    for kind, names in PAIRS.fits.items():
        assert PAIRS.shown(kind, [])[: len(names)] == names
        assert len(set(PAIRS.shown(kind, PAIRS.objects))) == len(PAIRS.shown(kind, PAIRS.objects))
    assert {"speech", "laugh", "cough"} <= set(PAIRS.shown("dog", ["person"])) - set(PAIRS.shown("dog", ["vase"]))


@needs_material
def test_the_real_classes_are_those_of_the_tables():
    classes = Classes(MATERIAL)
    pictures = {class_of(path) for paths in classes.pictures.values() for path in paths}
    sounds = {sound_class_of(path) for paths in classes.sounds.values() for path in paths}
    assert pictures == set(PAIRS.fits)
    assert sounds == PAIRED | PAIRS.pictureless
    objects = {row[5] for rows in classes.auto_boxes.values() for row in rows}
    assert set(PAIRS.objects) | {name for names in PAIRS.boxes.values() for name in names} <= objects


@needs_material
def test_the_real_material_is_composed_of_many_classes():
    kinds = composed_kinds(Classes(MATERIAL))
    assert len(kinds) == 56
    assert {"person", "face", "crowd", "guitar", "bus", "keyboard"} <= set(kinds)
