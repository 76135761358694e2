"""One timeline for all streams of a file: streams that start apart, clocks that jump, and joined recordings."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avloc.media.audio import read_sound
from avloc.media.probing import probe
from avloc.media.video_frames import read_frame, read_moment
from avloc.media.video_stream import stream_frames, stream_sound
from tests.media_makers import grey_ramp, tone
from tests.timed_video import FPS, PIPED, RATE, film, loud_span, picture_time


@pytest.mark.parametrize("start", [0.8, 5.0])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "webm"])
def test_sound_before_the_first_picture_is_used(tmp_path, ending, start):
    codecs = {"ts": {"video_codec": "libx264"}, "webm": PIPED["webm"] | {"piped": ""}}.get(ending, {})
    sound = tone(4, RATE, span=(0.1, 0.6))
    path = film(tmp_path / f"a.{ending}", pictures_start_s=start, sound=sound, **codecs)
    early = read_moment(path, seconds=1, at=start)
    assert early.time_s == pytest.approx(start, abs=0.03)
    assert picture_time(early.picture) == pytest.approx(0, abs=0.06)
    window = read_sound(path, seconds=1, centre_s=0.5)
    assert loud_span(window) == pytest.approx((0.1, 0.6), abs=0.03)
    (played,) = stream_sound(path, [0.5], seconds=1)
    np.testing.assert_array_equal(played.waveform, window.waveform)
    middle = read_moment(path, seconds=1)
    assert middle.time_s == pytest.approx(start + 2, abs=0.05)
    assert middle.sound.start_s == pytest.approx(start + 1.5, abs=0.05)


@pytest.mark.parametrize("muxer", [{"output_ts_offset": "-1", "avoid_negative_ts": "disabled"}, {}])
def test_a_file_that_starts_before_zero(tmp_path, muxer):
    path = film(tmp_path / "a.mkv", video_codec="libx264", muxer=muxer)
    with av.open(str(path)) as container:
        assert (container.start_time < 0) == bool(muxer)
    for at in (0.1, 0.7, 1.2, 2.0, 3.5):
        picture, shown_s = read_frame(path, at=at)
        assert shown_s == pytest.approx(at, abs=0.05)
        assert picture_time(picture) == pytest.approx(at, abs=0.13)
    assert loud_span(read_sound(path, seconds=1, centre_s=2.25)) == pytest.approx((2.0, 2.5), abs=0.03)


def test_failed_seek_reads_from_the_start(tmp_path, monkeypatch):
    """FLV from a pipe has no index, and Matroska may refuse times before zero."""
    from avloc.media import packets

    path = film(tmp_path / "a.mp4", options={"g": "10"})
    expected = read_moment(path, seconds=1, at=3.0)
    monkeypatch.setattr(packets, "seek_before", lambda *_: False)
    refused = read_moment(path, seconds=1, at=3.0)
    np.testing.assert_array_equal(refused.picture, expected.picture)
    np.testing.assert_array_equal(refused.sound.waveform, expected.sound.waveform)
    assert refused.time_s == expected.time_s


@given(st.integers(95_420, 95_450))
def test_33_bit_time_stamps_wrap_around(tmp_path_factory, offset):
    """2 ** 33 ticks of 90 kHz are 95443.7 s."""
    path = tmp_path_factory.mktemp("wrap") / "a.ts"
    film(path, video_codec="libx264", muxer={"output_ts_offset": str(offset)})
    moment = read_moment(path, seconds=1)
    assert moment.time_s == pytest.approx(2.0, abs=0.05)
    assert picture_time(moment.picture) == pytest.approx(2.0, abs=0.1)
    assert loud_span(moment.sound)[0] == pytest.approx(2.0, abs=0.05)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Three concatenated recordings, each with its own time stamps."""
    folder = tmp_path_factory.mktemp("ts")
    parts = [
        film(folder / f"{number}.ts", video_codec="libx264", muxer={"output_ts_offset": str(offset)})
        for number, offset in enumerate((50, 10, 4000))
    ]
    whole = folder / "all.ts"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    return whole


@pytest.mark.parametrize("time", [0.5, 1.9, 3.5, 4.5, 5.9, 7.5, 8.6, 10.0, 11.5])
def test_concatenated_recordings_share_a_timeline(recordings, time):
    part_s = probe(recordings).end_s / 3
    assert part_s == pytest.approx(4.03, abs=0.02)
    picture, shown_s = read_frame(recordings, at=time)
    assert shown_s == pytest.approx(time, abs=0.05)
    assert picture_time(picture) == pytest.approx(time % part_s, abs=0.12)


def test_audio_of_concatenated_recordings(recordings):
    part_s = probe(recordings).end_s / 3
    for part in range(3):
        window = read_sound(recordings, seconds=1, centre_s=part * part_s + 2.25)
        assert loud_span(window) == pytest.approx((part * part_s + 2.0, part * part_s + 2.5), abs=0.06)


def test_overlay_video_has_all_concatenated_recordings(here, model, recordings, tmp_path):
    done = here("localize", recordings, "--model", model, "--out", tmp_path / "h.mp4")
    assert done.code == 0, done.err
    shown = list(stream_frames(tmp_path / "h.mp4"))
    assert len(shown) == 3 * 4 * FPS
    assert all(one.end == other.start for one, other in pairwise(shown))
    assert loud_span(read_sound(tmp_path / "h.mp4", seconds=1, centre_s=10.3))[0] == pytest.approx(10.1, abs=0.1)


def remuxed(source: Path, out: Path) -> Path:
    """Remux to another container."""
    with av.open(str(source)) as given, av.open(str(out), "w") as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    return out


def test_remuxing_does_not_change_frames_or_audio(tmp_path):
    source = film(tmp_path / "a.mp4", video_codec="libx264", options={"bf": "2", "g": "20"})
    expected = [read_moment(source, seconds=1, at=time) for time in (0.5, 1.7, 3.1)]
    for ending in ("mkv", "mov", "ts", "flv", "nut"):
        copy = remuxed(source, tmp_path / f"b.{ending}")
        shift = probe(copy).pictures[0]
        for moment, time in zip(expected, (0.5, 1.7, 3.1), strict=True):
            other = read_moment(copy, seconds=1, at=time + shift)
            np.testing.assert_array_equal(other.picture, moment.picture, err_msg=f"{ending} {time}")
            assert (loud_span(other.sound) is None) == (loud_span(moment.sound) is None), ending


def joined_tracks(path: Path, *sounds: np.ndarray, seconds: float = 4.0) -> Path:
    """An MPEG-TS with several audio tracks."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, FPS)
        streams = [container.add_stream("aac", rate=RATE, layout="mono") for _ in sounds]
        ramp = grey_ramp((64, 48))
        for index in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(ramp(index / FPS), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for stream, sound in zip(streams, sounds, strict=True):
            for begin in range(0, len(sound), 1024):
                piece = av.AudioFrame.from_ndarray(sound[None, begin : begin + 1024], format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = RATE, begin, Fraction(1, RATE)
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
    return path


def test_pause_of_one_stream_is_no_time_stamp_jump(tmp_path):
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg2video", rate=5)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 5)
        audio = container.add_stream("mp2", rate=RATE, layout="mono")
        sound = tone(40, RATE)
        packets = []
        for index in range(200):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 5)
            packets += video.encode(frame)
        packets += video.encode(None)
        for begin in range(0, len(sound) - 1152, 1152):
            if not 10 <= begin / RATE < 25:
                piece = av.AudioFrame.from_ndarray(
                    (sound[None, begin : begin + 1152] * 32767).astype(np.int16), "s16", "mono"
                )
                piece.sample_rate, piece.pts, piece.time_base = RATE, begin, Fraction(1, RATE)
                packets += audio.encode(piece)
        packets += audio.encode(None)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    layout = probe(path)
    assert layout.clock.jumps == ()
    assert layout.end_s == pytest.approx(40, abs=0.3)
    for centre, silent in ((5.0, False), (17.0, True), (30.0, False)):
        assert read_sound(path, seconds=1, centre_s=centre).silent is silent


def test_all_audio_tracks_of_joined_recordings_share_a_clock(tmp_path):
    part = joined_tracks(tmp_path / "a.ts", tone(4, RATE), tone(6, RATE, span=(1, 2)))
    both = tmp_path / "both.ts"
    both.write_bytes(2 * part.read_bytes())
    first, second = probe(both, 1), probe(both, 2)
    assert first.clock == second.clock
    assert len(first.clock.jumps) == 1
    assert first.pictures == second.pictures
    start_s = float(first.clock.shifts[1])
    assert start_s == pytest.approx(6.0, abs=0.1)
    window = read_sound(both, seconds=2, centre_s=start_s + 1.5, track=2)
    assert loud_span(window) == pytest.approx((start_s + 1, start_s + 2), abs=0.1)
    picture, _ = read_frame(both, at=start_s + 2)
    assert picture_time(picture) == pytest.approx(2.0, abs=0.15)
