"""Sounds: in range, of one length, drawn by class."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.recipe.clips import Part
from tests.recipe.sounds import SAMPLES, in_a_room, only_noise
from tests.recipe.split import Classes


def test_sounds_stay_in_range_and_lengthless_ones_are_repeated(data):
    sounds = Part.train(Classes(data), {}).sounds
    for seed in range(12):
        rng = np.random.default_rng(seed)
        kind = sounds.any_kind(rng)
        for sound in (in_a_room(sounds.any_of(kind, rng), sounds, rng), only_noise(rng)):
            assert (sound.dtype, sound.shape) == (np.float32, (SAMPLES,))
            assert 0 < np.abs(sound).max() <= 1


def test_classes_with_many_sounds_are_drawn_more_often(data):
    sounds = Part.train(Classes(data), {}).sounds
    assert sounds.fitting("face") == ["speech", "laugh", "snoring"]
    assert {path.split("/")[0] for path in sounds.pool["violin"]} == {"classes", "everyday"}
    rng = np.random.default_rng(0)
    drawn = Counter(sounds.draw(sounds.fitting("face"), rng) for _ in range(4000))
    expected = {name: np.sqrt(len(sounds.pool[name])) for name in drawn}
    total = sum(expected.values())
    assert {name: count / 4000 for name, count in drawn.items()} == pytest.approx(
        {name: weight / total for name, weight in expected.items()}, abs=0.03
    )
