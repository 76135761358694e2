"""The cohort of a model: against loops, its file, and the match that follows from it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import avloc
from avloc.checkpoint import load_model, save_model
from avloc.engine import Cohort
from avloc.errors import WeightsError
from tests.responsive_model import save_responsive
from tests.small_models import SMALL, save_small

RATE = 22_050
RULE = {"slope": 6.0, "offset": -1.0, "cohort": True}


def units(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def quantile(values: list[float]) -> float:
    """At 98 % of the way from the least to the largest, linear between neighbours."""
    ordered, place = sorted(values), 0.98 * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_similarity_is_the_mean_of_both_quantiles(sounds, pictures, cells, seed):
    cohort = Cohort(units(sounds, 3, seed=seed), units(pictures, cells, 3, seed=seed + 1))
    image, audio = units(2, 4, 3, seed=seed + 2).permute(2, 0, 1), units(3, seed=seed + 3)
    here = [image[:, y, x] for y in range(2) for x in range(4)]
    of_picture = quantile([max(float(cell @ other) for cell in here) for other in cohort.audio])
    of_sound = quantile([max(float(cell @ audio) for cell in other) for other in cohort.image])
    assert cohort.similarity(image, audio) == pytest.approx((of_picture + of_sound) / 2, abs=1e-5)


def test_pictures_and_sounds_of_a_batch_have_their_own():
    cohort = Cohort(units(7, 5, seed=0), units(6, 3, 5, seed=1))
    cells, sounds = units(3, 4, 5, seed=2), units(3, 5, seed=3)
    found = (cohort.of_pictures(cells) + cohort.of_sounds(sounds)) / 2
    alone = [cohort.similarity(cells[k].T[:, None], sounds[k]) for k in range(3)]
    assert found.tolist() == pytest.approx(alone, abs=1e-6)


def with_cohort(path, cohort, **card):
    """A copy of a responsive model with this cohort, and a calibration."""
    model = load_model(save_responsive(path.with_name("plain.safetensors")))
    save_model(path, model.config, model.state, {"verdict": RULE, **card}, cohort)
    return path


def test_a_file_keeps_its_cohort_apart_from_its_weights(tmp_path):
    path = with_cohort(tmp_path / "a.safetensors", Cohort(units(3, 4, seed=0).half(), units(2, 3, 4, seed=1)).tensors)
    plain, model = load_model(tmp_path / "plain.safetensors"), load_model(path)
    assert model.state.keys() == plain.state.keys()
    assert (plain.cohort, Cohort.of(plain)) == ({}, None)
    assert {key: tuple(value.shape) for key, value in model.cohort.items()} == {"audio": (3, 4), "image": (2, 3, 4)}


def test_vectors_in_half_precision_are_unit_vectors_again(tmp_path):
    dim = load_model(save_small(tmp_path / "small.safetensors")).config.dim
    tensors = {
        key: value.half() for key, value in Cohort(units(3, dim, seed=0), units(2, 3, dim, seed=1)).tensors.items()
    }
    model = load_model(tmp_path / "small.safetensors")
    save_model(tmp_path / "half.safetensors", model.config, model.state, {}, tensors)
    cohort = Cohort.of(load_model(tmp_path / "half.safetensors"))
    assert cohort is not None
    for vectors in (cohort.audio, cohort.image):
        assert vectors.dtype == torch.float32
        assert vectors.norm(dim=-1).numpy() == pytest.approx(1, abs=1e-6)


D = SMALL.dim


@pytest.mark.parametrize(
    "cohort",
    [
        {"audio": units(3, D, seed=0)},
        {"image": units(2, 3, D, seed=0)},
        {"audio": units(3, D, seed=0), "image": units(2, D, seed=0)},
        {"audio": units(3, D + 1, seed=0), "image": units(2, 3, D + 1, seed=0)},
        {"audio": torch.full((3, D), math.nan), "image": units(2, 3, D, seed=0)},
        {"audio": units(0, D, seed=0), "image": units(2, 3, D, seed=0)},
        {"audio": units(3, D, seed=0), "image": units(2, 3, D, seed=0), "other": units(2, D, seed=0)},
    ],
    ids=["no pictures", "no sounds", "no cells", "another space", "not finite", "empty", "unknown"],
)
def test_an_unusable_cohort_is_refused(tmp_path, cohort):
    model = load_model(save_small(tmp_path / "small.safetensors"))
    save_model(tmp_path / "bad.safetensors", model.config, model.state, {}, cohort)
    with pytest.raises(
        WeightsError, match=rf"bad\.safetensors has an unusable cohort; valid: finite audio \[K, {D}\] and image"
    ):
        avloc.load(tmp_path / "bad.safetensors", device="cpu")


@pytest.mark.parametrize("method", ["sspl", "sacl"])
def test_methods_with_another_similarity_have_no_cohort(tmp_path, method):
    model = load_model(save_small(tmp_path / "small.safetensors"))
    other = replace(model, config=replace(model.config, method=method), cohort={"audio": units(3, D, seed=0)})
    with pytest.raises(WeightsError, match=f"small.safetensors has a cohort; valid: none with method {method}"):
        Cohort.of(other)


def test_card_and_file_have_a_cohort_or_neither(tmp_path):
    path = with_cohort(tmp_path / "a.safetensors", Cohort(units(3, D, seed=0), units(2, 3, D, seed=1)).tensors)
    model = load_model(path)
    assert avloc.load(path, device="cpu").rule.cohort
    save_model(path, model.config, model.state, model.card)
    with pytest.raises(WeightsError, match="the card's verdict has a cohort and the file none; valid: both or neither"):
        avloc.load(path, device="cpu")
    save_model(path, model.config, model.state, {}, model.cohort)
    with pytest.raises(WeightsError, match="the file has a cohort and the card's verdict none; valid: both or neither"):
        avloc.load(path, device="cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_match_is_that_of_the_peak_above_the_cohort(tmp_path, precision):
    draws = np.random.default_rng(3)
    frame = draws.integers(0, 256, (48, 64, 3), np.uint8)
    wave = draws.uniform(-0.5, 0.5, 3 * RATE).astype(np.float32)
    dim = load_model(save_responsive(tmp_path / "any.safetensors")).config.dim
    vectors = Cohort(units(9, dim, seed=0), units(8, 2, dim, seed=1)).tensors
    path = with_cohort(tmp_path / "a.safetensors", vectors)
    result = avloc.load(path, device="cpu", precision=precision).localize(frame, wave, RATE)
    plain = avloc.load(tmp_path / "plain.safetensors", device="cpu", precision=precision).localize(frame, wave, RATE)
    assert result.cohort_similarity is not None
    assert abs(result.cohort_similarity) > 0.01
    assert plain.cohort_similarity is None
    assert result.peak_similarity == plain.peak_similarity
    logit = RULE["slope"] * (result.peak_similarity - result.cohort_similarity) + RULE["offset"]
    assert result.match == pytest.approx(1 / (1 + math.exp(-logit)))
    assert result.as_json()["cohort_similarity"] == result.cohort_similarity
    silent = avloc.load(path, device="cpu").localize(frame, np.zeros_like(wave), RATE)
    assert silent.as_json()["cohort_similarity"] is None
