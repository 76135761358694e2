"""The cohort of a fitted model: which clips, files and cells are in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.recipe.cohort import make_cohort, one_of_each
from tests.recipe.fit import fit
from tests.recipe.fit_makers import PICTURE_CLASSES, SMALL, SOUND_CLASSES, make_material
from tests.recipe.real import GENERATED

SETTINGS = replace(SMALL, cohort=20, cohort_cells=2)


@pytest.fixture(scope="module")
def material():
    found = make_material()
    moments = [replace(moment, sound=GENERATED) if moment.clip == "2" else moment for moment in found.real.clips]
    return replace(found, real=replace(found.real, clips=moments))


@pytest.fixture(scope="module")
def model(material):
    return fit(material, range(16), 0, SETTINGS)


def test_one_of_each_in_a_random_order():
    names = list("aabbbc")
    draws = [one_of_each(names, np.random.default_rng(seed)) for seed in range(30)]
    assert all(sorted(names[index] for index in draw) == ["a", "b", "c"] for draw in draws)
    assert len({tuple(draw) for draw in draws}) > 10


def test_half_is_recorded_and_half_labelled(model, material):
    given = [index for index, moment in enumerate(material.real.clips) if moment.clip != "4"]
    cohort = make_cohort(model, material, given, 3, SETTINGS)

    def origins(vectors: torch.Tensor, names: list[str]) -> list[str]:
        """The names of the entries that the cohort has, by their vectors."""
        return [
            name
            for name, vector in zip(names, vectors, strict=True)
            if (cohort.audio - vector).norm(dim=1).min() < 1e-4
        ]

    clips = [moment.clip for moment in material.real.clips]
    recorded = origins(model.sound_vectors(material.real.sounds), clips)
    assert Counter(recorded) == dict.fromkeys("013567", 1)  # 2 has no original sound, 4 must not be used
    labelled = origins(model.sound_vectors(material.sounds.features[:, 0]), list(material.sounds.classes))
    assert Counter(labelled) == dict.fromkeys(SOUND_CLASSES, 1)
    cells = torch.cat([material.real.cells, material.pictures.cells])
    clip_of = [*clips, *material.pictures.classes]
    distances = [(model.cell_vectors(cells) - kept[0]).norm(dim=2).amin(1).argmin() for kept in cohort.image]
    assert Counter(clip_of[place] for place in distances) == dict.fromkeys([*"013567", *PICTURE_CLASSES], 1)
    assert len(cohort.audio) == 6 + len(SOUND_CLASSES)
    assert len(cohort.image) == 6 + len(PICTURE_CLASSES)
    few = make_cohort(model, material, given, 3, replace(SETTINGS, cohort=6))
    assert (len(few.audio), len(few.image)) == (6, 6)


def test_kept_cells_are_those_that_most_sounds_choose(model, material):
    cohort = make_cohort(model, material, range(16), 7, SETTINGS)
    cells = torch.cat([material.real.cells, material.pictures.cells]).float()
    unit = F.normalize(model.image(model.image_inputs(cells)), dim=2)
    for kept in cohort.image:
        distances = torch.cdist(unit, kept)
        picture = int(distances.amin(1).sum(1).argmin())
        best = (unit[picture] @ cohort.audio.T).argmax(0).tolist()
        counts = sorted((best.count(cell) for cell in set(best)), reverse=True)
        places = distances[picture].argmin(0).tolist()
        assert sorted((best.count(cell) for cell in places), reverse=True) == [*counts, 0][:2]
        assert len(set(places)) == 2
