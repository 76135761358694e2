"""Clips to test with: of unseen files, and with one right answer."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avloc.annotations.labels import parse_label
from tests.folder_contents import folder_contents
from tests.recipe import scored
from tests.recipe.clips import Part, composed_kinds
from tests.recipe.material_makers import EVERYDAY_PICTURES, KINDS
from tests.recipe.pairs import read_pairs
from tests.recipe.scored import ALONE, MIXED_FILE, everyday_kinds, two_things, write_mixed, write_scored
from tests.recipe.sounds import loudness, together
from tests.recipe.split import CLASSES, Classes, class_of


def entries(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "boxes.json").read_text())


def area(boxes) -> float:
    return sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)


def layouts(clips) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {"side": [], "on": [], "crowded": []}
    for name, entry in clips.items():
        found[Path(name).stem.rpartition("-")[2]].append(entry)
    return found


@pytest.fixture(scope="module")
def part(data) -> Part:
    classes = Classes(data)
    return Part.test(classes, composed_kinds(classes))


def test_scenes_are_of_two_objects_one_of_which_sounds(made):
    clips = entries(made / "test" / "scenes")
    assert len(clips) == 24
    shares = {name: [area(entry["boxes"]) for entry in found] for name, found in layouts(clips).items()}
    assert [len(found) for found in shares.values()] == [8, 8, 8]
    assert all(0.39 < share < 0.61 for share in shares["side"])
    assert min(shares["on"]) < 0.26  # what is pasted sounds
    assert max(shares["on"]) > 0.74  # what it is pasted on
    assert max(shares["crowded"]) < 0.3
    audio_classes = {parse_label(entry["label"]).sounding for entry in clips.values()}
    assert audio_classes == {*KINDS} - {"lion"}  # lions have no test


def test_scenes_of_classes_do_not_depend_on_other_material(data, made, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / CLASSES).symlink_to(data / CLASSES)
    monkeypatch.setattr(scored, "SCENES", 24)
    monkeypatch.setattr(scored, "Part", OnlyScenes)
    with pytest.raises(OtherScenes):
        write_scored(tmp_path / "data", tmp_path, [], 3)
    scenes = tmp_path / "test" / "scenes"
    assert folder_contents(scenes) == folder_contents(made / "test" / "scenes")


class OtherScenes(Exception):
    """Further sets are asked for."""


class OnlyScenes:
    """Stands for `Part` until sets of all material are made."""

    @staticmethod
    def test(classes: Classes, kinds: list[str] | None = None) -> Part:
        if kinds is not None:
            raise OtherScenes
        return Part.test(classes)


def test_everyday_scenes_have_one_thing_that_makes_the_sound(made, part):
    clips = entries(made / "test" / "scenes-everyday")
    assert {name: len(found) for name, found in layouts(clips).items()} == {"side": 4, "on": 4, "crowded": 4}
    kinds = everyday_kinds(part)
    assert set(kinds) <= set(EVERYDAY_PICTURES)
    fitting = {name for kind in kinds for name in read_pairs().fits[kind]}
    for entry in clips.values():
        assert parse_label(entry["label"]).sounding in fitting
        assert 0.04 < area(entry["boxes"]) < 0.96


def test_two_things_never_make_each_others_sound(part):
    for kind in part.kinds:
        for seed, layout in enumerate(("side", "on", "crowded")):
            scene, audio = two_things(part, layout, kind, np.random.default_rng(seed))
            other = next(one for one in scene.places if one != kind)
            assert audio[0] in read_pairs().fits[kind]
            assert audio[1] in read_pairs().fits[other]
            assert [audio[0] in scene.shown[one] for one in (kind, other)] == [True, False]
            assert [audio[1] in scene.shown[one] for one in (kind, other)] == [False, True]


def test_two_things_need_two_kinds(part):
    alone = Part.test(part.album.classes, ["crowd", "face", "person"])  # of each may speak who is in another
    with pytest.raises(ValueError, match="no scene of face"):
        two_things(alone, "side", "face", np.random.default_rng(0))


def test_mixed_scenes_have_both_things(made):
    folder = made / "test" / "mixed"
    clips, both = entries(folder), json.loads((folder / MIXED_FILE).read_text())
    mixtures = {name: entry for name, entry in clips.items() if Path(name).stem[-1] not in ALONE}
    assert list(both) == list(mixtures)
    assert {name: len(found) for name, found in layouts(mixtures).items()} == {"side": 4, "on": 4, "crowded": 4}
    for name, (one, other) in both.items():
        label = parse_label(clips[name]["label"])
        assert (label.sounding, clips[name]["boxes"]) == (one["audio_class"], one["boxes"])
        assert {one["audio_class"], other["audio_class"]} <= label.visible
        assert one["audio_class"] != other["audio_class"]
        overlap = [area([shared(a, b)]) for a in one["boxes"] for b in other["boxes"] if meet(a, b)]
        assert sum(overlap) < 0.03
        assert area(one["boxes"]) + area(other["boxes"]) < 1.03


def test_each_sound_of_a_mixture_is_also_alone(made):
    folder = made / "test" / "mixed"
    clips, both = entries(folder), json.loads((folder / MIXED_FILE).read_text())
    assert len(clips) == 3 * len(both)
    for name, things in both.items():
        stem = Path(name).stem
        mixture, *alone = (soundfile.read(folder / f"audio/{stem}{end}.wav")[0] for end in ("", "-a", "-b"))
        *_, (error,) = map(np.atleast_1d, np.linalg.lstsq(np.stack(alone, 1), mixture, rcond=None)[:2])
        assert error < 1e-4 * (mixture**2).sum()
        for letter, thing in zip(ALONE, things, strict=True):
            entry = clips[f"frames/{stem}-{letter}.jpg"]
            assert (parse_label(entry["label"]).sounding, entry["boxes"]) == (thing["audio_class"], thing["boxes"])
            assert (folder / f"frames/{stem}-{letter}.jpg").read_bytes() == (folder / name).read_bytes()


def shared(one, other):
    return (*map(max, one[:2], other[:2]), *map(min, one[2:], other[2:]))


def meet(one, other) -> bool:
    x0, y0, x1, y1 = shared(one, other)
    return x1 > x0 and y1 > y0


def test_the_same_seed_gives_the_same_mixed_scenes(part, tmp_path, monkeypatch):
    monkeypatch.setattr(scored, "MIXED", 6)
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        write_mixed(tmp_path / name, part, seed)
    assert folder_contents(tmp_path / "one") == folder_contents(tmp_path / "again")
    assert folder_contents(tmp_path / "one") != folder_contents(tmp_path / "other")


def test_mixed_sounds_are_equally_loud():
    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal(4000).astype("f4") * gain for gain in (0.5, 0.001))
    mixture = together(one, other)
    assert np.abs(mixture).max() == pytest.approx(0.9, abs=1e-4)
    (a, b), *_ = np.linalg.lstsq(np.stack([one, other], 1), mixture, rcond=None)
    assert a * loudness(one) == pytest.approx(b * loudness(other), rel=1e-3)
    assert np.isfinite(together(one, np.zeros_like(one))).all()


def test_boxed_pictures_are_as_they_were_with_three_sounds(data, made, part):
    clips = entries(made / "test" / "boxed")
    boxes = part.album.classes.boxes
    tested = [path for paths in part.album.pool.values() for path in paths if part.album.classes.is_well_boxed(path)]
    assert len(clips) == 3 * len(tested)
    assert {path.split("/")[0] for path in tested} == {"classes", "everyday"}
    sources = {(data / path).read_bytes(): path for path in tested}
    for _, names in groupby(clips, key=lambda name: name[:-6]):
        frames = [made / "test" / "boxed" / name for name in names]
        (path,) = {sources[frame.read_bytes()] for frame in frames}
        assert frames[0].stem.split("-")[2] == class_of(path)
        assert clips[f"frames/{frames[0].name}"]["boxes"] == [pytest.approx(boxes[path][0], abs=1e-5)]
        sounds = {(made / "test/boxed/audio" / f"{frame.stem}.wav").read_bytes() for frame in frames}
        assert len(sounds) == 3


def test_wrong_pairs_share_their_picture(made):
    clips = entries(made / "wrong")
    assert len(clips) == 18
    for _, group in groupby(clips.items(), key=lambda item: item[0].rpartition("-")[0]):
        right, wrong, silent = (parse_label(entry["label"]) for _, entry in group)
        assert right.sounding in right.visible
        assert wrong.sounding not in wrong.visible
        assert silent.sounding == "silence"
        assert right.visible == wrong.visible == silent.visible
    assert not soundfile.read(next((made / "wrong" / "audio").glob("*-silent.wav")))[0].any()
