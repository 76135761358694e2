"""Peaks on people who speak."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.recipe import people as module
from tests.recipe.people import (
    SpeechMoment,
    contact_sheet,
    localized,
    people_results,
    score_people,
    speech_moments,
    upper_bodies,
)
from tests.recipe.real import RealClip

FACE = (0.4, 0.2, 0.5, 0.3)


def moment(name: str, kind: str = "speech", sound: str = "original", fold: int = 0) -> RealClip:
    return RealClip(name, name.rpartition("-")[0], "a man speaks", kind, "owner/name", sound, fold)


CLIPS = [
    moment("one-0"),
    moment("one-1"),
    moment("two-0", fold=1),
    moment("three-0"),
    moment("four-0", kind="animal"),
    moment("five-0", sound="unknown"),
]


@pytest.fixture
def real(tmp_path) -> Path:
    folder = tmp_path / "real"
    for name in ("frames", "audio"):
        (folder / name).mkdir(parents=True)
    for clip in CLIPS:
        Image.new("RGB", (80, 60), "gray").save(tmp_path / clip.frame)
        soundfile.write(tmp_path / clip.audio, np.full(40, 0.1 + clip.fold / 10), 22050)
    return tmp_path


def heat_at(x: float, y: float) -> np.ndarray:
    values = np.zeros((60, 80), np.float32)
    values[int(60 * y), int(80 * x)] = 1
    return values


def test_a_face_is_enlarged_to_the_chest():
    assert upper_bodies([FACE], [[0, 0, 1, 1, 0.9, "person"]]) == [pytest.approx((0.365, 0.165, 0.535, 0.42))]
    assert upper_bodies([], [[0, 0.2, 0.4, 1.0, 0.6, "person"]]) == [(0, 0.2, 0.4, 0.6)]
    assert upper_bodies([], [[0, 0, 1, 1, 0.5, "person"], [0, 0, 1, 1, 0.9, "dog"]]) == []


def test_share_of_speech_on_people():
    places = {"one-0": (0.45, 0.4), "one-1": (0.45, 0.5), "two-0": (0.25, 0.5), "three-0": (0.5, 0.5)}
    faces = {f"real/frames/one-{number}.jpg": [FACE] for number in range(2)}
    persons = [[0, 0.2, 0.52, 1.0, 0.6, "person"], [0, 0, 1, 1, 0.4, "person"], [0, 0, 1, 1, 0.9, "dog"]]
    found = speech_moments(CLIPS, faces, {"real/frames/two-0.jpg": persons}, lambda clip: heat_at(*places[clip.id]))
    assert [one.on_person for one in found] == [True, False, True, None]
    assert people_results(found) == {
        "clips": 2,
        "moments": 3,
        "share": 0.75,
        "centre": 0.5,
        "beside": ["one-1"],
        "nobody_found": ["three-0"],
    }
    assert people_results(found[3:])["share"] is None


def test_each_clip_is_localized_by_the_model_of_its_fold(real):
    class Fake:
        def __init__(self, name):
            self.name = name

        def localize(self, frame, waveform, rate):
            assert (frame.shape, rate, len(waveform)) == ((60, 80, 3), 22050, 40)
            return SimpleNamespace(heatmap=(self.name, pytest.approx(float(waveform[20]), abs=0.02)))

    heat = localized([Fake("first"), Fake("second")], real)
    assert heat(CLIPS[0]) == ("first", 0.1)
    assert heat(CLIPS[2]) == ("second", 0.2)


def test_results_and_sheet_are_written(real, tmp_path, monkeypatch):
    def load(path):
        number = int(path.parent.name)
        return SimpleNamespace(localize=lambda *inputs: SimpleNamespace(heatmap=heat_at(0.45, 0.4 + number / 10)))

    monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr(module, "read_clips", lambda data: CLIPS)
    monkeypatch.setattr(module, "detected_in", lambda data: {})
    monkeypatch.setattr(module, "faces_in", lambda clips, *where: {clip.frame: [FACE] for clip in clips})
    (tmp_path / "folds.json").write_text('{"fit": {"seed": 3}}')
    results = score_people(real, real, tmp_path)
    assert results["fit"] == {"seed": 3}
    assert (results["share"], results["beside"]) == (0.6667, ["two-0"])
    assert json.loads((tmp_path / "people.json").read_text()) == results
    with Image.open(tmp_path / "people.png") as sheet:
        assert sheet.size == (6 * 240, 266)


def test_the_sheet_shows_every_peak(real, tmp_path):
    found = [SpeechMoment(CLIPS[k % 2], (0.5, 0.5), [FACE] if k else []) for k in range(7)]
    contact_sheet(real, found, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (2 * 266, 6 * 240, 3)
    assert sheet[56, 40].tolist() == [255, 165, 0]  # pictures smaller than a tile keep their size
    assert sheet[56, 280].tolist() == [255, 0, 0]
    assert sheet[266 + 56, 40].tolist() == [255, 0, 0]
    assert not sheet[266:, 240:].any()
