"""The YAMNet teacher against a slow reference and with recorded sounds; the stamps of both teachers of concepts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from avloc.errors import Refused
from avloc.networks import concepts
from avloc.networks.concepts import (
    CONCEPTS,
    DIM,
    concepts_hash,
)
from avloc.networks.yamnet import load_yamnet
from avloc.registry import StoreSpec
from avloc.store import Clip, Store
from avloc.teachers.yamnet import YamnetTeacher
from avloc.transforms import log_mel
from avloc.weights import YAMNET, locate
from tests.recipe_makers import real, sounds
from tests.teacher_makers import CONCEPT_TEACHERS, RATE, SECONDS, concept_teacher, hints_of, unit_reference

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("no_hash_in_names")


def test_the_sound_teacher_against_a_slow_reference(store: Store, weights: Path) -> None:
    network = load_yamnet(YAMNET.under(weights))
    matrix, bias = network.head.weight.double().numpy(), network.head.bias.double().numpy()
    positive, zero = 0, 0
    for clip_id, hint in zip(store.ids, hints_of(concept_teacher("yamnet", weights), store), strict=True):
        sound = soxr.resample(store.read(clip_id).sound / 32_767, RATE, 16_000, quality="HQ")
        with torch.no_grad():
            features = network.trunk(log_mel(torch.from_numpy(sound)[None], 16_000))[0].double().numpy()
        embedding = [np.mean(channel) for channel in features]
        logits = [sum(matrix[row] * embedding) + bias[row] for row in range(521)]
        strengths = [max(0.0, max(logits[number] for number in concept.audioset) + 5) for concept in CONCEPTS]
        np.testing.assert_allclose(hint, unit_reference(strengths, 0, 0.3), atol=1e-4)
        positive += sum(value > 0 for value in strengths)
        zero += sum(value == 0 for value in strengths)
    assert positive > 50
    assert zero > 50


@pytest.mark.parametrize("name", CONCEPT_TEACHERS)
def test_stamps_name_what_changes_a_hint(name: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = concept_teacher(name, weights).stamp
    shared = {"concepts": concepts_hash()}
    if name == "yamnet":
        assert stamp.settings == {**shared, "offset": 5.0, "nothing": 0.3, "rate": 16_000, "seconds": SECONDS}
        assert (set(stamp.weights), stamp.shape) == ({"yamnet_int8.tflite"}, (DIM,))
    else:
        assert stamp.settings == {**shared, "usual": [0.2, 1.81], "deviation": 2.5, "nothing": 16.0, "side": 224}
        assert (set(stamp.weights), stamp.shape) == ({"efficientnet-lite0-57934424.pth"}, (DIM, 7, 7))
    other = (replace(CONCEPTS[0], imagenet=CONCEPTS[0].imagenet[1:]), *CONCEPTS[1:])
    monkeypatch.setattr(concepts, "CONCEPTS", other)
    assert concept_teacher(name, weights).stamp != stamp


def test_a_store_that_yamnet_cannot_use_is_refused(weights: Path) -> None:
    located = locate(YAMNET, weights_dir=weights)
    with pytest.raises(Refused, match="8000 Hz; YAMNet needs 16000 Hz") as caught:
        YamnetTeacher(StoreSpec(rate=8_000), located, CPU)
    assert "--rate 16000" in caught.value.hint
    with pytest.raises(Refused, match="too short for YAMNet"):
        YamnetTeacher(StoreSpec(seconds=0.02), located, CPU)


@pytest.mark.parametrize(("kind", "name"), [("dog", "dog"), ("violin", "bowed")])
def test_real_sounds_point_to_their_concepts(kind: str, name: str) -> None:
    path = real(YAMNET)
    tested = YamnetTeacher(StoreSpec(seconds=3.0, rate=22_050), locate(YAMNET, weights_dir=path.parent), CPU)
    (row,) = [row for row, concept in enumerate(CONCEPTS) if concept.name == name]
    right = 0
    for file in sounds(kind, 8):
        wave, rate = soundfile.read(file, always_2d=True)
        wave = soxr.resample(wave.mean(1), rate, 22_050)[: 3 * 22_050]
        wave = np.pad(wave, (0, 3 * 22_050 - len(wave)))
        clip = Clip(id="x", picture=b"", sound=np.round(wave.clip(-1, 1) * 32_767).astype(np.int16), frame_hw=(1, 1))
        (hint,) = tested.hints([tested.read(clip)])
        assert hint is not None
        right += int(row in np.argsort(-hint)[:5])
    assert right >= 5
