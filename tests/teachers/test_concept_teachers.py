"""The table of concepts and its two teachers, against slow references, alone and in batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from PIL import Image
from scipy.stats import norm

from avloc.distill import DistillOptions, distill_cache
from avloc.errors import InputError, Refused, UsageError, WeightsError
from avloc.media.pictures import decode_picture
from avloc.networks import concepts
from avloc.networks.concepts import (
    AUDIO_CONSTANT,
    CONCEPTS,
    DIM,
    IMAGE_CONSTANT,
    concept_projections,
    concepts_hash,
    read_concepts,
)
from avloc.networks.lite0 import load_lite0
from avloc.networks.vggish import VGGish, load_vggish, log_mel_patches
from avloc.networks.yamnet import load_yamnet
from avloc.registry import StoreSpec
from avloc.store import Clip, Hints, Store
from avloc.teachers import Lite0Teacher, Teacher, VggishTeacher, YamnetTeacher
from avloc.transforms import MEL_RATE, log_mel, normalise_frames
from avloc.weights import LITE0, YAMNET, Located, locate
from tests.recipe_makers import SHARED, real, sounds
from tests.teacher_makers import RATE, SECONDS, make_store

CPU = torch.device("cpu")
NAMES = ("yamnet", "lite0")


@pytest.fixture(autouse=True)
def no_hash_in_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of Lite0's file contains its hash, which random weights cannot match."""
    monkeypatch.setattr("avloc.weights.lookup.hash_in_name", lambda _file: "")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("concepts") / "store", 5)


def teacher(name: str, weights: Path) -> Teacher:
    if name == "yamnet":
        return YamnetTeacher(StoreSpec(seconds=SECONDS, rate=RATE), locate(YAMNET, weights_dir=weights), CPU)
    return Lite0Teacher(locate(LITE0, weights_dir=weights), CPU)


def hints_of(tested: Teacher, store: Store) -> list[np.ndarray]:
    found = tested.hints([tested.read(store.read(clip_id)) for clip_id in store.ids])
    assert all(hint is not None for hint in found)
    return found  # type: ignore[return-value]


# --- the table


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


# --- the teachers


def unit_reference(strengths: list[float], *nothing: float) -> np.ndarray:
    whole = np.array([*strengths, *nothing])
    return whole / np.sqrt(sum(value**2 for value in whole))


def test_the_sound_teacher_against_a_slow_reference(store: Store, weights: Path) -> None:
    network = load_yamnet(YAMNET.under(weights))
    matrix, bias = network.head.weight.double().numpy(), network.head.bias.double().numpy()
    positive, zero = 0, 0
    for clip_id, hint in zip(store.ids, hints_of(teacher("yamnet", weights), store), strict=True):
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


def test_the_picture_teacher_against_a_slow_reference(store: Store, weights: Path) -> None:
    network = load_lite0(LITE0.under(weights))
    matrix, bias = network.head.weight.double().numpy(), network.head.bias.double().numpy()
    positive, zero = 0, 0
    counts = [max(1, len(concept.imagenet)) for concept in CONCEPTS]
    levels = [0.2 + 1.81 * norm.ppf(count / (count + 1)) for count in counts]
    for clip_id, hint in zip(store.ids, hints_of(teacher("lite0", weights), store), strict=True):
        picture = Image.fromarray(decode_picture(store.read(clip_id).picture)).resize((224, 224), Image.BICUBIC)
        frame = torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None]
        with torch.no_grad():
            features = network.trunk(normalise_frames(frame))[0].double().numpy()
        assert hint.shape == (DIM, 7, 7)
        for y, x in np.ndindex(7, 7):
            logits = matrix @ features[:, y, x] + bias
            logits = logits - sum(logits) / 1000
            best = [max((logits[number] for number in concept.imagenet), default=None) for concept in CONCEPTS]
            strengths = [
                0.0 if one is None else max(0.0, (one - level) / 2.5 - 1)
                for one, level in zip(best, levels, strict=True)
            ]
            np.testing.assert_allclose(hint[:, y, x], unit_reference(strengths, 16, 0), atol=1e-4)
            positive += sum(value > 0 for value in strengths)
            zero += sum(value == 0 for value in strengths)
    assert positive > 50
    assert zero > 50


@pytest.mark.parametrize("name", NAMES)
def test_hints_do_not_depend_on_the_batch(name: str, store: Store, weights: Path) -> None:
    tested = teacher(name, weights)
    material = [tested.read(store.read(clip_id)) for clip_id in store.ids]
    together = tested.hints(material)
    for other in ([tested.hints([one])[0] for one in material], tested.hints(material[::-1])[::-1]):
        for left, right in zip(together, other, strict=True):
            np.testing.assert_array_equal(left, right)  # bit for bit


@pytest.mark.parametrize("name", NAMES)
def test_stamps_name_what_changes_a_hint(name: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = teacher(name, weights).stamp
    shared = {"concepts": concepts_hash()}
    if name == "yamnet":
        assert stamp.settings == {**shared, "offset": 5.0, "nothing": 0.3, "rate": 16_000, "seconds": SECONDS}
        assert (set(stamp.weights), stamp.shape) == ({"yamnet_int8.tflite"}, (DIM,))
    else:
        assert stamp.settings == {**shared, "usual": [0.2, 1.81], "deviation": 2.5, "nothing": 16.0, "side": 224}
        assert (set(stamp.weights), stamp.shape) == ({"efficientnet-lite0-57934424.pth"}, (DIM, 7, 7))
    other = (replace(CONCEPTS[0], imagenet=CONCEPTS[0].imagenet[1:]), *CONCEPTS[1:])
    monkeypatch.setattr(concepts, "CONCEPTS", other)
    assert teacher(name, weights).stamp != stamp


def test_a_store_that_yamnet_cannot_use_is_refused(weights: Path) -> None:
    located = locate(YAMNET, weights_dir=weights)
    with pytest.raises(Refused, match="8000 Hz; YAMNet needs 16000 Hz") as caught:
        YamnetTeacher(StoreSpec(rate=8_000), located, CPU)
    assert "--rate 16000" in caught.value.hint
    with pytest.raises(Refused, match="too short for YAMNet"):
        YamnetTeacher(StoreSpec(seconds=0.02), located, CPU)


@pytest.mark.slow
def test_vggish_gives_one_vector_of_length_1(tmp_path: Path, store: Store) -> None:
    """No hint for zero embeddings, which the final ReLU can produce."""
    torch.manual_seed(0)
    network, path = VGGish(), tmp_path / "vggish.pth"
    torch.save(network.state_dict(), path)
    located, spec = Located(path=path, hashes={path.name: "0"}, verified=False), StoreSpec(seconds=SECONDS, rate=RATE)
    tested = VggishTeacher(spec, located, CPU)
    assert (tested.stamp.shape, tested.stamp.teacher) == ((128,), "vggish")
    for clip_id, hint in zip(store.ids, hints_of(tested, store), strict=True):
        waveform = torch.from_numpy(tested.read(store.read(clip_id)))[None]
        slow = network.embed(log_mel_patches(waveform, MEL_RATE))[0].mean(0).detach().numpy()
        assert np.allclose(hint, slow / np.linalg.norm(slow), atol=1e-4)
    network.embeddings[4].bias.data.fill_(-1e6)
    torch.save(network.state_dict(), path)
    zeros = VggishTeacher(spec, located, CPU)
    assert zeros.hints([zeros.read(store.read(store.ids[0]))]) == [None]
    with pytest.raises(Refused, match="8000 Hz; VGGish needs"):
        VggishTeacher(StoreSpec(rate=8_000), located, CPU)
    torch.save({}, path)
    with pytest.raises(WeightsError, match="does not hold the weights of VGGish"):
        load_vggish(path)


def test_a_damaged_picture_is_a_failed_clip(weights: Path) -> None:
    clip = Clip(id="x", picture=b"no picture", sound=np.zeros(9, np.int16), frame_hw=(9, 9))
    with pytest.raises(InputError, match="picture"):
        teacher("lite0", weights).read(clip)


# --- in `distill-cache`


def test_hints_of_concepts_in_a_store(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store", 5)
    options = DistillOptions(teachers=NAMES, weights_dir=weights, device="cpu", batch=2)
    report = distill_cache(store.folder, options)
    assert [(one.teacher, one.done, one.no_hint, one.failed) for one in report.teachers] == [
        ("yamnet", 5, 0, {}),
        ("lite0", 5, 0, {}),
    ]
    for name in NAMES:
        hints = Hints(store.folder, name)
        for clip_id, expected in zip(store.ids, hints_of(teacher(name, weights), store), strict=True):
            value = hints.read(clip_id)
            assert value is not None
            np.testing.assert_array_equal(value, expected.astype(np.float16))
    monkeypatch.setattr(concepts, "CONCEPTS", CONCEPTS[:-1])
    with pytest.raises(Refused, match="settings differ"):
        distill_cache(store.folder, options)


def test_teachers_of_concepts_run_by_name_only(tmp_path: Path) -> None:
    assert DistillOptions().teachers == ("panns", "detr")
    with pytest.raises(UsageError, match="--import-npy cannot import hints of lite0"):
        DistillOptions(teachers=("detr", "lite0"), import_npy=tmp_path)


@pytest.mark.usefixtures("offline")
def test_absent_weights_are_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 1, sources=False)
    with pytest.raises(WeightsError, match=r"yamnet\.safetensors") as caught:
        distill_cache(store.folder, DistillOptions(teachers=("yamnet",), device="cpu"))
    assert caught.value.exit_code == 4
    assert not list(store.folder.glob("hints-*"))


# --- with the published weights


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
