"""`import avloc` as a library: contents of results, results of videos, errors of invalid inputs."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
import torch.nn.functional as F
from PIL import Image

import avloc
from avloc.checkpoint import load_model, save_model
from avloc.config import ModelConfig
from avloc.engine.fusion import fuse_cells, load_fusion
from avloc.errors import InputError, UsageError, WeightsAbsent, WeightsError
from avloc.localize import Localization, LocalizeOptions, localize, parse_style, parse_weights
from avloc.localize.style import Style
from avloc.media.audio import read_sound
from avloc.media.video_frames import read_frame
from avloc.media.video_stream import stream_frames
from avloc.networks.detr import stretched
from avloc.priors import DetrPrior
from tests import pages
from tests.media_makers import disc, grey_ramp, make_sound, make_video, tone
from tests.program import ROOT
from tests.responsive_model import save_responsive
from tests.small_models import SMALL, save_small
from tests.teacher_makers import saved_teachers

RATE = 22_050
FRAME = disc((64, 48), (0.3, 0.5))
WAVE = tone(3, RATE)
PAGE = pages.text("localize")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_responsive(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def small(model) -> avloc.Model:
    return avloc.load(model, device="cpu")


def chirp(seconds: float, rate: int) -> np.ndarray:
    """[samples] with a pitch that changes over time."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 + 150 * t) * t)).astype(np.float32)


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Ten seconds without any repeated frame or sound."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return make_video(path, seconds=10, fps=5, frame_fn=textured, sound=chirp(10, RATE), rate=RATE)


def textured(time_s: float) -> np.ndarray:
    random = np.random.default_rng(round(5 * time_s))
    return np.kron(random.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))


def same(one: avloc.Result, other: avloc.Result) -> None:
    """All but the time it took."""
    for name in ("frame", "similarity", "cells", "heatmap"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    lines = [{**result.as_json(), "seconds": None} for result in (one, other)]
    assert lines[0] == lines[1]


# --- load -------------------------------------------------------------------------------------------------------


def test_importing_avloc_loads_nothing_heavy():
    code = "import sys, avloc; dir(avloc); print(sorted({'torch', 'numpy', 'av', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_public_names_of_the_library():
    assert {"Model", "Result", "load", "__version__"} <= set(dir(avloc))
    assert avloc.Result.__name__ == "Result"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        avloc.nonsense  # noqa: B018 (the access is the test)


def test_models_load_from_a_file_a_run_folder_or_the_package(model, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(model.read_bytes())
    by_file, by_text, by_folder = (avloc.load(where) for where in (model, str(model), tmp_path / "run"))
    results = [one.localize(FRAME, tone(3, RATE), RATE) for one in (by_file, by_text, by_folder)]
    same(results[0], results[1])
    np.testing.assert_array_equal(results[0].heatmap, results[2].heatmap)
    assert (by_file.name, by_file.seconds, by_file.rate, by_file.card) == ("small", 3.0, RATE, {"name": "small"})
    assert avloc.load().name


def test_errors_of_loading(model, tmp_path, offline):
    (tmp_path / "bad.safetensors").write_bytes(b"damaged")
    for arguments, kind, words in (
        ({"path": "absent.safetensors"}, UsageError, "no model at absent.safetensors"),
        ({"path": tmp_path / "bad.safetensors"}, WeightsError, "bad.safetensors cannot be read"),
        ({"device": "abacus"}, UsageError, "abacus is not usable here"),
        ({"precision": "fp8"}, UsageError, "precision = 'fp8' is impossible"),
        ({"prior": "nonsense"}, UsageError, "unknown object prior 'nonsense'"),
        ({"prior": "resnet18,vgg16"}, UsageError, "valid are own, none, one network, detr, or the last two"),
        ({"prior": "resnet18"}, WeightsAbsent, "resnet18"),
        ({"weights": {"object": 1.0}}, UsageError, "names object; the maps are av"),
        ({"weights": {"av": 0.0}}, UsageError, "not all 0"),
        ({"weights": {"av": -1.0}}, UsageError, "numbers of 0 or more"),
    ):
        with pytest.raises(kind, match=words):
            avloc.load(**{"path": model, **arguments})


def test_the_library_example_of_the_readme_runs(film, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holiday.mp4").symlink_to(film)
    Image.fromarray(FRAME).save("photo.jpg")
    soundfile.write("bark.wav", np.stack([WAVE, WAVE], 1), RATE)
    names: dict[str, object] = {}
    exec(pages.block(pages.README.read_text(encoding="utf-8"), "the library"), names)
    assert isinstance(names["result"], avloc.Result)
    assert len(capfd.readouterr().out.splitlines()) == 20


def test_the_page_names_the_fields_of_results_and_styles():
    public = [name for name in dir(avloc.Result) if not name.startswith("_")]
    fields = [field.name for kind in (avloc.Result, Style) for field in dataclasses.fields(kind)]
    assert [name for name in (*fields, *public) if not re.search(rf"`{name}(\(\w*\))?`", PAGE)] == []
    section = PAGE.partition("## Overlay style\n")[2].partition("\n## ")[0]
    keys = re.findall(r"^\| `(\w+)` \|.*\| `(.+)` \|$", section, re.MULTILINE)
    assert parse_style([f"{key}={value}" for key, value in keys]) == Style()
    assert [key for key, _ in keys] == [field.name for field in dataclasses.fields(Style)]


# --- one frame and one sound ------------------------------------------------------------------------------------


def test_library_and_command_have_equal_results(small, model, film):
    options = LocalizeOptions(inputs=(str(film),), model=model, device="cpu", as_json=True)
    (commanded,) = [one.result for one in localize(options) if isinstance(one, Localization)]
    sound = read_sound(film, seconds=3, rate=RATE, centre_s=5.0)
    result = small.localize(read_frame(film)[0], sound.waveform, RATE)
    for name in ("frame", "similarity", "cells", "heatmap"):
        np.testing.assert_array_equal(getattr(result, name), getattr(commanded, name))
    assert (result.judgement, result.sound_effect, result.peak_xy) == (
        *(commanded.judgement, commanded.sound_effect, commanded.peak_xy),
    )


def test_contents_of_a_result(small):
    result = small.localize(FRAME, tone(3, RATE), RATE)
    assert (result.heatmap.dtype, result.heatmap.shape) == (np.float32, (48, 64))
    assert (result.heatmap.min(), result.heatmap.max()) == (0.0, 1.0)
    assert (result.similarity.dtype, result.similarity.ndim) == (np.float32, 2)
    np.testing.assert_array_equal(result.cells, result.similarity, "without a prior nothing is fused")
    grown = F.interpolate(torch.from_numpy(result.cells)[None, None], (48, 64), mode="bilinear", align_corners=True)
    reference = ((grown - grown.min()) / (grown.max() - grown.min()))[0, 0].numpy()
    np.testing.assert_allclose(result.heatmap, reference, atol=1e-6)
    x, y = result.peak_xy
    assert result.heatmap[y, x] == 1.0
    assert result.peak_similarity == result.similarity.max()
    assert result.mean_similarity == pytest.approx(result.similarity.mean())
    assert (result.silent, result.time_s, result.window_s) == (False, 0.0, (0.0, 3.0))
    assert result.as_json()["frame_hw"] == [48, 64]


def test_cells_at_equals_the_cells_of_localize(small):
    for wave in (tone(3, RATE), tone(1, RATE), chirp(5, RATE)):
        cells, is_silent = small.cells_at(FRAME, wave, RATE)
        np.testing.assert_array_equal(cells, small.localize(FRAME, wave, RATE).cells)
        assert not is_silent
    assert small.cells_at(FRAME, np.zeros(3 * RATE, np.float32), RATE)[1]


def test_silence_has_a_plain_frame_and_no_peak(small):
    result = small.localize(FRAME, np.zeros(3 * RATE, np.float32), RATE)
    assert (result.silent, result.verdict, result.verdict.sentence) == (True, "silent", "silent: no source")
    assert not result.heatmap.any()
    assert (result.peak_xy, result.box_xyxy, result.peak_similarity, result.mean_similarity) == (None,) * 4
    plain = result.overlay(Style(caption=False))
    np.testing.assert_array_equal(plain, FRAME)
    assert (result.overlay() != plain).any(), "a caption"


def test_notebooks_display_the_overlay(small, capfd):
    result = small.localize(FRAME, tone(3, RATE), RATE)
    shown = np.asarray(Image.open(io.BytesIO(result._repr_png_())))
    np.testing.assert_array_equal(shown, result.overlay())
    np.testing.assert_array_equal(shown, result.overlay(Style()))
    assert (result.overlay(Style(peak=False, contour=0.0)) != shown).any()
    assert capfd.readouterr() == ("", ""), "nothing is printed"


def test_long_sounds_are_cropped_to_their_middle_and_short_ones_tiled(small):
    long = chirp(7, RATE)
    same_sound = small.localize(FRAME, long[2 * RATE : 5 * RATE], RATE)
    np.testing.assert_array_equal(small.localize(FRAME, long, RATE).cells, same_sound.cells)
    assert small.localize(FRAME, long, RATE).window_s == (2.0, 5.0)
    short = chirp(1, RATE)
    np.testing.assert_array_equal(
        small.localize(FRAME, short, RATE).cells, small.localize(FRAME, np.tile(short, 3), RATE).cells
    )


def test_another_rate_is_resampled(small):
    wave = chirp(5, 44_100)
    resampled = soxr.resample(wave, 44_100, RATE, quality="HQ")[RATE : 4 * RATE]
    ours = small.localize(FRAME, wave, 44_100)
    np.testing.assert_allclose(ours.similarity, small.localize(FRAME, resampled, RATE).similarity, atol=2e-3)
    unlike = small.localize(FRAME, wave[44_100 : 44_100 + 3 * RATE], RATE)
    assert np.abs(ours.similarity - unlike.similarity).max() > 2e-3, "the rate matters"


def test_a_model_of_any_rate_uses_the_rate_of_the_sound(tmp_path):
    config = ModelConfig(**{**vars(SMALL), "method": "ezvsl", "rate": 0})
    free = avloc.load(save_small(tmp_path / "free.safetensors", config))
    grids = [free.localize(FRAME, chirp(3, rate), rate).similarity for rate in (16_000, 48_000)]
    assert grids[0].shape == grids[1].shape
    assert (grids[0] != grids[1]).any()


def test_results_do_not_depend_on_earlier_calls(small, model):
    waves = [chirp(3, RATE), tone(3, RATE), np.zeros(3 * RATE, np.float32), tone(1, 8_000)]
    rates = [RATE, RATE, RATE, 8_000]
    forth = [small.localize(FRAME, *both) for both in zip(waves, rates, strict=True)]
    fresh = avloc.load(model, device="cpu")
    back = [fresh.localize(FRAME, *both) for both in zip(waves[::-1], rates[::-1], strict=True)][::-1]
    for one, other in zip(forth, back, strict=True):
        same(one, other)


@pytest.mark.parametrize(
    ("frame", "waveform", "rate", "words"),
    [
        (FRAME[..., 0], WAVE, RATE, r"frame is \[48, 64\] uint8; valid: \[H, W, 3\] uint8"),
        (FRAME.astype(np.float32), WAVE, RATE, r"frame is \[48, 64, 3\] float32"),
        (np.moveaxis(FRAME, 2, 0), WAVE, RATE, r"frame is \[3, 48, 64\]"),
        (FRAME[:0], WAVE, RATE, r"frame is \[0, 64, 3\]"),
        ("frame.png", WAVE, RATE, "frame is a str; valid: .* uint8 RGB"),
        (FRAME, np.stack([WAVE, WAVE]), RATE, "waveform is .2, 66150. float32; average its channels first"),
        (FRAME, (WAVE * 32767).astype(np.int32), RATE, r"waveform is \[66150\] int32; valid: .* or int16"),
        (FRAME, WAVE * 32767, RATE, r"waveform reaches 1.638e\+04; valid: .* in \[-1, 1\]"),
        (FRAME, WAVE.tolist(), RATE, "waveform is a list; valid: .n. mono"),
        (FRAME, np.where(np.arange(len(WAVE)) == 7, np.nan, WAVE), RATE, "NaN or infinite"),
        (FRAME, np.full_like(WAVE, np.inf), RATE, "NaN or infinite"),
        (FRAME, WAVE[:0], RATE, "too short: 0 samples"),
        (FRAME, WAVE[:100], RATE, "too short: 100 samples; valid: 0.05 s or more"),
        (FRAME, WAVE, 0, "the rate is 0 Hz; valid: 1000 to 768000 Hz"),
        (FRAME, WAVE, -RATE, "the rate is -22050 Hz"),
        (FRAME, WAVE, 22_050.5, "the rate is 22050.5; valid: an integer"),
        (FRAME, WAVE, "fast", "the rate is 'fast'"),
    ],
)
def test_errors_name_invalid_arguments(small, frame, waveform, rate, words):
    for method in (small.localize, small.cells_at):
        with pytest.raises(InputError, match=words):
            method(frame, waveform, rate)


def test_doubles_and_numpy_rates_are_accepted(small):
    doubles = small.localize(FRAME, WAVE.astype(np.float64), np.int64(RATE))
    np.testing.assert_array_equal(doubles.cells, small.localize(FRAME, WAVE, RATE).cells)


def test_non_finite_maps_are_refused(model, tmp_path):
    file = load_model(model)
    broken = {**file.state, "img_proj.bias": torch.full_like(file.state["img_proj.bias"], torch.nan)}
    save_model(tmp_path / "broken.safetensors", file.config, broken, {})
    with pytest.raises(InputError, match="not finite"):
        avloc.load(tmp_path / "broken.safetensors").localize(FRAME, WAVE, RATE)


# --- videos -----------------------------------------------------------------------------------------------------


def one_by_one(small: avloc.Model, source: Path, times: list[float], audio: Path | None = None) -> list[avloc.Result]:
    """Each time opened, seeked and localized separately."""
    out = []
    for time_s in times:
        frame, _ = read_frame(source, at=time_s)
        sound = read_sound(audio or source, seconds=3.0, rate=RATE, centre_s=time_s)
        out.append(small.localize(frame, sound.waveform, RATE))
    return out


@pytest.mark.parametrize(
    ("how", "times"),
    [
        ({"every": 0.7}, [0.7 * step for step in range(15)]),
        ({"every": 2.5, "start": 1.0}, [1.0, 3.5, 6.0, 8.5]),
        ({"every": 4.5}, [0.0, 4.5, 9.0]),
        ({"every": 1.0, "start": 6.1, "end": 8.1}, [6.1, 7.1]),
        ({"every": 60.0}, [0.0]),
        ({}, [float(second) for second in range(10)]),
    ],
)
def test_results_of_a_video_equal_those_of_single_times(small, film, how, times):
    results = list(small.localize_video(film, **how))
    references = one_by_one(small, film, times)
    assert len(results) == len(references)
    for time_s, result, reference in zip(times, results, references, strict=True):
        np.testing.assert_array_equal(result.frame, reference.frame)
        np.testing.assert_array_equal(result.cells, reference.cells)
        assert result.time_s == read_frame(film, at=time_s)[1]
        assert result.window_s == pytest.approx([max(0, min(time_s - 1.5, 7)), max(3, min(time_s + 1.5, 10))], abs=0.1)


def test_a_video_with_another_sound(small, film, tmp_path):
    sound = make_sound(tmp_path / "other.wav", tone(10, RATE, hz=300), RATE)
    results = list(small.localize_video(str(film), every=3.0, audio=sound))
    references = one_by_one(small, film, [0.0, 3.0, 6.0, 9.0], sound)
    for result, reference in zip(results, references, strict=True):
        np.testing.assert_array_equal(result.cells, reference.cells)


def test_a_separate_sound_is_padded_with_silence(small, film, tmp_path):
    sound = make_sound(tmp_path / "brief.wav", tone(4, RATE), RATE)
    silent = [result.silent for result in small.localize_video(film, every=2.0, audio=sound)]
    assert silent == [False, False, False, True, True]


def test_a_video_is_decoded_lazily(small, tmp_path, monkeypatch):
    """The first result comes before the later pictures are decoded."""
    long = make_video(
        tmp_path / "long.mp4", seconds=40, fps=5, frame_fn=grey_ramp((64, 48), per_second=5), sound=tone(40, RATE)
    )
    shown = []

    def counted(*arguments, **more):
        for screen in stream_frames(*arguments, **more):
            shown.append(screen.start)
            yield screen

    monkeypatch.setattr("avloc.localize.scenes.stream_frames", counted)
    results = small.localize_video(long, every=1.0)
    for _ in range(3):
        next(results)
    assert len(shown) < 20
    assert len(list(results)) == 37
    assert len(shown) >= 190


def test_invalid_videos(small, film, tmp_path):
    for arguments, words in (
        ({"path": tmp_path / "absent.mp4"}, "no such file: .*absent.mp4"),
        ({"audio": tmp_path / "absent.wav"}, "no such file: .*absent.wav"),
        ({"path": tmp_path}, f"{tmp_path} is a folder"),
        ({"audio": tmp_path}, f"{tmp_path} is a folder"),
        ({"every": 0}, "every 0 is impossible"),
        ({"every": float("nan")}, "every nan is impossible"),
        ({"start": -1}, "start -1 is impossible"),
        ({"start": 3, "end": 3}, "end 3 is not after the start"),
    ):
        with pytest.raises(UsageError, match=words):
            small.localize_video(**{"path": film, **arguments})
    (tmp_path / "empty").touch()
    (tmp_path / "text.mp4").write_text("no video")
    for arguments, words in (
        ({"path": tmp_path / "empty"}, r"empty is empty \(0 bytes\)"),
        ({"audio": tmp_path / "empty"}, r"empty is empty \(0 bytes\)"),
        ({"path": tmp_path / "text.mp4"}, "cannot be decoded"),
        ({"start": 11}, r"no picture after 11 s: the video ends at 10\.000 s"),
    ):
        with pytest.raises(InputError, match=words):
            small.localize_video(**{"path": film, **arguments})
    with pytest.raises(InputError, match="has no sound"):
        list(small.localize_video(make_video(tmp_path / "no-sound.mp4")))


# --- fused with object priors -----------------------------------------------------------------------------------


class FakePrior:
    """Mean brightness of every cell, in place of an ImageNet trunk."""

    side = 32

    def __init__(self, trunk, weights_dir, device, listener):
        self.trunk = trunk

    def maps(self, frames):
        return F.avg_pool2d(frames.float().mean(1), 8)


def test_a_prior_is_fused_by_its_weight(model, small, monkeypatch):
    monkeypatch.setattr("avloc.engine.fusion.ObjectPrior", FakePrior)
    frame = FRAME.copy()
    frame[:24] = 250
    plain = small.localize(frame, WAVE, RATE)
    assert plain.protocol == "avloc/fp32"
    object_only = avloc.load(model, prior="resnet18", weights={"av": 0.0, "object": 1.0}).localize(frame, WAVE, RATE)
    assert (object_only.sound_effect, object_only.sound_effect_noise) == (0.0, 0.0)
    assert not object_only.judgement.depends_on_sound
    assert object_only.heatmap[:12].min() > object_only.heatmap[-12:].max(), "where it is bright"
    only_av = avloc.load(model, prior="resnet18", weights={"av": 1.0, "object": 0.0}).localize(frame, WAVE, RATE)
    np.testing.assert_allclose(only_av.heatmap, plain.heatmap, atol=0.05)
    both = avloc.load(model, prior="resnet18")
    result = both.localize(frame, WAVE, RATE)
    assert result.protocol == "avloc/fp32/0.6 av + 0.4 resnet18", "the weights of avloc's protocol"
    bright = F.avg_pool2d(
        torch.from_numpy(np.array(Image.fromarray(frame).resize((32, 32), 3))).permute(2, 0, 1).float().mean(0)[None],
        8,
    )
    reference = fuse_cells({"av": plain.similarity, "object": bright[0].numpy()}, {"av": 0.6, "object": 0.4})
    np.testing.assert_allclose(result.cells, reference, atol=1e-6)
    np.testing.assert_array_equal(result.similarity, plain.similarity, "cosines stay cosines")
    np.testing.assert_array_equal(both.cells_at(frame, WAVE, RATE)[0], result.cells)


def test_detr_as_a_prior(model, small, tmp_path_factory):
    weights = saved_teachers(tmp_path_factory)
    fused = avloc.load(model, prior="detr", weights_dir=weights)
    assert fused.protocol == "avloc/fp32/0.5 av + 0.5 detr"
    result = fused.localize(FRAME, WAVE, RATE)
    frame = torch.from_numpy(stretched(FRAME, DetrPrior.side).copy()).permute(2, 0, 1)[None]
    attention = DetrPrior(weights, torch.device("cpu")).maps(frame)[0]
    attended = np.zeros((1, 1), np.float32) if attention is None else attention.numpy()
    reference = fuse_cells(
        {"av": small.localize(FRAME, WAVE, RATE).similarity, "detr": attended}, {"av": 0.5, "detr": 0.5}
    )
    np.testing.assert_allclose(result.cells, reference, atol=1e-6)


def test_none_switches_a_prior_off(model, small):
    assert avloc.load(model, prior="none").protocol == small.protocol
    assert load_fusion("none", None, {}, None, torch.device("cpu")).priors == {}


@pytest.mark.parametrize(
    ("text", "weights"),
    [("", {}), ("av=1", {"av": 1.0}), ("av=0.6,object=0.4", {"av": 0.6, "object": 0.4}), (" av = 1 ,", {"av": 1.0})],
)
def test_parsing_of_map_weights(text, weights):
    assert parse_weights(text) == weights


@pytest.mark.parametrize("text", ["av", "av=", "0.6,0.4", "av=much"])
def test_invalid_map_weights(text):
    with pytest.raises(UsageError, match=r"is not name=number; valid: as av=0\.6,object=0\.4"):
        parse_weights(text)
