"""Maps of several sounds from the concepts of one mixture."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.recipe.concept_maps import ALIKE, LEAST_USUAL, SOUND_POWER, concept_maps

DOG, PUPPY, BELL, WIND, CONSTANT = range(5)
USUAL = torch.full((4,), 1 - LEAST_USUAL)


def picture(**places) -> torch.Tensor:
    """[5, 4, 4] concepts at cells, x and y from the top left."""
    image = torch.zeros(5, 4, 4)
    image[CONSTANT] = 1.0
    for name, cells in places.items():
        for x, y, value in cells:
            image[globals()[name], y, x] = value
    return image


def sound(**strengths: float) -> torch.Tensor:
    audio = torch.zeros(5)
    audio[CONSTANT] = 1.0
    for name, value in strengths.items():
        audio[globals()[name]] = value
    return audio


def peaks(maps) -> list[tuple[int, tuple[int, int]]]:
    return [(found.dimension, divmod(int(found.cells_hw.argmax()), 4)[::-1]) for found in maps]


DOG_AND_BELL = picture(
    DOG=[(0, 1, 1.0), (1, 1, 0.5)], PUPPY=[(0, 1, 0.3), (1, 1, 0.4)], BELL=[(3, 2, 0.8)], WIND=[(2, 3, -1.0)]
)


def test_each_thing_is_found_in_its_place():
    found = concept_maps(DOG_AND_BELL, sound(DOG=0.6, PUPPY=0.5, BELL=0.5), 2, usual_C=USUAL)
    assert peaks(found) == [(DOG, (0, 1)), (BELL, (3, 2))]


def test_concepts_of_one_thing_share_a_map():
    dog, bell = concept_maps(DOG_AND_BELL, sound(DOG=0.6, PUPPY=0.5, BELL=0.5), 3, usual_C=USUAL)
    loud, soft = 0.6**SOUND_POWER, 0.5**SOUND_POWER
    expected = torch.zeros(4, 4)
    expected[1, 0], expected[1, 1] = loud + 0.3 * soft, 0.5 * loud + 0.4 * soft
    assert torch.allclose(dog.cells_hw, expected)
    assert bell.cells_hw.sum() == pytest.approx(0.8 * soft)


def test_a_concept_that_is_usual_counts_less():
    usual = torch.tensor([4.0, 4.0, 0.1, 0.1])
    found = concept_maps(DOG_AND_BELL, sound(DOG=0.6, BELL=0.3), 2, usual_C=usual)
    assert peaks(found) == [(BELL, (3, 2)), (DOG, (0, 1))]


def test_a_weak_concept_is_left_out_unless_the_number_is_known():
    weak = sound(DOG=0.6, BELL=0.1)
    assert [found.dimension for found in concept_maps(DOG_AND_BELL, weak, 2, usual_C=USUAL)] == [DOG]
    known = concept_maps(DOG_AND_BELL, weak, 2, usual_C=USUAL, least_share=0)
    assert peaks(known) == [(DOG, (0, 1)), (BELL, (3, 2))]


def test_constants_and_what_is_nowhere_have_no_map():
    assert concept_maps(DOG_AND_BELL, sound(), 2, usual_C=USUAL) == []
    assert concept_maps(DOG_AND_BELL, sound(WIND=0.9), 2, usual_C=USUAL) == []  # negative in every cell
    alone = concept_maps(DOG_AND_BELL, sound(BELL=0.9), 2, usual_C=USUAL, least_share=0)
    assert [found.dimension for found in alone] == [BELL]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(0, 1))
def test_maps_are_shares_of_what_picture_and_sound_have(seed, count, least_share):
    generator = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(9, 3, 5, generator=generator), dim=0)
    audio = F.normalize(torch.randn(9, generator=generator), dim=0)
    usual = torch.rand(7, generator=generator)
    found = concept_maps(image, audio, count, usual_C=usual, least_share=least_share)
    parts = torch.zeros(7, 3, 5)
    for row in range(7):
        if audio[row] > 0 and audio[row] >= least_share * audio[:7].max():
            parts[row] = image[row].clamp(min=0) * audio[row] ** SOUND_POWER / (usual[row] + LEAST_USUAL)
    assert len(found) <= count
    assert bool(found) == bool(parts.max() > 0)
    if not found:
        return
    assert torch.allclose(sum(one.cells_hw for one in found), parts.sum(0), atol=1e-5)
    strongest = [float(parts[one.dimension].max()) for one in found]
    assert strongest == sorted(strongest, reverse=True)
    assert strongest[0] == pytest.approx(float(parts.max()))
    for place, one in enumerate(found):
        for other in found[:place]:
            cosine = F.cosine_similarity(parts[one.dimension].flatten(), parts[other.dimension].flatten(), dim=0)
            assert cosine < ALIKE + 1e-5
