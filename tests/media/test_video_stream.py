"""Streaming a file gives the same frames and windows as single reads, and written videos match their input."""

from __future__ import annotations

from itertools import count, islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avloc.errors import InputError
from avloc.media.audio import read_sound
from avloc.media.probing import probe
from avloc.media.video_frames import read_frame
from avloc.media.video_stream import stream_frames, stream_sound
from tests.media_makers import grey_ramp, make_coded_sound, make_sound, make_video, noise, tone
from tests.timed_video import FPS, film

RATE = 16_000
CENTRES = [0.0, 0.4, 1.5, 2.2, 3.9, 4.0, 7.5]


def assert_same_windows(path, centres, **how):
    played = list(stream_sound(path, centres, **how))
    assert len(played) == len(centres)
    for centre, window in zip(centres, played, strict=True):
        read = read_sound(path, centre_s=centre, **how)
        np.testing.assert_allclose(window.waveform, read.waveform, atol=2e-4, err_msg=f"at {centre}")
        assert (window.start_s, window.rate, window.source_rate) == (read.start_s, read.rate, read.source_rate)
        assert (window.short, window.silent) == (read.short, read.silent)


@pytest.mark.parametrize("ending", ["wav", "flac", "mp4", "mkv", "webm"])
@pytest.mark.parametrize("rate", [0, 22_050])
def test_streamed_windows_equal_single_reads(tmp_path, ending, rate):
    sound, path = noise(4, RATE), tmp_path / f"a.{ending}"
    if ending in ("wav", "flac"):
        make_sound(path, sound, RATE)
    elif ending == "webm":
        make_video(path, sound=noise(4, 48_000), rate=48_000, video_codec="libvpx", audio_codec="libopus")
    else:
        make_video(path, sound=sound, rate=RATE)
    assert_same_windows(path, CENTRES, seconds=1.5, rate=rate)


def test_short_audio_is_tiled(tmp_path):
    assert_same_windows(make_sound(tmp_path / "a.wav", noise(1, RATE), RATE), CENTRES, seconds=3, rate=22_050)


@given(
    st.lists(st.floats(0, 75), min_size=1, max_size=6).map(sorted),
    st.sampled_from([0.5, 3.0, 10.0]),
    st.sampled_from([0, 8_000, 22_050]),
)
def test_long_audio_is_streamed_in_chunks(tmp_path_factory, centres, seconds, rate):
    path = tmp_path_factory.getbasetemp() / "long.wav"
    if not path.exists():
        make_sound(path, noise(70, 8_000), 8_000)
    assert_same_windows(path, centres, seconds=seconds, rate=rate)


def test_seek_into_long_compressed_audio(tmp_path):
    sound = tone(90, RATE, span=(71.0, 72.0)) + 0.1 * noise(90, RATE)
    for name, codec in (("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.opus", "libopus")):
        path = make_coded_sound(tmp_path / name, sound, 48_000 if "opus" in name else RATE, codec)
        (window,) = stream_sound(path, [24.0 if "opus" in name else 71.5], seconds=3)
        loud = np.flatnonzero(np.abs(window.waveform) > 0.35) / window.rate + window.start_s
        scale = 3 if "opus" in name else 1  # the same samples, played three times as fast
        assert (loud[0], loud[-1]) == pytest.approx((71 / scale, 72 / scale), abs=0.02), name


def test_streaming_long_audio_bounds_memory(tmp_path, monkeypatch):
    from avloc.media import video_stream

    path = make_sound(tmp_path / "a.wav", noise(70, 8_000), 8_000)
    held = []
    concatenate = video_stream.concatenate

    def recorded(chunks, losses):
        held.append(sum(chunk.samples.shape[1] for chunk in chunks) / 8_000)
        return concatenate(chunks, losses)

    monkeypatch.setattr(video_stream, "concatenate", recorded)
    assert len(list(stream_sound(path, [float(t) for t in range(0, 70, 5)], seconds=3))) == 14
    assert max(held) < 6.5


def test_windows_past_the_end_of_audio_are_silent(tmp_path):
    path = make_sound(tmp_path / "a.wav", noise(4, RATE), RATE)
    windows = list(islice(stream_sound(path, count(0, 4), seconds=3, clip_end_s=20), 5))
    assert [window.silent for window in windows] == [False, False, True, True, True]


def test_unusable_audio_is_refused_with_reason(tmp_path):
    for source, reason in (
        (make_video(tmp_path / "mute.mp4"), "has no sound"),
        (make_sound(tmp_path / "empty.wav", np.zeros(0, np.float32), RATE), "no packets"),
        (make_sound(tmp_path / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT"), "not numbers"),
    ):
        with pytest.raises(InputError, match=reason):
            list(stream_sound(source, [0.0], seconds=1))


# --- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts", "webm"])
def test_streamed_frames_equal_single_reads(tmp_path, ending):
    codec = {"webm": "libvpx", "ts": "libx264"}.get(ending, "mpeg4")
    path = make_video(tmp_path / f"a.{ending}", seconds=3, fps=10, frame_fn=grey_ramp((64, 48)), video_codec=codec)
    played = list(stream_frames(path))
    assert len(played) == 30
    for shown in played:
        middle = float(shown.start + shown.end) / 2
        picture, time_s = read_frame(path, at=middle)
        np.testing.assert_array_equal(shown.picture(), picture)
        assert float(shown.start) == pytest.approx(time_s, abs=1e-3)
    for one, other in pairwise(played):
        assert one.end == other.start > one.start


def test_variable_frame_rate_is_kept(tmp_path):
    times = [0.0, 0.1, 0.15, 0.6, 0.601, 1.4, 1.5]
    path = make_video(tmp_path / "a.mkv", times=times)
    assert [round(float(shown.start), 3) for shown in stream_frames(path)] == times
    assert [float(shown.end) for shown in stream_frames(path)][:-1] == pytest.approx(times[1:])


@given(st.floats(0, 2.9), st.floats(0.001, 4))
def test_range_clips_first_and_last_frame(tmp_path_factory, start, length):
    path = tmp_path_factory.getbasetemp() / "part.mp4"
    if not path.exists():
        make_video(path, seconds=3, fps=10, frame_fn=grey_ramp((64, 48)), options={"g": "7"})
    whole, stop = list(stream_frames(path)), start + length
    part = list(stream_frames(path, start_s=start, stop_s=stop))
    kept = [shown for shown in whole if shown.end > start + 1e-4 and shown.start <= stop - 1e-4]
    assert [shown.decoded.frame.pts for shown in part] == [shown.decoded.frame.pts for shown in kept]
    assert float(part[0].start) == max(start, float(kept[0].start))
    assert float(part[-1].end) == pytest.approx(min(stop, float(kept[-1].end)))


def test_range_beyond_the_end_is_refused(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=2)
    with pytest.raises(InputError, match=r"no picture at 5 s: the video ends at 2\.000 s"):
        list(stream_frames(path, start_s=5.0))


def test_truncated_video_is_distinguished_from_a_short_one(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=4, faststart=True, sound=tone(4, RATE), rate=RATE)
    data = path.read_bytes()
    assert probe(path).cut_off == ""
    path.write_bytes(data[: len(data) * 6 // 10])
    assert "is cut off: it should have pictures until 4.000 s" in probe(path).cut_off
    assert 5 < len(list(stream_frames(path))) < 30


def test_frames_before_damage_are_returned(tmp_path):
    """Without a key frame in between, and with several frames buffered in the decoder."""
    path = film(tmp_path / "a.mp4", video_codec="libx264", options={"bf": "3"}, faststart=True)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    times = []
    with pytest.raises(InputError, match="cannot be decoded"):
        for shown in stream_frames(path):
            times.append(float(shown.start))
    assert times == pytest.approx(np.arange(len(times)) / FPS)
    assert len(times) > 10
