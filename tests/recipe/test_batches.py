"""Batches: which pairs are negatives, against a slow twin, and what is drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.recipe.batches import UNLABELLED, VOICES, Batches, alike, boxed_relation, pair_relation
from tests.recipe.fit_makers import SHOWN, SMALL, SOUND_CLASSES, make_material

CLASSES = 4


@pytest.fixture(scope="module")
def material():
    return make_material()


@st.composite
def batches(draw):
    """Rows as (shown classes, sound class or None, clip or None), labelled pairs first."""
    labelled = st.tuples(st.sets(st.integers(0, CLASSES - 1)), st.integers(0, CLASSES - 1), st.none())
    real = st.tuples(st.just(set()), st.none(), st.integers(0, 2))
    return draw(st.lists(labelled, max_size=5)) + draw(st.lists(real, min_size=1, max_size=5))


def tables(rows, *, real_shown):
    shown = np.zeros((len(rows), CLASSES), bool)
    for row, (names, _, clip) in enumerate(rows):
        shown[row, sorted(names)] = True
        if clip is not None:
            shown[row] = real_shown
    numbers = [[UNLABELLED if row[column] is None else row[column] for row in rows] for column in (1, 2)]
    return shown, np.array(numbers[0]), np.array(numbers[1])


@given(batches(), st.integers(0, 2**32 - 1))
def test_pairs_against_a_slow_twin(rows, seed):
    similar = np.random.default_rng(seed).random((len(rows), len(rows))) < 0.2
    relation = pair_relation(*tables(rows, real_shown=False), similar)
    for n, (shown, _, clip) in enumerate(rows):
        for m, (_, sounding, other) in enumerate(rows):
            may_be_right = similar[n, m] or sounding in shown or (clip is not None and clip == other)
            assert relation[n, m] == (1 if n == m else 0 if may_be_right else -1)


@given(batches())
def test_boxed_pairs_against_a_slow_twin(rows):
    shown, classes, _ = tables(rows, real_shown=True)
    relation = boxed_relation(shown, classes)
    for n, (visible, _, clip) in enumerate(rows):
        for m, (_, sounding, other) in enumerate(rows):
            unknown = clip is not None or other is not None
            assert relation[n, m] == (1 if n == m else 0 if unknown or sounding in visible else -1)


def test_sounds_are_alike_by_the_cosine_of_their_probabilities():
    sounds = torch.rand(6, 521) ** 8
    sounds[5] = 0
    found = alike(sounds, 0.3)
    for n, one in enumerate(sounds.numpy()):
        for m, other in enumerate(sounds.numpy()):
            norms = np.linalg.norm(one) * np.linalg.norm(other)
            assert found[n, m] == bool(norms and one @ other / norms > 0.3)


def find(tensor, rows):
    """The row of `rows` that is equal to each of `tensor`; -1 where there is none."""
    equal = (tensor.half().flatten(1)[:, None, :50] == rows.flatten(1)[:, :50]).all(2)  # of random numbers
    return torch.where(equal.any(1), equal.int().argmax(1), -1).tolist()


def test_pairs_are_of_a_class_or_a_clip(material):
    made = Batches(material, [2, 3, 6], SMALL)
    rng, drawn = np.random.default_rng(0), Counter()
    pictures, real = material.pictures, material.real
    for _ in range(30):
        batch = made.pairs(rng)
        assert batch.relation.shape == (SMALL.batch, SMALL.batch)
        half = SMALL.batch // 2
        files = find(batch.sounds[:half], material.sounds.features.flatten(0, 1))
        for row, file in zip(find(batch.pictures[:half], pictures.features), files, strict=True):
            assert material.sounds.classes[file // 3] in SHOWN[pictures.classes[row]]
            drawn[pictures.classes[row], file % 3] += 1
        clips = find(batch.pictures[half:], real.features)
        every = torch.cat([real.sounds[:, None], real.variants], 1)
        assert [file // 3 for file in find(batch.sounds[half:], every.flatten(0, 1))] == clips
        assert set(clips) <= {2, 3, 6}
    assert len(drawn) == 12  # every class, and every variant of its sounds


def test_moments_of_one_clip_and_like_sounds_are_no_negatives(material):
    relation = Batches(material, [2, 3, 6], replace(SMALL, batch=6)).pairs(np.random.default_rng(0)).relation
    assert (relation[3:, 3:] == 0).sum() == 2  # two of the three moments are of one clip


def test_without_real_clips_all_pairs_are_of_classes():
    batch = Batches(make_material(clips=0), [], SMALL).pairs(np.random.default_rng(0))
    assert len(batch.pictures) == len(batch.sounds) == SMALL.batch


def test_boxed_batches_have_their_shares_and_boxes(material):
    settings = replace(SMALL, boxed_batch=120)
    batch = Batches(material, [2, 3, 6], settings).boxed(np.random.default_rng(0))
    real, scenes, pictures = material.real, material.scenes, material.pictures
    sources = {"real": real, "scene": scenes, "picture": pictures}
    rows = {name: np.array(find(batch.pictures, source.cells)) for name, source in sources.items()}
    counts = {name: int((found >= 0).sum()) for name, found in rows.items()}
    assert sum(counts.values()) == 120
    assert counts["scene"] == pytest.approx(54, abs=20)
    assert counts["picture"] == pytest.approx(42, abs=20)
    assert set(rows["real"]) == {-1, 3}  # the one of these clips that has boxes
    for name, source in sources.items():
        for cover, found in zip(batch.covers, rows[name], strict=True):
            assert found < 0 or torch.equal(cover, source.covers[found])


def test_boxes_of_people_have_sounds_of_the_head(material):
    batch = Batches(material, [], replace(SMALL, boxed_batch=60)).boxed(np.random.default_rng(1))
    people = [row for row, kind in enumerate(material.pictures.classes[:8]) if kind == "person"]
    rows = find(batch.pictures, material.pictures.cells)
    files = np.array(find(batch.sounds, material.sounds.features.flatten(0, 1))) // 3
    kinds = {material.sounds.classes[file] for row, file in zip(rows, files, strict=True) if row in people}
    assert kinds == set(VOICES) & set(SOUND_CLASSES)
