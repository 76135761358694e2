"""Log-spectrograms, crops, and crops of hint maps."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avloc.transforms import (
    Crops,
    crop_bounds,
    crop_frames,
    crop_maps,
    draw_crops,
    inside,
    int16_to_float,
    log_spectrogram,
    normalise_frames,
)

RATES = (16_000, 22_050, 44_100, 48_000)


def scipy_reference(wave: np.ndarray, rate: int) -> np.ndarray:
    """What the published loaders call, in double precision."""
    window = scipy.signal.windows.tukey(513, 0.25)[:-1]  # periodic
    _, _, power = scipy.signal.spectrogram(wave, rate, window=window, nperseg=512, noverlap=274, detrend="constant")
    return np.log(power + 1e-7) / 12


@pytest.mark.parametrize(("rate", "frames"), [(16_000, 200), (22_050, 276), (44_100, 554), (48_000, 603)])
def test_equals_scipys_spectrogram_at_every_rate(rate, frames):
    wave = np.random.default_rng(rate).uniform(-1, 1, 3 * rate).astype(np.float32)
    ours = log_spectrogram(torch.from_numpy(wave)[None], rate)
    assert ours.shape == (1, 1, 257, frames)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours[0, 0], scipy_reference(wave.astype(np.float64), rate), atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-4, 0.3, 5.0]), st.integers(512, 4000))
@settings(max_examples=25, deadline=None)
def test_equals_scipys_spectrogram_for_any_sound(seed, level, samples):
    rng = np.random.default_rng(seed)
    wave = (level * rng.standard_normal(samples) + rng.uniform(-0.5, 0.5)).clip(-1, 1).astype(np.float32)
    ours = log_spectrogram(torch.from_numpy(wave)[None], 22_050)[0, 0]
    np.testing.assert_allclose(ours, scipy_reference(wave.astype(np.float64), 22_050), atol=1e-5)


def test_silence_has_a_constant_spectrogram():
    spectrogram = log_spectrogram(torch.zeros(1, 22_050), 22_050)
    assert torch.allclose(spectrogram, torch.tensor(np.log(1e-7) / 12, dtype=torch.float32))


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_peaks_in_its_bin_and_frames(rate):
    time = np.arange(3 * rate) / rate
    wave = np.where((time >= 1) & (time < 2), 0.5 * np.sin(2 * np.pi * 1000 * time), 0).astype(np.float32)
    spectrogram = log_spectrogram(torch.from_numpy(wave)[None], rate)[0, 0]
    assert abs(int(spectrogram.sum(1).argmax()) - 1000 * 512 / rate) <= 1
    loud = spectrogram.amax(0) > -1.0
    centres = (torch.arange(spectrogram.shape[1]) * 238 + 256) / rate
    assert 0.97 <= centres[loud].min() <= 1.03
    assert 1.97 <= centres[loud].max() <= 2.03


def test_a_clip_does_not_depend_on_its_batch():
    waves = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (3, 5000)).astype(np.float32))
    together = log_spectrogram(waves, 22_050)
    assert torch.equal(together[1:2], log_spectrogram(waves[1:2], 22_050))


def test_full_scale_int16_is_one():
    assert int16_to_float(torch.tensor([-32768, -32767, 0, 32767], dtype=torch.int16)).tolist() == [-1, -1, 0, 1]


def test_normalised_white_and_black():
    frames = torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), 255)]).to(torch.uint8)
    black, white = normalise_frames(frames)[:, :, 0, 0]
    np.testing.assert_allclose(black, [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-6)
    np.testing.assert_allclose(white, [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225], rtol=1e-6)


sizes_strategy = st.lists(st.tuples(st.integers(8, 20), st.integers(8, 20)), min_size=1, max_size=5)


def padded(frames):
    out = torch.zeros(len(frames), 3, 20, 20, dtype=torch.uint8)
    for row, frame in enumerate(frames):
        out[row, :, : frame.shape[1], : frame.shape[2]] = frame
    return out


def drawn(count, seed):
    return torch.rand((count, 3), generator=torch.Generator().manual_seed(seed))


@given(st.integers(8, 20), st.integers(1, 8), st.floats(0, 1), st.integers(0, 1000), st.data())
@settings(max_examples=60, deadline=None)
def test_at_their_own_scale_crops_are_slices_of_each_frame(shorter, side, flip, seed, data):
    longer = [data.draw(st.integers(shorter, 20)) for _ in range(3)]
    sizes = [(shorter, other) if data.draw(st.booleans()) else (other, shorter) for other in longer]
    rng = np.random.default_rng(seed)
    frames = [torch.from_numpy(rng.integers(1, 255, (3, h, w), dtype=np.uint8)) for h, w in sizes]
    scale = (shorter + 0.5) / side
    crops = draw_crops(torch.tensor(sizes), side, scale, flip, drawn(3, seed))
    cut = crop_frames(padded(frames), torch.tensor(sizes), crops)
    for row, (frame, (height, width)) in enumerate(zip(frames, sizes, strict=True)):
        top, left = round(float(crops.top[row]) * height), round(float(crops.left[row]) * width)
        reference = frame[:, top : top + side, left : left + side]
        assert reference.shape == (3, side, side), "the crop stays inside its frame"
        assert torch.allclose(cut[row], (reference.flip(-1) if crops.flip[row] else reference).float(), atol=0.02)


@given(sizes_strategy, st.integers(2, 24), st.floats(1, 2), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_crops_of_another_scale_are_bilinear_samples_of_each_frame(sizes, side, scale, seed):
    """Against a loop over pixels that never reads the padding."""
    rng = np.random.default_rng(seed)
    frames = [torch.from_numpy(rng.integers(1, 255, (3, h, w), dtype=np.uint8)) for h, w in sizes]
    crops = draw_crops(torch.tensor(sizes), side, scale, 0.5, drawn(len(sizes), seed))
    cut = crop_frames(padded(frames), torch.tensor(sizes), crops)
    row = int(rng.integers(len(sizes)))
    height, width = sizes[row]
    for y, x in rng.integers(0, side, (6, 2)):
        across = side - 1 - x if crops.flip[row] else x
        down = (float(crops.top[row]) + float(crops.height[row]) * (y + 0.5) / side) * height - 0.5
        right = (float(crops.left[row]) + float(crops.width[row]) * (across + 0.5) / side) * width - 0.5
        down, right = min(max(down, 0), height - 1), min(max(right, 0), width - 1)
        y0, x0 = int(down), int(right)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        frame = frames[row].double()
        upper = frame[:, y0, x0] + (frame[:, y0, x1] - frame[:, y0, x0]) * (right - x0)
        lower = frame[:, y1, x0] + (frame[:, y1, x1] - frame[:, y1, x0]) * (right - x0)
        assert torch.allclose(cut[row, :, y, x].double(), upper + (lower - upper) * (down - y0), atol=0.02)


@given(sizes_strategy, st.integers(2, 8), st.floats(1, 2), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_crops_lie_inside_and_have_the_size_of_their_scale(sizes, side, scale, seed):
    crops = draw_crops(torch.tensor(sizes), side, scale, 0.5, drawn(len(sizes), seed))
    for edge, extent in ((crops.left, crops.width), (crops.top, crops.height)):
        assert edge.min() >= 0
        assert (edge + extent).max() <= 1 + 1e-6
    of_shorter = torch.maximum(crops.width, crops.height)
    assert torch.allclose(of_shorter, torch.full_like(of_shorter, side / int(side * scale)))


def test_every_offset_is_drawn():
    sizes = torch.tensor([[10, 12]]).expand(2000, 2)
    crops = draw_crops(sizes, 8, 1.25, 0.5, drawn(2000, 0))
    assert set((crops.top * 10).round().tolist()) == {0, 1, 2}
    assert set((crops.left * 12).round().tolist()) == {0, 1, 2, 3, 4}
    assert 0.45 < crops.flip.float().mean() < 0.55


def one_crop(left: int, top: int, side: int, height: int, width: int, *, flip: bool) -> Crops:
    """The crop at one position of a frame of one size."""
    fractions = {"left": left / width, "top": top / height, "width": side / width, "height": side / height}
    tensors = {name: torch.tensor([value]) for name, value in fractions.items()}
    return Crops(**tensors, flip=torch.tensor([flip]), side=side)


@given(sizes_strategy, st.integers(2, 24), st.floats(1, 2), st.integers(1, 2), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_crops_of_the_parts_that_hold_them_are_those_of_the_whole_frames(sizes, side, scale, views, seed):
    rng = np.random.default_rng(seed)
    frames = [torch.from_numpy(rng.integers(1, 255, (3, h, w), dtype=np.uint8)) for h, w in sizes]
    uniform = [drawn(len(sizes), seed + view) for view in range(views)]
    bounds = crop_bounds(torch.tensor(sizes), side, scale, torch.stack(uniform, 1))
    parts = [frame[:, top:bottom, left:right] for frame, (top, left, bottom, right) in zip(frames, bounds, strict=True)]
    extents = torch.cat([torch.tensor(sizes), bounds[:, :2]], 1)
    for each in uniform:
        crops = draw_crops(torch.tensor(sizes), side, scale, 0.5, each)
        again = draw_crops(extents, side, scale, 0.5, each)
        assert torch.equal(torch.stack([crops.top, crops.left]), torch.stack([again.top, again.left]))
        whole = crop_frames(padded(frames), torch.tensor(sizes), crops)
        assert torch.allclose(crop_frames(padded(parts), extents, again), whole, atol=0.02)


def test_the_part_of_a_panorama_that_holds_a_crop_is_nearly_square():
    bounds = crop_bounds(torch.tensor([[256, 8_192]]).expand(20, 2), 224, 1.1, drawn(20, 0)[:, None])
    assert (bounds[:, 2:] - bounds[:, :2]).max() <= 256 / 246 * 224 + 5
    assert bounds[:, 1].max() > 4_000


def test_a_whole_frame_crop_leaves_the_map_unchanged():
    maps = torch.rand(1, 25, 25)
    assert torch.allclose(crop_maps(maps, one_crop(0, 0, 224, 224, 224, flip=False)), maps, atol=1e-5)
    assert torch.allclose(crop_maps(maps, one_crop(0, 0, 224, 224, 224, flip=True)), maps.flip(-1), atol=1e-5)


def test_every_channel_of_a_map_gets_the_same_crop():
    maps, sizes = torch.rand(3, 4, 7, 9), torch.tensor([[248, 300], [224, 224], [300, 230]])
    crops = draw_crops(sizes, 200, 1.1, 0.5, drawn(3, 3))
    cut = crop_maps(maps, crops)
    assert cut.shape == maps.shape
    for channel in range(4):
        assert torch.allclose(cut[:, channel], crop_maps(maps[:, channel], crops))


@given(st.integers(0, 76), st.integers(0, 24), st.booleans(), st.floats(0.2, 0.8), st.floats(0.2, 0.8))
@settings(max_examples=40, deadline=None)
def test_the_map_follows_the_picture(left, top, flip, x, y):
    """A peak of the map moves to the same position in the crop as a pixel of the frame."""
    height, width, side = 248, 300, 224
    ys, xs = (torch.arange(25) + 0.5) / 25, (torch.arange(25) + 0.5) / 25
    bump = torch.exp(-((xs[None, :] - x) ** 2 + (ys[:, None] - y) ** 2) / 0.01)[None]
    followed = crop_maps(bump, one_crop(left, top, side, height, width, flip=flip))[0]
    expected_x, expected_y = (x * width - left) / side, (y * height - top) / side
    expected_x = 1 - expected_x if flip else expected_x
    if 0.1 < expected_x < 0.9 and 0.1 < expected_y < 0.9:
        row, column = divmod(int(followed.argmax()), 25)
        assert abs((column + 0.5) / 25 - expected_x) <= 0.05
        assert abs((row + 0.5) / 25 - expected_y) <= 0.05


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_a_clamped_grid_replicates_the_border(mode):
    """As on mps, where older versions of PyTorch pad with zeros only."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 5, 9, generator=generator) + 1
    grid = 3 * torch.rand(2, 40, 40, 2, generator=generator) - 1.5
    border = torch.nn.functional.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)
    zeros = torch.nn.functional.grid_sample(images, inside(grid, 5, 9), mode=mode, align_corners=False)
    assert torch.allclose(zeros, border, atol=1e-5)
