"""The table of concepts: its rules, its indices and the projections made from it."""

from __future__ import annotations

import numpy as np
import pytest

from avloc.networks.concepts import AUDIO_CONSTANT, CONCEPTS, DIM, IMAGE_CONSTANT, concept_projections, read_concepts
from tests.recipe_makers import SHARED


def test_the_table_is_sound() -> None:
    names = [concept.name for concept in CONCEPTS]
    assert len(set(names)) == len(names) == IMAGE_CONSTANT == AUDIO_CONSTANT - 1 == DIM - 2
    assert all(concept.audioset for concept in CONCEPTS), "every concept has classes of AudioSet"
    assert sum(not concept.imagenet for concept in CONCEPTS) < 10


def test_the_table_is_read_by_its_rules() -> None:
    table = read_concepts("# AudioSet | ImageNet\n\nbig cat | 104-105 3 | 7 \nsilence | 494 |\n")
    assert [(one.name, one.audioset, one.imagenet) for one in table] == [
        ("big cat", (3, 104, 105), (7,)),
        ("silence", (494,), ()),
    ]
    for wrong in ("dog | 1", "dog | 1 | 2 | 3", "dog | 521 | 1", "dog | 1 | 999-1000", "dog | one | 1", "dog | -1 | 1"):
        with pytest.raises(ValueError):  # noqa: PT011
            read_concepts(wrong)


@pytest.mark.parametrize("name", ["dog", "violin family", "silence"])
def test_indices_are_those_of_the_published_class_map(name: str) -> None:
    path = SHARED / "weights" / "yamnet_class_map.csv"
    if not path.is_file():
        pytest.skip("no class map beside the repository")
    rows = path.read_text().splitlines()[1:]
    shown = {"dog": ("dog", "Bark"), "violin family": ("bowed", "Violin"), "silence": ("silence", "Silence")}
    concept, word = shown[name]
    (found,) = [one for one in CONCEPTS if one.name == concept]
    assert any(word in rows[number] for number in found.audioset)


def test_projections_against_a_loop() -> None:
    image, image_bias, sound, sound_bias = (part.numpy() for part in concept_projections())
    assert (image.shape, sound.shape) == ((DIM, 2280, 1, 1), (DIM, 1545))
    for row, concept in enumerate(CONCEPTS):
        assert np.flatnonzero(image[row, :, 0, 0]).tolist() == [1280 + number for number in concept.imagenet]
        assert np.flatnonzero(sound[row]).tolist() == [1024 + number for number in concept.audioset]
        assert set(image[row, image[row] != 0]) <= {np.float32(0.5 / max(1, len(concept.imagenet)) ** 0.5)}
        assert (image_bias[row], sound_bias[row]) == (0, 0)
    assert set(np.unique(sound)) == {0, 1}
    assert not image[IMAGE_CONSTANT:].any()
    assert not sound[IMAGE_CONSTANT:].any()
    assert image_bias[IMAGE_CONSTANT:].tolist() == [16, 0]
    assert sound_bias[IMAGE_CONSTANT:].tolist() == [0, np.float32(0.3)]
