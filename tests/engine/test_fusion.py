"""Fusion of cells as the model's card asks for it, in `localize` and in `eval`."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.ndimage import gaussian_filter

import avloc
from avloc.checkpoint import load_model, save_model
from avloc.engine import Engine, HeatMaps, inference
from avloc.engine.fusion import CENTRE, OWN, AdaptiveWeights, Fusion, centre_map, fuse_cells, load_fusion
from avloc.errors import UsageError, WeightsError
from avloc.evaluate import EvalOptions, evaluate
from avloc.heatmap import heat_maps
from avloc.media.pictures import decode_picture, square
from avloc.metrics import ground_truth
from avloc.protocols import PROTOCOLS, Protocol
from avloc.registry import StoreSpec
from avloc.store import Clip, StoreHeader, StoreWriter
from avloc.transforms import int16_to_float, normalise_frames
from tests.program import ROOT
from tests.responsive_model import save_responsive

# --- weighted sums of cells --------------------------------------------------------------------------------------

GRIDS = hnp.arrays(np.float32, st.tuples(st.integers(2, 5), st.integers(2, 5)), elements=st.floats(-8, 8, width=16))


def stretched_reference(cells: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Cell by cell between the corners, then by its own minimum and maximum; flat is zero."""
    out = np.zeros(grid)
    for y in range(grid[0]):
        for x in range(grid[1]):
            v, u = (
                place * (size - 1) / (count - 1) for place, size, count in zip((y, x), cells.shape, grid, strict=True)
            )
            top, left = min(int(v), cells.shape[0] - 2), min(int(u), cells.shape[1] - 2)
            low, high = cells[top : top + 2, left : left + 2].astype(float)
            ends = [row[0] + (u - left) * (row[1] - row[0]) for row in (low, high)]
            out[y, x] = ends[0] + (v - top) * (ends[1] - ends[0])
    return np.zeros(grid) if cells.max() == cells.min() else (out - out.min()) / (out.max() - out.min())


@given(GRIDS, GRIDS, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_fused_cells_equal_their_definition(av, objects, weight):
    weights = {"av": weight, "object": 1 - weight}
    grid = (max(av.shape[0], objects.shape[0]), max(av.shape[1], objects.shape[1]))
    ours = fuse_cells({"av": av, "object": objects}, weights)
    assert (ours.dtype, ours.shape) == (np.float32, grid)
    reference = weight * stretched_reference(av, grid) + (1 - weight) * stretched_reference(objects, grid)
    np.testing.assert_allclose(ours, reference, atol=2e-3)


@given(GRIDS, st.integers(1, 50), st.integers(-20, 20))
@settings(max_examples=40, deadline=None)
def test_units_of_a_prior_do_not_matter(objects, scale, shift):
    av = np.arange(20, dtype=np.float32).reshape(4, 5)
    weights = {"av": 0.5, "object": 0.5}
    plain = fuse_cells({"av": av, "object": objects}, weights)
    np.testing.assert_allclose(plain, fuse_cells({"av": av, "object": scale * objects + shift}, weights), atol=2e-2)


def test_a_map_alone_is_itself_and_a_flat_one_counts_for_nothing():
    av = np.array([[3, 1], [2, 0]], np.float32)
    np.testing.assert_array_equal(fuse_cells({"av": av}, {"av": 0.3}), av)
    flat = np.full((1, 1), 7, np.float32)
    np.testing.assert_allclose(fuse_cells({"av": av, "detr": flat}, {"av": 0.5, "detr": 0.5}), av / 6, atol=1e-7)


# --- the model's own activation ------------------------------------------------------------------------------------

CARD = {"fusion": {"least": 0.25, "most": 0.75, "unsure": -0.5, "sure": 0.5}}


@given(peak=st.floats(-1, 1), least=st.floats(0, 1), more=st.floats(0, 1))
def test_the_weight_rises_with_the_peak_between_its_limits(peak, least, more):
    adaptive = AdaptiveWeights(least=least, most=least + more * (1 - least), unsure=0.2, sure=0.6)
    weights = adaptive.weights(np.array([[-1, peak]], np.float32))
    peak = float(np.float32(peak))
    reference = (
        least if peak <= 0.2 else adaptive.most if peak >= 0.6 else least + (peak - 0.2) / 0.4 * (adaptive.most - least)
    )
    assert weights["av"] == pytest.approx(reference, abs=1e-6)
    assert weights["av"] + weights[OWN] == pytest.approx(1)
    centred = AdaptiveWeights(least=least, most=adaptive.most, unsure=0.2, sure=0.6, centre=0.3)
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
def test_invalid_weights_are_usage_errors(fields):
    with pytest.raises(UsageError, match="impossible"):
        AdaptiveWeights(**fields)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save_responsive(tmp_path_factory.mktemp("own") / "plain.safetensors")


@pytest.fixture(scope="module")
def carded(tmp_path_factory):
    return save_responsive(tmp_path_factory.mktemp("own") / "carded.safetensors", **CARD)


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
        activation = engine.model.imgnet(normalise_frames(small)).features.abs().mean(1)[0].numpy()
    share = 0.25 + min(1, max(0, float(result.similarity.max()) + 0.5)) * 0.5
    reference = share * scaled(result.similarity) + (1 - share) * scaled(activation)
    np.testing.assert_allclose(result.cells, reference, atol=1e-5)
    assert "0.25-0.75 av + rest own" in model.protocol
    cells, silent = model.cells_at(frame, waveform, 22_050)
    np.testing.assert_allclose(cells, result.cells, atol=1e-6)
    assert not silent


def gauss_reference(cells, deviation):
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
def fused_model(carded, tmp_path):
    """A model file with changed settings in its card's fusion."""

    def save(**changes):
        model, path = load_model(carded), tmp_path / "fused_model.safetensors"
        save_model(path, model.config, model.state, {"fusion": {**CARD["fusion"], **changes}})
        return path

    return save


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(-1, 6, width=32)),
    st.floats(0.05, 5),
)
def test_smooth_maps_are_those_of_scipy(cells, deviation):
    smooth = AdaptiveWeights(smooth=deviation).smoothed(cells)
    assert smooth.dtype == np.float32
    np.testing.assert_allclose(smooth, gaussian_filter(cells, deviation, mode="nearest"), rtol=1e-6, atol=1e-7)


def test_a_card_can_set_the_smoothing(carded, fused_model, scene):
    loaded = avloc.load(fused_model(smooth=0.7))
    sharp, result = avloc.load(carded).localize(*scene, 22_050), loaded.localize(*scene, 22_050)
    assert loaded.protocol.endswith("0.25-0.75 av + rest own, smoothed by 0.7 cells")
    np.testing.assert_array_equal(result.similarity, sharp.similarity)
    fixed = avloc.load(fused_model(smooth=0.7), weights={"av": 1.0, "own": 3.0})
    assert fixed.protocol.endswith("0.25 av + rest own, smoothed by 0.7 cells")
    share = 0.25 + min(1, max(0, float(sharp.similarity.max()) + 0.5)) * 0.5
    activation = (sharp.cells - share * scaled(sharp.similarity)) / (1 - share)
    references = [scaled(gauss_reference(cells, 0.7)) for cells in (sharp.similarity, activation)]
    np.testing.assert_allclose(result.cells, share * references[0] + (1 - share) * references[1], atol=1e-4)


@given(st.integers(1, 12), st.integers(1, 12))
def test_the_centre_map_falls_from_the_middle_to_the_corners(rows, columns):
    near = centre_map((rows, columns))
    for y, x in np.ndindex(rows, columns):
        down, across = (0 if size == 1 else 2 * at / (size - 1) - 1 for at, size in ((y, rows), (x, columns)))
        assert near[y, x] == pytest.approx(1 - np.sqrt(down**2 + across**2) / np.sqrt(2), abs=1e-6)


def test_a_card_can_set_the_weight_of_the_centre(carded, fused_model, scene):
    loaded = avloc.load(fused_model(centre=0.2))
    plain, result = avloc.load(carded).localize(*scene, 22_050), loaded.localize(*scene, 22_050)
    assert loaded.protocol.endswith("0.8 (0.25-0.75 av + rest own) + 0.2 centre")
    np.testing.assert_allclose(result.cells, 0.8 * plain.cells + 0.2 * scaled(centre_map(plain.cells.shape)), atol=1e-5)
    fixed = avloc.load(fused_model(centre=0.2), weights={"av": 1.0, "own": 3.0})
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


def test_a_card_can_set_the_resize_to_cells_as_areas(plain, tmp_path, scene):
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


# --- the same map in `localize` and in `eval` -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_and_store(tmp_path_factory):
    """A square picture of the protocol's side and 3 s of sound at the shipped model's rate, and a store of them."""
    picture = Image.open(ROOT / "tests" / "data" / "frame.jpg").convert("RGB").resize((Protocol.side, Protocol.side))
    jpeg = io.BytesIO()
    picture.save(jpeg, format="JPEG")
    samples = np.random.default_rng(1).standard_normal(48_000).cumsum()
    sound = np.round(32_000 * samples / np.abs(samples).max()).astype(np.int16)
    boxes, size = np.array([[0.2, 0.3, 0.7, 0.9]]), (Protocol.side, Protocol.side)
    clip = Clip(id="clip", picture=jpeg.getvalue(), sound=sound, frame_hw=size, boxes=boxes)
    header = StoreHeader(spec=StoreSpec(seconds=3.0, rate=16_000), kind="test", expected=("clip",))
    folder = tmp_path_factory.mktemp("shipped") / "store"
    with StoreWriter(folder, header) as writer:
        writer.add(clip)
    return clip, folder


def shipped_by_eval(store):
    """Report and cells of the model in the package."""
    options = EvalOptions(store=store, maps=("shipped", "av"), device="cpu", workers=0)
    evaluation = evaluate(options)
    return evaluation.reports[0], evaluation.cells[0][0]


def test_localize_and_eval_have_the_same_fused_cells_and_heat_map(clip_and_store, monkeypatch):
    clip, store = clip_and_store
    waveform = int16_to_float(torch.from_numpy(clip.sound)).numpy()
    model = avloc.load(device="cpu")
    result = model.localize(decode_picture(clip.picture), waveform, 16_000)
    report, cells = shipped_by_eval(store)
    np.testing.assert_allclose(cells.maps["shipped"], result.cells, atol=1e-4)  # kernels round by batch size
    monkeypatch.setattr(inference, "BLOCK", 1)
    _, cells = shipped_by_eval(store)
    np.testing.assert_array_equal(cells.maps["av"], result.similarity)
    np.testing.assert_array_equal(cells.maps["shipped"], result.cells)
    assert not np.array_equal(cells.maps["shipped"], cells.maps["av"]), "something was fused"
    heats = HeatMaps([cells.maps], cells.shipped_resize)
    for protocol in PROTOCOLS.values():
        np.testing.assert_array_equal(heats.heat({"shipped": 1.0}, protocol)[0], result.heatmap)
    av_cells = torch.from_numpy(result.similarity)[None]
    np.testing.assert_array_equal(heats.heat({"av": 1.0}, Protocol()), heat_maps(av_cells, (224, 224)))
    assert report.shipped == {"resize": "bilinear-halfpixel", "fusion": model.protocol.split("/", 3)[3]}
    assert model.protocol.split("/")[1] == report.shipped["resize"]
    truth = ground_truth(clip.boxes, "union", 224)
    mask = result.heatmap >= np.sort(result.heatmap, axis=None)[224 * 224 // 2]
    inside = (mask & (truth > 0)).sum() / (mask | (truth > 0)).sum()
    assert report.clips[0].scores["shipped"].ciou == pytest.approx(inside, abs=1e-3)
