"""The material of small folders: what is in it, in which order, and what its features are of."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from avloc.annotations.labels import parse_label
from avloc.checkpoint import ModelFile
from avloc.errors import Refused
from tests.recipe import material as module
from tests.recipe.boxes import FACES
from tests.recipe.compose import SPLIT
from tests.recipe.features import AUDIO_WIDTH, CELLS, IMAGE_WIDTH
from tests.recipe.fit_makers import CONFIG
from tests.recipe.material import PROJECTIONS, covers_of, load_material, start_of
from tests.recipe.material_makers import faces_in
from tests.recipe.pairs import read_pairs
from tests.recipe.real import REAL_FACES
from tests.recipe.settings import read_settings
from tests.recipe.split import Classes, source, tables_hash


class FakeNetworks:
    """The mean of a picture and the loudness of a sound, everywhere."""

    def __init__(self, run):
        pass

    def image(self, frames):
        means = torch.tensor([float(frame.mean()) for frame in frames])
        return means[:, None, None].expand(-1, CELLS, IMAGE_WIDTH)

    def audio(self, sounds):
        return torch.tensor([float(np.abs(sound).max()) for sound in sounds])[:, None].expand(-1, AUDIO_WIDTH) * 20


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """The classes of `data` with fewer of their pictures, and three real clips."""
    folder = tmp_path_factory.mktemp("fit")
    shutil.copytree(data, folder, dirs_exist_ok=True)
    for path in (folder / "classes" / "images").glob("*/*.jpg"):
        if int(path.stem[-2:]) > 7:
            path.unlink()
    (folder / "real" / "frames").mkdir(parents=True)
    (folder / "real" / "audio").mkdir()
    clips = []
    for number in range(3):
        name = f"r{number}"
        Image.new("RGB", (60, 40), (20 * number,) * 3).save(folder / "real" / "frames" / f"{name}.jpg")
        noise = 0.01 * (number + 1) * np.random.default_rng(number).standard_normal(4 * 22_050)
        soundfile.write(folder / "real" / "audio" / f"{name}.ogg", noise, 22_050)
        clips.append({"id": name, "clip": name, "repo": name, "sound": "original", "title": "", "kind": ""})
    (folder / "real" / "clips.json").write_text(json.dumps(clips))
    (folder / "real" / "auto_boxes.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def out(folder, made, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit-out")
    for name in ("train", SPLIT):
        (out / name).symlink_to(made / name)
    faces = {path: [[*box, 0.99] for box in boxes] for path, boxes in faces_in(folder).items()}
    (out / FACES).write_text(json.dumps(faces))
    real = {f"real/frames/r{number}.jpg": [[0.2, 0.2, 0.4, 0.4, 0.95]] for number in range(3)}
    (out / REAL_FACES).write_text(json.dumps(real))
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return ModelFile(
        config=CONFIG, state=dict.fromkeys(PROJECTIONS, torch.zeros(1)), path=tmp_path_factory.mktemp("run"), sha256="a"
    )


@pytest.fixture(scope="module")
def material(folder, out, run):
    with pytest.MonkeyPatch.context() as change:
        change.setattr(module, "Networks", FakeNetworks)
        return load_material(folder, folder, out, run)


def test_pictures_are_those_to_train_on_boxed_ones_first(material, folder, out):
    pictures, classes = material.pictures, Classes(folder)
    names = json.loads((out / "features" / "pictures" / "names.json").read_text())["names"]
    assert set(names) <= set(classes.pictures["train"])
    assert not any("/hc_" in name for name in names)
    assert {"person", "dog", "violin"} <= set(pictures.classes)
    assert "baseball" not in pictures.classes  # it has no sounds
    assert len(pictures.features) == len(names) > len(pictures.cells) == len(pictures.covers) > 0
    assert (pictures.covers.flatten(1) > 0).any(1).all()
    for row, name in enumerate(names):
        mean = np.asarray(Image.open(folder / name)).mean()
        assert float(pictures.features[row, 5, 7]) == pytest.approx(mean, rel=1e-3)
        assert pictures.classes[row] == name.split("/")[-2]
        assert set(read_pairs().fits[pictures.classes[row]]) <= set(pictures.shown[row])
    assert torch.equal(pictures.cells[:, 3, 4], pictures.features[: len(pictures.cells), 3, 4])


def test_sounds_are_those_to_train_on_with_variants(material, folder):
    sounds, paths = material.sounds, Classes(folder).sounds["train"]
    assert sounds.features.shape == (len(paths), 1 + read_settings().variants, AUDIO_WIDTH)
    loudest = [np.abs(soundfile.read(folder / path)[0]).max() for path in paths]
    assert sounds.features[:, 0, 0].numpy() == pytest.approx(np.array(loudest) * 20, rel=1e-2)
    assert not torch.equal(sounds.features[:, 1], sounds.features[:, 2])
    assert {"speech", "cheering", "dog", "siren"} <= set(sounds.classes)


def test_scenes_are_composed_clips_with_boxes(material, made):
    entries = json.loads((made / "train" / "boxes.json").read_text())
    rows = [entry for path, entry in entries.items() if entry["boxes"] and int(path[-9:-4]) % 2]
    labels = [parse_label(row["label"]) for row in rows]
    assert material.scenes.classes == [label.sounding for label in labels]
    assert [set(shown) for shown in material.scenes.shown] == [label.visible for label in labels]
    assert len(material.scenes.cells) == len(material.scenes.sounds) == len(rows) > 5
    assert torch.equal(material.scenes.covers, covers_of([row["boxes"] for row in rows]))


def test_real_clips_have_boxes_of_heads_where_there_is_a_voice(material):
    real = material.real
    assert [clip.id for clip in real.clips] == ["r0", "r1", "r2"]
    assert real.features[:, 0, 0].tolist() == [0, 20, 40]
    assert real.variants.shape == (3, read_settings().variants, AUDIO_WIDTH)
    voice = torch.sigmoid(real.sounds[:, 1024].float() - 5) > 0.3
    assert ((real.covers.flatten(1) > 0).any(1) == voice).all()


def test_nothing_is_computed_twice(folder, out, run, material, monkeypatch):
    monkeypatch.setattr(module, "Networks", lambda run: pytest.fail("the networks are loaded"))
    again = load_material(folder, folder, out, run)
    assert torch.equal(again.pictures.features, material.pictures.features)
    assert torch.equal(again.real.sounds, material.real.sounds)


def test_the_open_model_has_open_files_alone(folder, out, run, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "Networks", FakeNetworks)
    for name in ("train", FACES, REAL_FACES):
        (tmp_path / name).symlink_to(out / name)
    with pytest.raises(Refused, match="open_only False, not True"):
        load_material(folder, folder, out, run, open_only=True)
    (tmp_path / SPLIT).write_text(json.dumps({"open_only": True, "tables": tables_hash()}))
    load_material(folder, folder, tmp_path, run, open_only=True)
    for name in ("pictures", "sounds"):
        paths = json.loads((tmp_path / "features" / name / "names.json").read_text())["names"]
        assert paths
        assert all(source(path).any_use for path in paths)


def test_covers_are_shares_of_cells():
    covers = covers_of([[(0.0, 0.0, 1.5 / 14, 1 / 14)], []])
    assert covers[0, 0, :3].tolist() == pytest.approx([1, 0.5, 0])
    assert covers.sum() == pytest.approx(1.5)
    assert covers_of([]).shape == (0, 14, 14)


def test_a_run_of_another_common_space_is_refused(run):
    assert start_of(run).keys() == set(PROJECTIONS)
    with pytest.raises(Refused, match="the run has 7 dimensions"):
        start_of(replace(run, config=replace(CONFIG, dim=7)))
