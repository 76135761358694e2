"""Pictures put together: boxes lie where their objects do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recipe.clips import Part
from tests.recipe.pictures import SIDE, around, on_another, pasted, plain, side_by_side
from tests.recipe.split import CLASSES, Classes, class_of


def area(boxes) -> float:
    return sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)


def dark(picture, box) -> float:
    """Share of dark pixels in a box: the made-up objects are dark on white."""
    x0, y0, x1, y1 = (round(SIDE * value) for value in box)
    return float((np.asarray(picture.convert("L"))[y0:y1, x0:x1] < 140).mean())


def test_boxes_move_with_their_pictures(data):
    album = Part.train(Classes(data, (CLASSES,)), {}).album
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
    album = Part.train(Classes(data, (CLASSES,)), {}).album
    boxed = next(path for path in album.pool["dog"] if path in album.classes.boxes)
    album.pool, album.grounds = {"dog": [boxed]}, [path for path in album.grounds if class_of(path) == "violin"]
    for seed in range(6):
        scene = pasted(album, ["dog"], np.random.default_rng(seed))
        assert list(scene.shown) == ["violin", "dog"]
        assert dark(scene.picture, scene.boxes["dog"][0]) > 0.8


def test_an_object_on_another_leaves_that_the_rest_of_the_picture(data):
    album = Part.train(Classes(data, (CLASSES,)), {}).album
    boxed = next(path for path in album.pool["dog"] if path in album.classes.boxes)
    boxed_cat = next(path for path in album.pool["cat"] if path in album.classes.boxes)
    album.pool = {"dog": [boxed], "violin": album.pool["violin"][:1], "cat": [boxed_cat]}
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
