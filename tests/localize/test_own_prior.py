"""The model's own prior: a weight that depends on the peak similarity, and an activation from the same forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter

import avloc
from avloc.checkpoint import load_model, save_model
from avloc.engine import Engine
from avloc.errors import UsageError, WeightsError
from avloc.localize.fusion import CENTRE, OWN, Fusion, Trust, load_fusion, nearness
from avloc.media import square
from avloc.transforms import normalise_frames
from tests.responsive_model import save_listening

CARD = {"fusion": {"least": 0.25, "most": 0.75, "unsure": -0.5, "sure": 0.5}}


@given(peak=st.floats(-1, 1), least=st.floats(0, 1), more=st.floats(0, 1))
def test_the_weight_rises_with_the_peak_between_its_limits(peak, least, more):
    trust = Trust(least=least, most=least + more * (1 - least), unsure=0.2, sure=0.6)
    weights = trust.weights(np.array([[-1, peak]], np.float32))
    peak = float(np.float32(peak))
    twin = least if peak <= 0.2 else trust.most if peak >= 0.6 else least + (peak - 0.2) / 0.4 * (trust.most - least)
    assert weights["av"] == pytest.approx(twin, abs=1e-6)
    assert weights["av"] + weights[OWN] == pytest.approx(1)
    centred = Trust(least=least, most=trust.most, unsure=0.2, sure=0.6, centre=0.3)
    shares = centred.weights(np.array([[-1, peak]], np.float32))
    assert shares == pytest.approx({"av": 0.7 * weights["av"], OWN: 0.7 * weights[OWN], CENTRE: 0.3})


@pytest.mark.parametrize(
    "fields",
    [
        {"least": 0.7, "most": 0.6},
        {"least": -0.1},
        {"most": 1.1},
        {"unsure": 0.5, "sure": 0.5},
        {"sure": 1.5},
        {"smooth": -1},
        {"smooth": 6},
        {"centre": 1.1},
    ],
)
def test_weights_that_cannot_be_meant(fields):
    with pytest.raises(UsageError, match="impossible"):
        Trust(**fields)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save_listening(tmp_path_factory.mktemp("own") / "plain.safetensors")


@pytest.fixture(scope="module")
def carded(tmp_path_factory):
    return save_listening(tmp_path_factory.mktemp("own") / "carded.safetensors", **CARD)


@pytest.fixture(scope="module")
def scene():
    draws = np.random.default_rng(3)
    return draws.integers(0, 256, (48, 64, 3), np.uint8), draws.uniform(-0.5, 0.5, 66_150).astype(np.float32)


def scaled(cells):
    return (cells - cells.min()) / (cells.max() - cells.min())


def test_the_card_decides_and_the_activation_is_the_trunks(plain, carded, scene):
    frame, waveform = scene
    model, result = avloc.load(carded), avloc.load(carded).localize(*scene, 22_050)
    engine = Engine.from_file(load_model(plain), torch.device("cpu"))
    small = torch.from_numpy(square(frame, engine.config.frame).copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        activation = engine.model.imgnet(normalise_frames(small)).abs().mean(1)[0].numpy()
    share = 0.25 + min(1, max(0, float(result.similarity.max()) + 0.5)) * 0.5
    twin = share * scaled(result.similarity) + (1 - share) * scaled(activation)
    np.testing.assert_allclose(result.cells, twin, atol=1e-5)
    assert "0.25-0.75 av + rest own" in model.protocol
    cells, silent = model.cells_at(frame, waveform, 22_050)
    np.testing.assert_allclose(cells, result.cells, atol=1e-6)
    assert not silent


def gauss_twin(cells, deviation):
    """A weighted mean over cells up to four deviations away; borders are padded with the nearest cell."""
    reach, out = int(4 * deviation + 0.5), np.zeros_like(cells, np.float64)
    weights = {step: np.exp(-0.5 * (step / deviation) ** 2) for step in range(-reach, reach + 1)}
    total, (rows, columns) = sum(weights.values()), cells.shape
    for y, x in np.ndindex(rows, columns):
        for dy, down in weights.items():
            for dx, across in weights.items():
                near = cells[min(max(y + dy, 0), rows - 1), min(max(x + dx, 0), columns - 1)]
                out[y, x] += down * across * near / total**2
    return out


@pytest.fixture
def asking(carded, tmp_path):
    """A model file with changed settings in its card's fusion."""

    def save(**wishes):
        model, path = load_model(carded), tmp_path / "asking.safetensors"
        save_model(path, model.config, model.state, {"fusion": {**CARD["fusion"], **wishes}})
        return path

    return save


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(-1, 6, width=32)),
    st.floats(0.05, 5),
)
def test_smooth_maps_are_those_of_scipy(cells, deviation):
    smooth = Trust(smooth=deviation).smoothed(cells)
    assert smooth.dtype == np.float32
    np.testing.assert_allclose(smooth, gaussian_filter(cells, deviation, mode="nearest"), rtol=1e-6, atol=1e-7)


def test_a_card_can_ask_for_smooth_maps(carded, asking, scene):
    loaded = avloc.load(asking(smooth=0.7))
    sharp, result = avloc.load(carded).localize(*scene, 22_050), loaded.localize(*scene, 22_050)
    assert loaded.protocol.endswith("0.25-0.75 av + rest own, smoothed by 0.7 cells")
    np.testing.assert_array_equal(result.similarity, sharp.similarity)
    fixed = avloc.load(asking(smooth=0.7), weights={"av": 1.0, "own": 3.0})
    assert fixed.protocol.endswith("0.25 av + rest own, smoothed by 0.7 cells")
    share = 0.25 + min(1, max(0, float(sharp.similarity.max()) + 0.5)) * 0.5
    activation = (sharp.cells - share * scaled(sharp.similarity)) / (1 - share)
    twins = [scaled(gauss_twin(cells, 0.7)) for cells in (sharp.similarity, activation)]
    np.testing.assert_allclose(result.cells, share * twins[0] + (1 - share) * twins[1], atol=1e-4)


@given(st.integers(1, 12), st.integers(1, 12))
def test_nearness_falls_from_the_middle_to_the_corners(rows, columns):
    near = nearness((rows, columns))
    for y, x in np.ndindex(rows, columns):
        down, across = (0 if size == 1 else 2 * at / (size - 1) - 1 for at, size in ((y, rows), (x, columns)))
        assert near[y, x] == pytest.approx(1 - np.sqrt(down**2 + across**2) / np.sqrt(2), abs=1e-6)


def test_a_card_can_ask_for_the_centre(carded, asking, scene):
    loaded = avloc.load(asking(centre=0.2))
    plain, result = avloc.load(carded).localize(*scene, 22_050), loaded.localize(*scene, 22_050)
    assert loaded.protocol.endswith("0.8 (0.25-0.75 av + rest own) + 0.2 centre")
    np.testing.assert_allclose(result.cells, 0.8 * plain.cells + 0.2 * scaled(nearness(plain.cells.shape)), atol=1e-5)
    fixed = avloc.load(asking(centre=0.2), weights={"av": 1.0, "own": 3.0})
    assert fixed.protocol.endswith("0.25 av + rest own")


def test_the_user_decides_over_the_card(plain, carded, scene):
    alone = avloc.load(carded, prior="none").localize(*scene, 22_050)
    np.testing.assert_array_equal(alone.cells, avloc.load(plain).localize(*scene, 22_050).cells)
    fixed = avloc.load(plain, prior="own", weights={"av": 1.0, "own": 3.0})
    assert "0.25 av + rest own" in fixed.protocol
    with pytest.raises(UsageError, match="the maps are av, own"):
        avloc.load(plain, prior="own", weights={"av": 1.0})


@pytest.mark.parametrize("entry", [{"least": 2.0}, {"most": "all"}, {"colour": 1.0}, 5, "own"])
def test_a_card_with_an_unusable_fusion_is_refused(plain, tmp_path, entry):
    model = load_model(plain)
    save_model(tmp_path / "bad.safetensors", model.config, model.state, {"fusion": entry})
    with pytest.raises(WeightsError, match="unusable fusion"):
        avloc.load(tmp_path / "bad.safetensors")


def test_a_card_can_say_that_cells_are_areas(plain, tmp_path, scene):
    model, path = load_model(plain), tmp_path / "areas.safetensors"
    save_model(path, model.config, model.state, {"resize": "bilinear-halfpixel"})
    loaded = avloc.load(path)
    result, as_published = loaded.localize(*scene, 22_050), avloc.load(plain).localize(*scene, 22_050)
    assert loaded.protocol == "avloc/bilinear-halfpixel/fp32"
    assert as_published.protocol == "avloc/fp32"
    np.testing.assert_array_equal(result.cells, as_published.cells)
    cells, size = torch.from_numpy(result.cells)[None, None], result.frame.shape[:2]
    for one, corners in ((result, False), (as_published, True)):
        grown = torch.nn.functional.interpolate(cells, size=size, mode="bilinear", align_corners=corners)[0, 0].numpy()
        np.testing.assert_allclose(one.heatmap, scaled(grown), atol=1e-5)
    assert result.sound_effect != as_published.sound_effect, "judged by the maps that are shown"


@pytest.mark.parametrize(("how", "corners"), [("bilinear-halfpixel", False), ("bilinear-corners", True)])
def test_cells_of_a_coarser_prior_lie_as_the_card_says(how, corners):
    draws = np.random.default_rng(0)
    prior, similarity = draws.random((7, 7), np.float32), draws.random((14, 14), np.float32)
    cells = Fusion(weights={"av": 0.75, "object": 0.25}, resize=how).cells(similarity, {"object": prior})
    grown = torch.nn.functional.interpolate(
        torch.from_numpy(prior)[None, None], size=(14, 14), mode="bilinear", align_corners=corners
    )[0, 0].numpy()
    np.testing.assert_allclose(cells, 0.75 * scaled(similarity) + 0.25 * scaled(grown), atol=1e-6)


def test_a_prior_by_name_lies_as_the_card_says():
    for prior in ("own", "none"):
        fusion = load_fusion(prior, None, {"resize": "bilinear-halfpixel"}, None, torch.device("cpu"))
        assert fusion.resize == "bilinear-halfpixel"


@pytest.mark.parametrize("entry", ["areas", "", None, 5, ["bilinear-halfpixel"]])
def test_a_card_with_an_unusable_resize_is_refused(plain, tmp_path, entry):
    model = load_model(plain)
    save_model(tmp_path / "bad.safetensors", model.config, model.state, {"resize": entry})
    with pytest.raises(WeightsError, match="unusable resize"):
        avloc.load(tmp_path / "bad.safetensors")
