"""Projections: their start, what they learn, what they depend on, and the model that is written."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avloc.checkpoint import load_model
from avloc.engine import Engine
from avloc.networks.concepts import CONCEPTS, DIM, concept_projections
from tests.recipe import fit as module
from tests.recipe.features import Networks
from tests.recipe.fit import fit, fitted, write_model
from tests.recipe.fit_makers import SMALL, SOUND_CLASSES, audio, images, make_material, write_run
from tests.recipe.projections import UNNAMED_NORM, Projections
from tests.recipe.sounds import RATE


@pytest.fixture(scope="module")
def material():
    return make_material()


def weights(projections):
    return torch.cat([value.flatten() for value in projections.folded().values()])


def test_named_dimensions_start_as_the_concepts(material):
    projections = Projections(7, material.sounds.features[:, 0])
    image, image_bias, sound, sound_bias = concept_projections()
    rng = np.random.default_rng(1)
    cells, sounds = images([0, 1], rng).float(), audio([0, 5], rng).float()
    found = projections.image(projections.image_inputs(cells)), projections.audio(projections.audio_inputs(sounds))
    expected = F.linear(cells, image.flatten(1), image_bias), F.linear(sounds, sound, sound_bias)
    for one, other in zip(found, expected, strict=True):
        assert one.shape[-1] == DIM + 7
        assert F.cosine_similarity(one[..., :DIM], other, dim=-1).min() > 1 - 1e-5


def test_named_dimensions_start_as_those_of_a_run(material):
    torch.manual_seed(0)
    run = Projections(0, material.sounds.features[:, 0]).folded()
    run = {name: value + 0.1 * torch.randn_like(value) for name, value in run.items()}
    pictures, sounds = material.pictures.features, material.sounds.features[:, 0]
    projections = Projections(7, sounds).requires_grad_(requires_grad=False)
    projections.start_at(run, pictures, sounds)
    found = (
        projections.image(projections.image_inputs(pictures.float())),
        projections.audio(projections.audio_inputs(sounds.float())),
    )
    expected = (
        F.linear(pictures.float(), run["img_proj.weight"].flatten(1), run["img_proj.bias"]),
        F.linear(sounds.float(), run["aud_proj.weight"], run["aud_proj.bias"]),
    )
    for one, other in zip(found, expected, strict=True):
        assert F.cosine_similarity(one[..., :DIM], other, dim=-1).min() > 1 - 1e-4
        assert float(one[..., :DIM].norm(dim=-1).mean()) == pytest.approx(1, abs=1e-4)
        assert float(one[..., DIM:].norm(dim=-1).mean()) == pytest.approx(UNNAMED_NORM, abs=1e-4)


def test_the_start_of_the_run_is_kept_by_its_share(material):
    run = Projections(0, material.sounds.features[:, 0]).folded()
    from_run = replace(material, start=run)
    first, mean, last = (weights(fit(from_run, [], 0, replace(SMALL, keep=keep))) for keep in (1.0, 0.25, 0.0))
    assert not torch.allclose(first, last, atol=1e-3)
    assert torch.allclose(mean, 0.25 * first + 0.75 * last, atol=1e-4)


def test_peaks_are_the_largest_cosines_of_any_cell(material):
    torch.manual_seed(0)
    projections = Projections(3, material.sounds.features[:, 0]).requires_grad_(requires_grad=False)
    pictures, sounds = material.pictures.features[:3], material.sounds.features[:4, 1]
    peaks = projections.peaks(pictures, sounds)
    for n, picture in enumerate(pictures.float()):
        for m, sound in enumerate(sounds.float()):
            vector = projections.audio(projections.audio_inputs(sound))
            cosines = [F.cosine_similarity(projections.image(cell / 3), vector, dim=0) for cell in picture]
            assert peaks[n, m] == pytest.approx(float(max(cosines)), abs=1e-5)


def test_the_same_seed_gives_the_same_projections(material):
    state = torch.get_rng_state()
    one, same, other = (weights(fit(material, [0, 1, 4], seed, SMALL)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's draws change


def test_clips_that_are_left_out_have_no_influence(material):
    used = [0, 1, 4, 5]
    changed = material.real.cells.clone(), material.real.features.clone(), material.real.sounds.clone()
    for tensor in changed:
        kept = tensor[used].clone()
        tensor[:] = 1
        tensor[used] = kept
    cells, features, sounds = changed
    other = replace(material, real=replace(material.real, cells=cells, features=features, sounds=sounds))
    assert torch.equal(weights(fit(material, used, 0, SMALL)), weights(fit(other, used, 0, SMALL)))
    assert not torch.equal(weights(fit(material, [*used, 2], 0, SMALL)), weights(fit(other, [*used, 2], 0, SMALL)))


def test_pairs_and_real_clips_and_boxes_are_learned(material):
    settings = replace(SMALL, steps=160, batch=24, learning_rate=0.003, dropout=0.3)
    projections = fit(material, range(len(material.real.clips)), 0, settings)
    real, firsts = material.real, range(0, len(material.real.clips), 2)
    peaks = projections.peaks(real.features[firsts], real.sounds[firsts])
    assert (peaks.argmax(1) == torch.arange(len(firsts))).all()
    dogs = projections.peaks(material.pictures.features[:2], material.sounds.features[:2, 0])  # a dog and a cat
    assert (dogs.argmax(1) == torch.arange(2)).all()
    vector = F.normalize(projections.audio(projections.audio_inputs(real.sounds[:1].float())), dim=1)
    cosines = projections.cosines(real.cells[:1], vector)[0, 0].unflatten(0, (14, 14))
    assert cosines[:7, :7].mean() > cosines[7:, 7:].mean() + 0.1


def test_without_real_clips_pairs_by_class_are_learned():
    material = make_material(clips=0)
    projections = fit(material, [], 0, replace(SMALL, steps=40, batch=24, learning_rate=0.003, dropout=0.3))
    dogs = projections.peaks(material.pictures.features[:2], material.sounds.features[:2, 0])
    assert (dogs.argmax(1) == torch.arange(2)).all()


def test_hints_keep_the_named_dimensions(material):
    def distance(hint):
        projections = fit(material, [], 0, replace(SMALL, steps=20, hint=hint))
        image, image_bias, *_ = concept_projections()
        cells = material.pictures.features.float()
        out = projections.image(projections.image_inputs(cells))[..., :DIM]
        return 1 - F.cosine_similarity(out, F.linear(cells, image.flatten(1), image_bias), dim=-1).mean()

    assert distance(50.0) < distance(0.0)


def test_usual_peaks_are_of_unit_vectors(material):
    projections = fit(material, [], 0, replace(SMALL, steps=1))
    pictures = material.pictures.features[:3]
    squares = np.zeros(len(CONCEPTS))
    for cells in pictures.float():
        unit = F.normalize(projections.image(projections.image_inputs(cells)), dim=1)
        squares += unit[:, : len(CONCEPTS)].amax(0).clamp(min=0).numpy() ** 2 / 3
    assert projections.usual_peaks(pictures) == pytest.approx(np.sqrt(squares), abs=1e-4)


def test_the_written_model_gives_the_cosines_of_the_projections(tmp_path):
    run = load_model(write_run(tmp_path / "run"))
    rng = np.random.default_rng(2)
    frames = [rng.integers(0, 256, (448, 448, 3), dtype=np.uint8) for _ in range(2)]
    waveforms = [(0.3 * rng.standard_normal(3 * RATE)).astype(np.float32) for _ in range(2)]
    networks = Networks(run, "fp32")
    cells, sounds = networks.image(frames).half(), networks.audio(waveforms).half()
    torch.manual_seed(0)
    projections = Projections(5, torch.cat([sounds, audio([0, 1, 2], rng)])).requires_grad_(requires_grad=False)
    write_model(run, projections, tmp_path / "fit" / "model.safetensors", {"fit": 1})
    written = load_model(tmp_path / "fit")
    engine = Engine.from_file(written, torch.device("cpu"))
    vector = F.normalize(projections.audio(projections.audio_inputs(sounds.float())), dim=1)
    expected = projections.cosines(cells, vector)
    for n, frame in enumerate(frames):
        pixels = torch.from_numpy(frame).permute(2, 0, 1)[None]
        for m, waveform in enumerate(waveforms):
            maps = engine.predict(pixels, *resampled(waveform, networks))[0]
            assert maps.flatten().numpy() == pytest.approx(expected[n, m].numpy(), abs=2e-3)
    assert projections.peaks(cells, sounds).numpy() == pytest.approx(expected.amax(2).numpy(), abs=1e-5)
    assert written.config == replace(run.config, dim=DIM + 5)
    assert written.card["concepts"] == [concept.name for concept in CONCEPTS]
    assert (written.card["unnamed"], written.card["fit"], written.card["epoch"]) == (7, 1, 3)


def resampled(waveform, networks):
    from avloc.media.audio import cut_window

    window = cut_window(waveform, RATE, seconds=3.0, rate=16_000)
    return torch.from_numpy(window.waveform)[None], window.rate


def test_a_fitted_model_is_not_fitted_again(tmp_path, monkeypatch, material):
    write_run(tmp_path / "run")
    calls = []

    def counted(given, clips, seed):
        calls.append((list(clips), seed))
        return fit(given, clips, seed, SMALL)

    monkeypatch.setattr(module, "load_material", lambda *where, open_only: material)
    monkeypatch.setattr(module, "fit", counted)
    for _ in range(2):
        assert fitted(tmp_path, tmp_path, tmp_path, seed=4) == tmp_path / "fit"
    assert calls == [(list(range(16)), 4)]
    made = load_model(tmp_path / "fit")
    assert made.cohort["audio"].shape == (8 + len(SOUND_CLASSES), made.config.dim)
    record = made.card["fit"]
    assert record["settings"] == asdict(module.read_settings())
    fitted(tmp_path, tmp_path, tmp_path, seed=4, open_only=True)
    assert calls[1:] == [([], 4)]
    assert load_model(tmp_path / "fit").cohort == {}  # recorded clips have no part in it
