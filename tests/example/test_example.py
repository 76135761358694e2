"""The example of the README: the shipped model finds the thing that sounds, and no source for a wrong sound."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image

from avloc import Model, Result, load
from avloc.localize.verdict import Verdict
from tests import pages
from tests.example import OVERLAYS, PICTURE, SOUNDS
from tests.example.__main__ import draw_overlays
from tests.program import ROOT, avloc

PLACES = {"guitar": (60, 46, 202, 376), "drums": (300, 66, 634, 402)}
"""Name of a sound -> the box [x0, y0, x1, y1] of its source in the picture, in pixels."""
MARGIN = 0.1
"""The match lies at least this far above the threshold."""
RATE = 16_000


@pytest.fixture(scope="module")
def shipped() -> Model:
    return load()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    with Image.open(PICTURE) as image:
        return image.convert("RGB")


def sound_of(name: str) -> NDArray[np.float32]:
    samples, rate = soundfile.read(ROOT / "tests" / "data" / f"{name}.flac", dtype="float32")
    assert rate == RATE
    return samples


def inside(peak_xy: tuple[float, float] | list[int], name: str) -> bool:
    (x, y), (left, top, right, bottom) = peak_xy, PLACES[name]
    return left <= x < right and top <= y < bottom


def found(result: Result, model: Model) -> bool:
    """The verdict is that the source is in the picture, by a margin, and the map depends on the sound."""
    is_clear = result.match is not None and result.match >= model.rule.matches + MARGIN
    return result.verdict is Verdict.MATCHES and is_clear and result.sound_effect >= 2 * model.rule.least_effect


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("sound", SOUNDS, ids=lambda path: path.stem)
def test_the_program_finds_what_sounds(sound: Path, precision: str, tmp_path: Path) -> None:
    out = tmp_path / "heat.png"
    done = avloc("localize", str(PICTURE), "--audio", str(sound), "--out", str(out), "--precision", precision, "--json")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["verdict"] == "matches"
    assert inside(line["peak_xy"], sound.stem)
    assert out.exists()


def test_the_main_job_of_the_readme_prints_what_the_readme_shows(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "data").symlink_to(ROOT / "tests" / "data")
    monkeypatch.chdir(tmp_path)
    readme = pages.README.read_text(encoding="utf-8")
    _, *arguments = shlex.split(pages.block(readme, "run the main job").rpartition("&& ")[2])
    shown = re.search(
        r"^```text\n(.*?)^```$", readme.partition("<!-- run the main job -->")[2], re.DOTALL | re.MULTILINE
    )
    done = avloc(*arguments)
    assert shown
    assert done.stdout + done.stderr == shown[1]
    assert Path(arguments[-1]).is_file()


def compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize("name", PLACES)
def test_compression_size_and_crop_of_the_picture_change_nothing(
    name: str, shipped: Model, picture: Image.Image
) -> None:
    width, height = picture.size
    for crop in ((0, 0, width, height), (20, 0, width, height - 40), (0, 25, width - 10, height)):
        for quality, scale in ((30, 1.0), (90, 0.5), (95, 1.5)):
            cut = picture.crop(crop)
            small = cut.resize((round(cut.width * scale), round(cut.height * scale)))
            result = shipped.localize(compressed(small, quality), sound_of(name), RATE)
            assert found(result, shipped)
            x, y = result.peak_xy or (-1, -1)
            assert inside((x / scale + crop[0], y / scale + crop[1]), name)


@pytest.mark.parametrize("name", PLACES)
def test_level_noise_and_place_of_the_sound_change_nothing(name: str, shipped: Model, picture: Image.Image) -> None:
    samples = sound_of(name)
    noise = 0.005 * np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
    shifted = np.roll(samples, len(samples) // 3)
    for changed in (0.1 * samples, np.clip(1.4 * samples, -1, 1), samples + noise, shifted, samples[: 2 * RATE]):
        result = shipped.localize(picture, changed, RATE)
        assert found(result, shipped)
        assert inside(result.peak_xy or [-1, -1], name)


def test_a_wrong_sound_has_no_match(shipped: Model, picture: Image.Image) -> None:
    time_s = np.arange(3 * RATE) / RATE
    silence = np.zeros(3 * RATE, np.float32)
    noise = (0.2 * np.random.default_rng(0).standard_normal(3 * RATE)).astype(np.float32)
    whistle = (0.4 * np.sin(2 * np.pi * 3000 * time_s + 8 * np.sin(20 * time_s))).astype(np.float32)
    verdicts = [shipped.localize(picture, wrong, RATE).verdict for wrong in (silence, noise, whistle)]
    assert verdicts == [Verdict.SILENT, Verdict.NO_MATCH, Verdict.NO_MATCH]


@pytest.mark.parametrize(("path", "make"), SOUNDS.items(), ids=lambda value: getattr(value, "stem", ""))
def test_the_sounds_are_those_of_the_script(path: Path, make) -> None:
    samples, rate = soundfile.read(path)
    assert rate == RATE
    np.testing.assert_allclose(samples, make(), rtol=0, atol=1e-4)  # 16 bits, and the platform's sines


def test_the_overlays_are_those_of_the_script(tmp_path: Path) -> None:
    drawn = tmp_path / "overlays.jpg"
    draw_overlays(drawn)
    with Image.open(drawn) as new, Image.open(OVERLAYS) as shown:
        difference = np.abs(np.asarray(new, np.float32) - np.asarray(shown, np.float32))
    assert difference.mean() < 1


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in (PICTURE, *SOUNDS)) < 200_000
    assert OVERLAYS.stat().st_size < 300_000
