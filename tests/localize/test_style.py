"""`--style key=value`: valid values, and errors of invalid ones."""

from __future__ import annotations

import dataclasses

import matplotlib as mpl
import numpy as np
import pytest

from avloc.errors import UsageError
from avloc.localize.overlay import draw_overlay
from avloc.localize.style import COLOUR_MAPS, Style, make_style, parse_style


def test_no_assignments_give_the_default():
    assert parse_style([]) == Style()


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        *((f"colours={name}", "colours", name) for name in COLOUR_MAPS),
        ("opacity=0", "opacity", 0.0),
        ("opacity=1", "opacity", 1.0),
        (" opacity = 0.25 ", "opacity", 0.25),
        ("contour=on", "contour", 0.5),
        ("contour=off", "contour", 0.0),
        ("contour=0.8", "contour", 0.8),
        *(
            (f"{key}={text}", key, text == "on")
            for key in ("peak", "box", "strip", "legend", "caption")
            for text in ("on", "off")
        ),
    ],
)
def test_each_key_sets_its_field_and_no_other(text, key, value):
    assert parse_style([text]) == dataclasses.replace(Style(), **{key: value})


def test_assignments_combine_and_the_last_of_a_key_wins():
    style = parse_style(["strip=on", "colours=magma", "strip=off", "legend=on"])
    assert style == Style(colours="magma", legend=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("strip", ["'strip'", "key=value"]),
        ("=on", ["valid", "colours", "opacity", "contour", "peak", "box", "strip", "legend", "caption"]),
        ("colour=inferno", ["colour", "valid", "colours"]),
        ("colours=jet", ["colours=jet", *COLOUR_MAPS]),
        ("opacity=2", ["opacity=2", "0 to 1"]),
        ("opacity=nan", ["opacity=nan", "0 to 1"]),
        ("opacity=much", ["opacity=much", "0 to 1"]),
        ("contour=1", ["contour=1", "on, off", "between 0 and 1"]),
        ("contour=-0.5", ["contour=-0.5", "between 0 and 1"]),
        ("contour=nan", ["contour=nan", "between 0 and 1"]),
        ("box=yes", ["box=yes", "on, off"]),
    ],
)
def test_errors_of_invalid_assignments_name_valid_values(text, words):
    with pytest.raises(UsageError) as caught:
        parse_style([text])
    assert all(word in str(caught.value) for word in ("--style", *words)), caught.value


def test_constructed_styles_are_validated():
    with pytest.raises(UsageError, match="inferno"):
        Style(colours="jet")


@pytest.mark.parametrize(
    "values",
    [
        {"box": "on", "peak": "off", "contour": "off", "opacity": "0.5"},
        {"box": True, "peak": False, "contour": False, "opacity": 0.5},
        {"box": "on", "peak": False, "contour": 0, "opacity": np.float32(0.5)},
    ],
)
def test_a_mapping_may_have_texts_or_python_values(values):
    style = Style(box=True, peak=False, contour=0.0, opacity=0.5)
    assert make_style(values) == Style(**values) == style
    assert (make_style({"contour": True}), make_style({})) == (Style(), Style())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nonsense": 1}, ["--style nonsense", "unknown", "colours", "caption"]),
        ({3: "on"}, ["--style 3", "unknown"]),
        ({"box": "yes"}, ["box=yes", "on, off"]),
        ({"box": 1}, ["box=1", "on, off"]),
        ({"box": []}, ["box=[]", "on, off"]),
        ({"contour": 1}, ["contour=1", "on, off", "between 0 and 1"]),
        ({"opacity": None}, ["opacity=None", "0 to 1"]),
        ({"colours": None}, ["colours=None", *COLOUR_MAPS]),
    ],
)
def test_mappings_are_validated(values, words):
    with pytest.raises(UsageError) as caught:
        make_style(values)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("name", COLOUR_MAPS)
def test_colours_equal_matplotlib(name):
    heat = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(2, axis=0)
    frame = np.zeros((2, 256, 3), np.uint8)
    bare = Style(colours=name, opacity=1, contour=0, peak=False, strip=True)
    np.testing.assert_array_equal(
        draw_overlay(frame, heat, style=bare)[0, -256:], mpl.colormaps[name](range(256), bytes=True)[:, :3]
    )
