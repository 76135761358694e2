"""Two sounds at once: when both things count as found; right and wrong sounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from avloc.checkpoint import load_model, save_model
from avloc.engine import Cohort, Engine
from avloc.localize.model import load
from avloc.media.pictures import decode_picture
from avloc.store import Store
from tests.program import avloc
from tests.recipe import scored
from tests.recipe.calibration import Scores, roc_auc
from tests.recipe.concept_maps import ConceptMap
from tests.recipe.fit_makers import write_run
from tests.recipe.measure import Mixture, mixture_scores, picture_class, predict_mixtures, wrong_sounds
from tests.recipe.scored import MIXED_FILE
from tests.responsive_model import save_responsive

DOG, BELL, WIND, CONSTANT = range(4)
LEFT, RIGHT = np.array([[0, 0, 0.5, 1.0]]), np.array([[0.5, 0, 1.0, 1.0]])


def vector(**strengths: float) -> torch.Tensor:
    return torch.tensor([strengths.get(name, 0.0) for name in ("dog", "bell", "wind", "constant")])


def scene(dog_sound=0.7, bell_sound=0.6) -> Mixture:
    """A dog on the left, a bell on the right."""
    image = torch.zeros(4, 4, 4)
    image[DOG, 1, 0], image[BELL, 2, 3], image[CONSTANT] = 0.8, 0.9, 0.2
    alone = torch.stack([vector(dog=0.9), vector(bell=0.9)])
    return Mixture("scene", image, vector(dog=dog_sound, bell=bell_sound), alone, [LEFT, RIGHT])


def at(dimension: int, x: int, y: int) -> ConceptMap:
    cells = torch.zeros(4, 4)
    cells[y, x] = 1.0
    return ConceptMap(dimension, cells)


@pytest.mark.parametrize(
    ("maps", "found"),
    [
        ([at(DOG, 0, 1), at(BELL, 3, 2)], True),
        ([at(BELL, 3, 2), at(DOG, 0, 1)], True),
        ([at(DOG, 3, 1), at(BELL, 0, 2)], False),  # each on the other's thing
        ([at(DOG, 0, 1), at(BELL, 0, 2)], False),
        ([at(DOG, 0, 1), at(DOG, 3, 2)], False),  # both of the dog's sound
        ([at(DOG, 0, 1)], False),
        ([], False),
    ],
)
def test_each_thing_needs_a_map_of_its_own_sound(maps, found):
    assert scene().on_own_things(maps) == found


@pytest.mark.parametrize(("x", "found"), [(0, False), (3, True)])
def test_two_things_may_be_found_by_any_concepts(x, found):
    assert scene().on_two_things([at(BELL, 0, 2), at(BELL, x, 1)]) == found
    assert not scene().on_two_things([at(BELL, 0, 2)])


def test_shares_of_mixtures():
    both, weak = scene(), scene(bell_sound=0.05)
    assert mixture_scores([both, weak], torch.ones(3)) == {
        "n": 2,
        "known_own": 1.0,
        "known_any": 1.0,
        "peaks_own": 0.5,
        "peaks_any": 0.5,
        "image_own": 1.0,
        "image_any": 1.0,
        "one_sound_one_map": 1.0,
    }
    third = both.image.clone()
    third[WIND, 0, 0] = 1.0  # the strongest thing in the picture, which is silent
    found = mixture_scores([replace(both, image=third)], torch.ones(3))
    assert (found["known_own"], found["image_own"], found["image_any"]) == (1, 0, 1)
    assert mixture_scores([both], torch.ones(1))["known_any"] == 0  # the bell has no named dimension


def test_embeddings_are_those_of_the_prepared_mixtures(made, tmp_path):
    mixed, store = made / "test" / "mixed", tmp_path / "store"
    avloc("prepare", str(mixed), "--annotations", str(mixed / "boxes.json"), "--out", str(store)).check_returncode()
    engine = Engine.from_file(load_model(write_run(tmp_path / "run")), torch.device("cpu"))
    found = predict_mixtures(engine, store, mixed / MIXED_FILE)
    assert len(found) == 12
    for one in found:
        assert torch.linalg.vector_norm(one.image, dim=0).numpy() == pytest.approx(1, abs=1e-5)
        assert one.alone.shape == (2, len(one.audio))
        assert [boxes.shape[1] for boxes in one.boxes] == [4, 4]
    assert mixture_scores(found, torch.ones(3))["n"] == 12


@pytest.fixture
def wrong_store(made, tmp_path):
    wrong, store = made / "wrong", tmp_path / "store"
    avloc("prepare", str(wrong), "--annotations", str(wrong / "boxes.json"), "--out", str(store)).check_returncode()
    return store


def test_right_and_wrong_sounds_are_compared_as_localize_does(wrong_store, tmp_path):
    run = load_model(save_responsive(tmp_path / "responsive.safetensors"))
    draws = torch.Generator().manual_seed(0)
    vectors = (torch.randn(*shape, run.config.dim, generator=draws) for shape in ((5,), (6, 2)))
    card = {"verdict": {"slope": 3.0, "offset": 0.0, "cohort": True}}
    path = tmp_path / "with_cohort.safetensors"
    save_model(path, run.config, run.state, card, Cohort(*vectors).tensors)
    file, model, store = load_model(path), load(path, device="cpu"), Store(wrong_store)
    engine = Engine.from_file(file, torch.device("cpu"))
    results = {kind: [] for kind in (scored.RIGHT, scored.WRONG)}
    for name in store.ids:
        if (kind := name.rpartition("-")[2]) in results:
            clip = store.read(name)
            waveform = (clip.sound / np.float32(32_767)).clip(-1, 1)
            results[kind].append(model.localize(decode_picture(clip.picture), waveform, store.spec.rate))
    match, peak = (
        roc_auc(
            Scores.equal(*([getattr(one, field) for one in results[kind]] for kind in (scored.RIGHT, scored.WRONG)))
        )
        for field in ("match", "peak_similarity")
    )
    assert wrong_sounds(engine, Cohort.of(file), wrong_store) == {"n": 6, "match": match, "peak": peak}
    assert match != peak
    assert wrong_sounds(engine, None, wrong_store) == {"n": 6, "match": peak, "peak": peak}


def test_names_have_the_class_of_the_picture():
    assert picture_class("boxed-0001-person-a") == "person"
    assert picture_class("boxed-0001-steel-drum-c") == "steel-drum"
