"""Where sounds come from: heads of people, boxes by people, then those of detectors."""

from __future__ import annotations

import json

import pytest

from tests.recipe import boxes as module
from tests.recipe.boxes import (
    FACES,
    HumanBoxes,
    TrainingBoxes,
    faces_of,
    head_and_shoulders,
    near,
    pictures_of_people,
    upper_half,
)
from tests.recipe.faces import build_networks
from tests.recipe.material_makers import faces_in
from tests.recipe.split import Classes, class_of, source_of


def paths_of(classes: Classes, kind: str, source: str) -> list[str]:
    every = (path for paths in classes.pictures.values() for path in paths)
    return sorted(path for path in every if (class_of(path), source_of(path)) == (kind, source))


@pytest.fixture(scope="module")
def boxes(data) -> TrainingBoxes:
    return TrainingBoxes(Classes(data), faces_in(data))


def test_a_face_is_enlarged_to_head_and_shoulders_within_the_picture():
    assert head_and_shoulders((0.4, 0.5, 0.6, 0.7)) == pytest.approx((0.33, 0.43, 0.67, 0.86))
    assert head_and_shoulders((0.0, 0.0, 0.5, 0.9)) == pytest.approx((0.0, 0.0, 0.675, 1.0))


def test_people_speak_from_head_and_shoulders(boxes):
    for kind, source in (("person", "voc07"), ("face", "observ"), ("person", "pacs")):
        for path in paths_of(boxes.classes, kind, source):
            assert boxes.sources(path) == [head_and_shoulders(face) for face in boxes.faces[path]]


def test_people_without_a_face_speak_from_the_upper_half(data):
    boxes = TrainingBoxes(Classes(data), {})
    for source in ("voc07", "pacs"):  # boxed by people, and by the detector
        for path in paths_of(boxes.classes, "person", source):
            (body,) = boxes.objects(path)
            assert boxes.sources(path) == [upper_half(body)]
            assert body[3] - body[1] == pytest.approx(2 * (boxes.sources(path)[0][3] - body[1]))
    assert all(boxes.sources(path) == [] for path in paths_of(boxes.classes, "face", "observ"))


def test_faces_of_the_detector_have_no_part_in_what_may_be_used_for_any_purpose(data, boxes):
    cleared = Classes(data, open_only=True)
    paths = [path for path in boxes.faces if boxes.sources(path)]
    assert paths
    for path in paths:
        assert TrainingBoxes(cleared, boxes.faces).sources(path) == TrainingBoxes(boxes.classes, {}).sources(path)


def test_a_person_is_cut_to_the_body_that_has_the_head(boxes):
    (path, *_) = paths_of(boxes.classes, "person", "voc07")
    (body,) = boxes.classes.boxes[path]
    assert boxes.objects(path) == [tuple(body)]
    beside = TrainingBoxes(boxes.classes, {path: [(0.9, 0.1, 0.95, 0.2)]})
    assert beside.objects(path) == []  # that head is of nobody with a box


def test_where_in_a_crowd_sounds_come_from_is_not_known(boxes):
    for path in paths_of(boxes.classes, "crowd", "shtech"):
        assert boxes.faces[path]
        assert boxes.sources(path) == boxes.objects(path) == []


def test_portraits_without_a_face_are_whole(boxes):
    (path, *_) = paths_of(boxes.classes, "face", "observ")
    classes = Classes(boxes.classes.data)
    classes.auto_boxes[path] = [(0.1, 0.2, 0.9, 1.0, 0.8, "person")]
    assert TrainingBoxes(classes, {}).sources(path) == [(0.1, 0.2, 0.9, 1.0)]


def test_faces_far_behind_the_largest_are_left_out():
    large, small, smaller = (0.1, 0.1, 0.4, 0.5), (0.6, 0.1, 0.7, 0.23), (0.8, 0.1, 0.9, 0.2)
    assert near([small, large, smaller]) == [small, large]
    assert near([smaller]) == [smaller]
    assert near([]) == []


def test_other_things_have_boxes_of_people_else_of_the_detector(boxes):
    classes = boxes.classes
    (bus, *_) = paths_of(classes, "bus", "voc07")
    assert boxes.sources(bus) == HumanBoxes(classes).sources(bus) == [tuple(classes.boxes[bus][0])]
    (keyboard, *_) = paths_of(classes, "keyboard", "jetson")
    assert boxes.sources(keyboard) == [tuple(classes.auto_boxes[keyboard][0][:4])]
    assert HumanBoxes(classes).sources(keyboard) == []  # a detector's boxes are not tested with
    (baseball, *_) = paths_of(classes, "baseball", "sports")
    assert boxes.sources(baseball) == []  # a person in it is not what a ball game sounds like


def test_unsure_boxes_are_not_used(data):
    classes = Classes(data)
    path = paths_of(classes, "keyboard", "jetson")[0]
    classes.auto_boxes[path] = [(*classes.auto_boxes[path][0][:4], 0.39, "laptop")]
    assert TrainingBoxes(classes, {}).sources(path) == []


def test_faces_are_found_once_and_sure_ones_kept(data, tmp_path, monkeypatch):
    searched = []

    def found(data_, paths, networks, out):
        searched.extend(paths)
        out.write_text(json.dumps({path: [[0.1, 0.2, 0.3, 0.4, 0.99], [0.5, 0.5, 0.6, 0.6, 0.9]] for path in paths}))
        return out

    monkeypatch.setattr(module, "load_faces", lambda folder: build_networks())
    monkeypatch.setattr(module, "write_faces", found)
    faces = faces_of(data, tmp_path / "out", tmp_path)
    assert searched == pictures_of_people(Classes(data)) == sorted(faces)
    assert {class_of(path) for path in searched} == {"person", "face", "crowd", "baseball"}
    assert set(map(tuple, faces.values())) == {((0.1, 0.2, 0.3, 0.4),)}
    assert [path.name for path in (tmp_path / "out").iterdir()] == [FACES]
    assert faces_of(data, tmp_path / "out", tmp_path / "absent") == faces
    assert len(searched) == len(faces)
