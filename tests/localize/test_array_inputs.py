"""Valid frames and waveforms of the library, reprs, and forked processes."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import avloc
from avloc.errors import InputError, UsageError
from avloc.localize.style import Style
from avloc.media.pictures import decode_picture
from tests.media_makers import disc, make_picture, tone
from tests.program import ROOT
from tests.responsive_model import save_responsive

RATE = 22_050
FRAME = disc((64, 48), (0.3, 0.5))
WAVE = tone(3, RATE)
INT16 = (WAVE * 30_000).astype(np.int16)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> avloc.Model:
    path = save_responsive(tmp_path_factory.mktemp("model") / "small.safetensors")
    return avloc.load(path, device="cpu")


def twisted() -> Image.Image:
    """A Pillow image with an EXIF rotation of 90 degrees."""
    image = Image.fromarray(np.ascontiguousarray(np.rot90(FRAME)))
    image.getexif()[0x0112] = 6
    return image


def see_through() -> Image.Image:
    alpha = np.where(FRAME[..., :1] > 200, 255, 0).astype(np.uint8)
    return Image.fromarray(np.concatenate([FRAME, alpha], axis=2))


@pytest.mark.parametrize(
    ("frame", "shown"),
    [
        (torch.from_numpy(FRAME), FRAME),
        (torch.from_numpy(FRAME).permute(2, 0, 1), FRAME),
        (torch.from_numpy(FRAME).permute(2, 0, 1).contiguous(), FRAME),
        (torch.from_numpy(FRAME[:, :3].copy()), FRAME[:, :3]),
        (FRAME[:3], FRAME[:3]),
        (FRAME[::-1, ::2], FRAME[::-1, ::2]),
        (Image.fromarray(FRAME), FRAME),
        (twisted(), FRAME),
        (see_through(), np.where(FRAME[..., :1] > 200, FRAME, 255)),
        *(
            (Image.fromarray(FRAME).convert(mode), np.asarray(Image.fromarray(FRAME).convert(mode).convert("RGB")))
            for mode in ("L", "1", "P", "CMYK", "YCbCr", "HSV", "RGBA")
        ),
    ],
)
def test_frames_of_any_library_are_converted_to_rgb(small, frame, shown):
    result = small.localize(frame, WAVE, RATE)
    np.testing.assert_array_equal(result.frame, shown)
    np.testing.assert_array_equal(result.cells, small.localize(np.ascontiguousarray(shown), WAVE, RATE).cells)
    np.testing.assert_array_equal(result.cells, small.cells_at(frame, WAVE, RATE)[0])


def test_pillow_images_equal_pictures_decoded_by_avloc(small, tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 5
    path = make_picture(tmp_path / "turned.jpg", FRAME, exif=tag)
    with Image.open(path) as image:
        frame = small.localize(image, WAVE, RATE).frame
    assert frame.shape == (64, 48, 3)
    np.testing.assert_array_equal(frame, decode_picture(path.read_bytes()))


@pytest.mark.parametrize(
    ("wave", "same"),
    [
        (torch.from_numpy(WAVE), WAVE),
        (torch.from_numpy(WAVE).double().requires_grad_(), WAVE),
        (INT16, INT16 / np.float32(32_768)),
        (torch.from_numpy(INT16), INT16 / np.float32(32_768)),
    ],
)
def test_waveforms_of_any_library_are_converted_to_float(small, wave, same):
    assert same.dtype == np.float32
    np.testing.assert_array_equal(small.localize(FRAME, wave, RATE).cells, small.localize(FRAME, same, RATE).cells)


def cut_off() -> Image.Image:
    """Opened, and not decoded yet."""
    file = io.BytesIO()
    Image.fromarray(FRAME).save(file, "JPEG")
    return Image.open(io.BytesIO(file.getvalue()[:-100]))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (Image.fromarray(FRAME).convert("F"), "32-bit values have no standard range"),
        (Image.fromarray(FRAME).convert("I"), "32-bit values have no standard range"),
        (torch.zeros(3, 48, 3, dtype=torch.uint8), r"a tensor \[3, 48, 3\], which could be \[H, W, 3\] or \[3, H, W\]"),
        (torch.zeros(48, 64, 3), r"frame is \[48, 64, 3\] float32; valid: .* uint8"),
        (torch.zeros(48, 64, 3, dtype=torch.bfloat16), r"tensor \[48, 64, 3\] torch\.bfloat16 .* on cpu; valid: "),
        (torch.zeros(48, 64, 3, dtype=torch.uint8, device="meta"), "on meta; valid: "),
        (torch.zeros(1, 3, 48, 64, dtype=torch.uint8), r"frame is \[1, 3, 48, 64\] uint8"),
        (torch.zeros(48, 64, dtype=torch.uint8), r"frame is \[48, 64\] uint8"),
        (torch.zeros(3, 0, 64, dtype=torch.uint8), r"frame is \[0, 64, 3\] uint8"),
        (Image.new("RGB", (0, 5)), r"frame is \[5, 0, 3\]"),
        (Image.new("La", (5, 5)), "picture cannot be decoded .*conversion"),
        (cut_off(), "picture cannot be decoded .*truncated"),
        (FRAME.tolist(), "frame is a list; valid: "),
        (b"png", "frame is a bytes; valid: "),
    ],
)
def test_errors_of_invalid_frames_name_valid_ones(small, frame, words):
    with pytest.raises(InputError, match=words):
        small.localize(frame, WAVE, RATE)


@pytest.mark.parametrize(
    ("wave", "words"),
    [
        (torch.zeros(2, RATE), r"waveform is \[2, 22050\] float32; average its channels first; valid: \[n\] mono"),
        (np.zeros((2, RATE), np.int16), r"waveform is \[2, 22050\] int16; average its channels first"),
        (torch.zeros(RATE, dtype=torch.int64), r"waveform is \[22050\] int64"),
        (torch.zeros(RATE).half(), r"waveform is \[22050\] float16"),
        (torch.zeros(RATE).to_sparse(), "sparse_coo on cpu; valid: "),
        (np.zeros(RATE, np.uint8), r"waveform is \[22050\] uint8"),
        (INT16[:100], "too short: 100 samples"),
        (torch.full((RATE,), torch.nan), "NaN or infinite"),
    ],
)
def test_errors_of_invalid_waveforms_name_valid_ones(small, wave, words):
    with pytest.raises(InputError, match=words):
        small.localize(FRAME, wave, RATE)


# --- how they print ---------------------------------------------------------------------------------------------


def test_repr_of_results_and_models_is_one_short_line(small):
    result = small.localize(FRAME, WAVE, RATE)
    x, y = result.peak_xy
    place = f"peak_xy=[{x}, {y}], box_xyxy={result.box_xyxy}"
    assert repr(result) == f"Result(frame_hw=[48, 64], time_s=0.0, verdict=None, {place}, model='small')"
    silent = repr(small.localize(FRAME, np.zeros_like(WAVE), RATE))
    assert "verdict='silent', peak_xy=None, box_xyxy=None" in silent
    assert repr(small) == "Model('small', seconds=3, rate=22050, device='cpu', protocol='avloc/fp32')"


def test_an_overlay_takes_its_style_as_a_mapping(small):
    result = small.localize(FRAME, WAVE, RATE)
    np.testing.assert_array_equal(result.overlay({"box": "on"}), result.overlay(Style(box=True)))
    np.testing.assert_array_equal(
        result.overlay({"box": True, "opacity": 0}), result.overlay(Style(box=True, opacity=0))
    )
    assert (result.overlay({"box": "on"}) != result.overlay({})).any()
    with pytest.raises(UsageError, match=r"--style box=maybe: valid: on, off"):
        result.overlay({"box": "maybe"})


# --- forks ------------------------------------------------------------------------------------------------------

FORK = """
import json, multiprocessing, sys
import numpy as np
import torch
import avloc

parent, child, threads = json.loads(sys.argv[1])
frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
wave = np.random.default_rng(0).standard_normal(48_000).astype(np.float32) / 10
torch.set_num_threads(2)
torch.zeros(1)
model = avloc.load(device="cpu") if parent else None
if "use" in parent:
    result = model.localize(frame, wave, 16_000)

def work(answers):
    torch.set_num_threads(threads)
    try:
        mine = avloc.load(device="cpu") if child == "load" else model
        if child == "cells":
            mine.cells_at(frame, wave, 16_000)
        elif child == "heatmap":
            assert result.heatmap.shape == (240, 320)
        else:
            mine.localize(frame, wave, 16_000)
        answers.put("done")
    except avloc.errors.AvlocError as error:
        answers.put(f"{type(error).__name__}: {error}")

fork = multiprocessing.get_context("fork")
answers = fork.Queue()
process = fork.Process(target=work, args=(answers,))
process.start()
process.join(60)
if process.is_alive():
    process.kill()
    sys.exit("the forked process hangs")
print(answers.get(timeout=10))
"""


def forked(parent: str, child: str, threads: int) -> str:
    """Outcome in a forked child, run in separate processes."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, json.dumps([parent, child, threads])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize(
    ("parent", "child"),
    [("load and use", "use"), ("load", "cells"), ("load and use", "load"), ("load and use", "heatmap")],
)
def test_forked_processes_that_would_hang_are_refused(parent, child):
    outcome = forked(parent, child, threads=2)
    assert outcome.startswith("Refused: a model was loaded before this process was forked")
    assert "valid: multiprocessing's start method spawn" in outcome


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize(
    ("parent", "child", "threads"), [("", "load", 2), ("load and use", "use", 1), ("load and use", "load", 1)]
)
def test_forked_processes_independent_of_their_parent_work(parent, child, threads):
    assert forked(parent, child, threads) == "done"
