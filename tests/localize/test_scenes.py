"""Times and sounds of an input: the place in a long sound, sounds before the first picture, and unusable files."""

from __future__ import annotations

import numpy as np
import pytest

from tests.json_output import json_lines
from tests.media_makers import make_sound, tone
from tests.timed_video import RATE, film


def test_localize_uses_the_sound_before_the_first_picture(here, model, tmp_path):
    path = film(tmp_path / "a.mp4", pictures_start_s=0.8, sound=tone(4, RATE, span=(0.1, 0.6)))
    (line,) = json_lines(here("localize", path, "--model", model, "--at", "0.8", "--json").out)
    assert line["silent"] is False
    assert line["window_s"] == pytest.approx([0.0, 3.0])


def test_short_audio_reports_its_end(here, model, tmp_path):
    path = film(tmp_path / "a.mkv", seconds=1, sound=tone(0.05, RATE), audio_codec="pcm_s16le")
    (line,) = json_lines(here("localize", path, "--model", model, "--json").out)
    assert line["window_s"] == pytest.approx([0.0, 0.05], abs=1e-3)
    assert line["tiled"] is True
    (line,) = json_lines(here("localize", film(tmp_path / "b.mp4"), "--model", model, "--json").out)
    assert line["window_s"] == pytest.approx([0.5, 3.5], abs=0.02)
    assert line["tiled"] is False


def test_unusable_audio_file_is_named(here, model, picture, tmp_path):
    (tmp_path / "t.txt").write_text("no sound at all\n" * 40)
    (tmp_path / "nothing.wav").write_bytes(b"")
    make_sound(tmp_path / "empty.wav", np.zeros(0, np.float32), RATE)
    video = film(tmp_path / "mute.mp4", sound=None)
    for name, reason in (
        ("t.txt", ""),
        ("nothing.wav", "is empty (0 bytes)"),
        ("empty.wav", "is empty"),
        ("mute.mp4", "has no sound"),
    ):
        for source in (picture, video):
            done = here("localize", source, "--audio", tmp_path / name, "--model", model, "--out", tmp_path / "h.png")
            assert done.code == 3
            assert f"--audio {tmp_path / name}: {reason}" in done.err
    done = here("localize", picture, "--audio", tmp_path, "--model", model)
    assert (done.code, f"--audio: {tmp_path} is not a file" in done.err) == (2, True)


def test_at_chooses_the_place_in_the_sound_of_a_picture(here, model, picture, tmp_path):
    sound = make_sound(tmp_path / "a.wav", tone(100, 16_000, span=(80, 81)), 16_000)
    run = ("localize", picture, "--audio", sound, "--model", model, "--json")
    assert json_lines(here(*run).out)[0]["silent"] is True
    (line,) = json_lines(here(*run, "--at", "80.5").out)
    assert (line["silent"], line["window_s"]) == (False, [79.0, 82.0])
    done = here(*run, "--at", "100")
    assert done.code == 3
    assert f"--audio {sound}: has no sound at 100 s: it ends at 100.000 s" in done.err
    done = here(*run, "--every", "1")
    assert "apply to videos only" in done.err
