"""Overlays, against slow reference implementations and requirements on legibility."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avloc.localize.overlay import draw_overlay, draw_silent
from avloc.localize.style import COLOUR_MAPS, Style

BARE = Style(contour=0, peak=False, caption=False)
SIZES = [(144, 176), (176, 144), (360, 640), (480, 854), (2160, 3840)]
SENTENCE = "unsure whether the source is in the picture"


def bump(height: int, width: int, *, y: float = 0.5, x: float = 0.5, spread: float = 0.2) -> np.ndarray:
    """Heat [H, W]: 1 at a place in fractions, falling off in all directions."""
    down, across = np.mgrid[0:height, 0:width]
    squares = ((down / height - y) ** 2 + (across / width - x) ** 2) / spread**2
    heat = np.exp(-squares).astype(np.float32)
    return (heat - heat.min()) / (heat.max() - heat.min())


def grey(height: int, width: int, level: int = 128) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def reference_blend(frame: np.ndarray, heat: np.ndarray, style: Style) -> np.ndarray:
    """Pixel by pixel, in fractions; colours come in 256 levels."""
    out = np.zeros(frame.shape)
    for y, x in np.ndindex(*heat.shape):
        colour = 255 * np.array(mpl.colormaps[style.colours](round(255 * float(heat[y, x])))[:3])
        share = style.opacity * float(heat[y, x]) ** 1.5
        out[y, x] = (1 - share) * frame[y, x] + share * colour
    return out


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 2**31),
    st.sampled_from(COLOUR_MAPS),
    st.floats(0, 1),
)
def test_blend_equals_the_slow_reference_within_two_levels(height, width, seed, colours, opacity):
    draws = np.random.default_rng(seed)
    frame = draws.integers(0, 256, (height, width, 3), np.uint8)
    heat = draws.random((height, width), np.float32)
    style = Style(colours=colours, opacity=opacity, contour=0)
    drawn = draw_overlay(frame, heat, style=style)
    assert drawn.dtype == np.uint8
    assert np.abs(drawn - reference_blend(frame, heat, style)).max() <= 2


def test_zero_heat_leaves_the_frame_and_inputs_are_not_modified():
    frame, heat = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8), np.zeros((40, 50), np.float32)
    before = frame.copy()
    np.testing.assert_array_equal(draw_overlay(frame, heat), frame)
    hot = bump(40, 50)
    kept = hot.copy()
    draw_overlay(
        frame, hot, style=Style(strip=True, legend=True, box=True), box_xyxy=[1, 2, 9, 9], peak_xy=[3, 4], caption="a"
    )
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(hot, kept)


@given(st.integers(0, 2**31), st.floats(0.1, 0.9))
def test_contour_follows_the_edge_of_the_region(seed, level):
    draws = np.random.default_rng(seed)
    heat = bump(90, 120, y=draws.uniform(0.2, 0.8), x=draws.uniform(0.2, 0.8), spread=draws.uniform(0.15, 0.5))
    style = Style(opacity=0, contour=level, peak=False)
    touched = np.zeros(heat.shape, bool)
    for ground in (0, 255):  # a line that happens to have the colour of one ground shows on the other
        touched |= (draw_overlay(grey(90, 120, ground), heat, style=style) != ground).any(2)
    inside = heat >= level
    near = np.zeros_like(inside)
    for y, x in np.ndindex(*heat.shape):
        below, right = inside[min(y + 1, 89), x], inside[y, min(x + 1, 119)]
        if inside[y, x] != below or inside[y, x] != right:
            assert touched[y, x], (y, x)
            near[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5] = True
    assert not touched[~near].any()


def test_contour_of_hard_steps_and_of_flat_maps():
    steps = np.zeros((30, 40), np.float32)
    steps[10:20, 10:25] = 1
    drawn = draw_overlay(grey(30, 40), steps, style=Style(opacity=0, peak=False))
    assert (drawn[10, 12] != 128).all()
    assert (drawn[15, 18] == 128).all()
    for flat in (0.0, 0.5, 1.0):
        even = draw_overlay(grey(30, 40), np.full((30, 40), flat, np.float32), style=Style(opacity=0))
        np.testing.assert_array_equal(even, grey(30, 40), f"no border at {flat}")


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", SIZES[:3])
def test_lines_are_visible_on_any_background(size, level):
    """Contour, box and peak contrast with adjacent pixels."""
    heat, frame = bump(*size), grey(*size, level)
    height, width = size
    marks = {
        "contour": draw_overlay(frame, heat, style=Style(opacity=0, peak=False)),
        "box": draw_overlay(
            frame,
            heat,
            style=Style(opacity=0, contour=0, peak=False, box=True),
            box_xyxy=[20, 20, width - 20, height - 20],
        ),
        "peak": draw_overlay(frame, heat, style=Style(opacity=0, contour=0), peak_xy=[width // 2, height // 2]),
    }
    for name, drawn in marks.items():
        span = np.ptp(drawn.astype(int).mean(2))
        assert span > 90, f"{name} on {level} at {size}"


def test_peak_and_box_are_drawn_at_their_coordinates():
    frame, heat = grey(200, 300), np.zeros((200, 300), np.float32)
    ring = np.argwhere((draw_overlay(frame, heat, peak_xy=[70, 120]) != 128).any(2))
    np.testing.assert_allclose((ring.min(0) + ring.max(0)) / 2, [120, 70], atol=0.51)
    style = Style(box=True, contour=0)
    box = np.argwhere((draw_overlay(frame, heat, style=style, box_xyxy=[50, 40, 251, 161]) != 128).any(2))
    np.testing.assert_array_equal(box.min(0), [39, 49], "the rim lies one line outside")
    np.testing.assert_array_equal(box.max(0), [161, 251])
    corner = draw_overlay(frame, heat, style=style, box_xyxy=[0, 0, 300, 200], peak_xy=[0, 0])
    assert corner.shape == frame.shape, "marks at the border are cut, not an error"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("extra", [{}, {"legend": True}, {"strip": True}, {"legend": True, "strip": True}])
def test_silence_has_the_size_of_an_overlay_and_only_strip_and_legend_add_to_it(size, extra):
    frame, style = grey(*size), Style(**extra)
    drawn = draw_overlay(frame, bump(*size), style=style, caption="a")
    silent = draw_silent(frame, style=style, caption="silent: no source")
    assert drawn.shape == silent.shape
    height, width = size
    assert (drawn.shape[0] > height) == ("legend" in extra)
    assert (drawn.shape[1] > 3 * width) == ("strip" in extra)
    if not extra:
        assert drawn.shape == frame.shape
        np.testing.assert_array_equal(silent[: height // 2], frame[: height // 2], "plain above the words")


def test_strip_is_frame_overlay_heat():
    frame, heat = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), bump(60, 80)
    strip = draw_overlay(frame, heat, style=Style(strip=True, contour=0))
    np.testing.assert_array_equal(strip[:, :80], frame)
    np.testing.assert_array_equal(strip[:, 82:162], draw_overlay(frame, heat, style=BARE))
    colours = 255 * mpl.colormaps["inferno"](np.round(heat * 255).astype(int))[..., :3]
    assert np.abs(strip[:, 164:] - colours).max() <= 1


def words(drawn: np.ndarray) -> np.ndarray:
    """Where white letters are, on a black frame."""
    return (drawn > 140).all(2)


@pytest.mark.parametrize("size", SIZES)
def test_captions_are_legible_and_not_truncated(size):
    """A line of capital-height letters is at least 7 pixels high and 1.8 % of the frame; margins stay free."""
    drawn = draw_silent(grey(*size, 0), caption=SENTENCE)
    rows, columns = words(drawn).any(1), words(drawn).any(0)
    height, width = size
    starts = np.flatnonzero(np.diff(np.r_[False, rows, False].astype(int)) == 1)
    ends = np.flatnonzero(np.diff(np.r_[False, rows, False].astype(int)) == -1)
    letters = (ends - starts).max()
    assert letters >= max(7, 0.018 * min(size))
    assert np.flatnonzero(columns)[-1] < width - 1
    assert np.flatnonzero(rows)[-1] < height - 1
    assert starts[0] >= height / 2, "at most half of the frame"


@pytest.mark.parametrize("level", [0, 128, 255])
def test_captions_have_contrast_on_any_background(level):
    drawn = draw_silent(grey(360, 640, level), caption=SENTENCE).astype(int)
    band = drawn[-12]
    assert band.min() < 80
    assert drawn[-40:].max() > 240


def test_no_caption_if_the_style_disables_it():
    frame = grey(144, 176)
    np.testing.assert_array_equal(draw_silent(frame, style=Style(caption=False), caption="silent"), frame)
    np.testing.assert_array_equal(
        draw_overlay(frame, bump(144, 176), style=BARE, caption="x"), draw_overlay(frame, bump(144, 176), style=BARE)
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 400), (400, 8)])
def test_tiny_frames_can_be_drawn(size):
    style = Style(box=True, strip=True, legend=True)
    heat = bump(*size) if min(size) > 1 else np.ones(size, np.float32)
    drawn = draw_overlay(
        grey(*size), heat, style=style, box_xyxy=[0, 0, size[1], size[0]], peak_xy=[0, 0], caption=SENTENCE
    )
    assert drawn.shape == draw_silent(grey(*size), style=style, caption=SENTENCE).shape
