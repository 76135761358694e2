"""The cohort of a fitted model: which clips and cells are in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from tests.recipe.cohort import drawn, make_cohort
from tests.recipe.fit import fit
from tests.recipe.fit_makers import SMALL, make_material
from tests.recipe.real import GENERATED


def test_one_moment_of_each_clip_with_original_sound():
    real = make_material(clips=6).real
    moments = [replace(moment, sound=GENERATED) if moment.clip == "2" else moment for moment in real.clips]
    real = replace(real, clips=moments)
    given = [index for index, moment in enumerate(moments) if moment.clip != "4"]
    found = drawn(real, given, 10, np.random.default_rng(0))
    assert sorted(moments[index].clip for index in found) == ["0", "1", "3", "5"]
    assert {tuple(drawn(real, given, 10, np.random.default_rng(seed))) for seed in range(20)} != {tuple(found)}
    assert len(drawn(real, given, 3, np.random.default_rng(0))) == 3


def test_kept_cells_are_those_that_most_sounds_choose():
    material = make_material()
    settings = replace(SMALL, cohort=5, cohort_cells=2)
    model = fit(material, range(16), 0, settings)
    cohort = make_cohort(model, material.real, range(16), 7, settings)
    chosen = drawn(material.real, range(16), 5, np.random.default_rng(7))
    assert cohort.audio.shape == (5, model.image.out_features)
    assert cohort.image.shape == (5, 2, model.image.out_features)
    for place, index in enumerate(chosen):
        cells = F.normalize(model.image(model.image_inputs(material.real.cells[index].float())), dim=1)
        sound = F.normalize(model.audio(model.audio_inputs(material.real.sounds[index].float())), dim=0)
        assert torch.allclose(cohort.audio[place], sound, atol=1e-5)
        best = (cells @ cohort.audio.T).argmax(0).tolist()
        counts = sorted((best.count(cell) for cell in set(best)), reverse=True)
        kept = [int((cells - vector).norm(dim=1).argmin()) for vector in cohort.image[place]]
        assert sorted((best.count(cell) for cell in kept), reverse=True) == [*counts, 0][:2]
        assert len(set(kept)) == 2
