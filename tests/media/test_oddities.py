"""Unusual files from public bug reports: colours, mirroring, damage, joined or undecodable streams, long names."""

from __future__ import annotations

import json
import re
import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from avloc.errors import InputError
from avloc.files import atomic_path
from avloc.media.audio import read_sound
from avloc.media.probing import probe
from avloc.media.video_frames import read_frame, read_moment
from avloc.media.video_stream import stream_frames
from tests.media_makers import disc, grey_ramp, make_coded_sound, make_sound, make_video, tone
from tests.timed_video import FPS, RATE, film, loud_span, picture_time


def remuxed(source: Path, out: Path) -> Path:
    """Remux to another container."""
    with av.open(str(source)) as given, av.open(str(out), "w") as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    return out


# --- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["avi", "mov"])
def test_palette_survives_a_seek(tmp_path, ending):
    """The palette is in the first packet, and FFmpeg drops it when seeking."""
    path = tmp_path / f"a.{ending}"
    palette = np.full((256, 4), 255, np.uint8)
    palette[:50, 1:] = 20 + 4 * np.arange(50)[:, None]
    with av.open(str(path), "w") as container:
        video = container.add_stream("rawvideo", rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "pal8"
        video.codec_context.time_base = Fraction(1, FPS)
        for index in range(50):
            frame = av.VideoFrame.from_ndarray((np.full((48, 64), index, np.uint8), palette), format="pal8")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    for time in (0.0, 0.6, 1.0, 1.8):
        assert read_frame(path, at=time)[0].mean() == pytest.approx(20 + 4 * FPS * time, abs=5)


MATRICES = {
    "mirrored": ((-1, 0, 0, 1), lambda rgb: rgb[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda rgb: rgb[::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda rgb: rgb[::-1, ::-1]),
    "a quarter to the right": ((0, 1, -1, 0), lambda rgb: np.rot90(rgb, -1)),
    "a quarter to the left": ((0, -1, 1, 0), np.rot90),
    "across": ((0, 1, 1, 0), lambda rgb: rgb.transpose(1, 0, 2)),
    "across the other way": ((0, -1, -1, 0), lambda rgb: rgb[::-1, ::-1].transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrix_is_applied(tmp_path, name):
    """X' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 8.3.2); phone cameras mirror."""
    corners = np.full((48, 64, 3), 20, np.uint8)
    corners[:16, :24], corners[:16, 40:], corners[32:, :24] = 240, 160, 90
    path = make_video(tmp_path / "a.mp4", seconds=1, frame_fn=lambda _t: corners)
    plain, _ = read_frame(path)
    (a, b, c, d), expected = MATRICES[name]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_frame(path)[0], expected(plain))


def test_extreme_pixel_aspect_is_ignored(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=1, pixel_aspect=Fraction(1, 2))
    assert read_frame(path)[0].shape == (48, 32, 3)
    data = bytearray(path.read_bytes())
    at = data.index(b"pasp") + 4
    data[at : at + 8] = struct.pack(">2I", 65_535, 1)
    path.write_bytes(data)
    assert read_frame(path)[0].shape == (48, 64, 3)


def test_transparent_frames_are_composited_on_white(tmp_path):
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[:, 32:] = (200, 40, 40, 255)
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        video = container.add_stream("png", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "rgba"
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        container.mux(video.encode(None))
    picture, _ = read_frame(path)
    assert (picture[:, :32] == 255).all()
    assert (picture[:, 32:] == (200, 40, 40)).all()


def test_frames_without_time_stamps_are_counted(tmp_path):
    path = make_video(
        tmp_path / "a.h264",
        fps=FPS,
        frame_fn=grey_ramp((64, 48)),
        video_codec="libx264",
        options={"bf": "2", "b-adapt": "0"},
    )
    starts = [float(shown.start) for shown in stream_frames(path)]
    assert starts == pytest.approx(np.arange(4 * FPS) / FPS)
    picture, shown_s = read_frame(path)
    assert shown_s == pytest.approx(2.0, abs=0.05)
    assert picture_time(picture) == pytest.approx(shown_s, abs=0.1)


@pytest.fixture
def one_damaged(tmp_path) -> Path:
    """Intra-coded video whose frame at 3 s cannot be decoded."""
    path = film(
        tmp_path / "whole.mov",
        video_codec="png",
        pix_fmt="rgb24",
        frame_fn=lambda t: disc((64, 48), (0.2 + 0.1 * t, 0.5)),
    )
    out = tmp_path / "damaged.mov"
    with av.open(str(path)) as given, av.open(str(out), "w") as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.size and packet.stream.type == "video" and packet.pts * packet.time_base == 3:
                damaged = av.Packet(bytes(packet.size))
                damaged.pts, damaged.dts, damaged.time_base = packet.pts, packet.dts, packet.time_base
                damaged.duration, damaged.stream = packet.duration, copies[packet.stream.index]
                target.mux(damaged)
            elif packet.size:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    return out


def test_frames_after_a_damaged_one_are_read(one_damaged):
    whole = one_damaged.with_name("whole.mov")
    for time in (0.5, 2.9, 2.96, 3.04, 3.3, 3.9):
        np.testing.assert_array_equal(read_frame(one_damaged, at=time)[0], read_frame(whole, at=time)[0])
    with pytest.raises(InputError, match="its picture at 3 s is damaged"):
        read_frame(one_damaged, at=3.0)
    shown = list(stream_frames(one_damaged))
    assert 4 * FPS - 8 < len(shown) < 4 * FPS
    assert [one.decoded.damaged for one in shown].count(True) == 1
    assert all(one.end == other.start for one, other in pairwise(shown))


def test_video_with_a_damaged_frame_is_rendered_with_a_notice(here, model, one_damaged, tmp_path):
    done = here("localize", one_damaged, "--model", model, "--out", tmp_path / "h.mp4")
    assert done.code == 1
    # Frame threading loses some more frames.
    assert re.search(r"has pictures before 3\.\d+ s that cannot be decoded", done.err)
    assert probe(tmp_path / "h.mp4").pictures[1] == pytest.approx(4.0, abs=0.05)


# --- sound ------------------------------------------------------------------------------------------------------


def test_chained_ogg_is_read_to_its_end(tmp_path):
    one = make_coded_sound(tmp_path / "1.opus", tone(4, RATE, span=(1, 1.5)), RATE, "libopus")
    other = make_coded_sound(tmp_path / "2.opus", tone(4, RATE, span=(2, 2.5)), RATE, "libopus")
    both = tmp_path / "both.opus"
    both.write_bytes(one.read_bytes() + other.read_bytes())
    assert probe(both).end_s == pytest.approx(8.0, abs=0.1)
    assert loud_span(read_sound(both, seconds=1, centre_s=6.25)) == pytest.approx((6.0, 6.5), abs=0.1)


def test_joined_mp3_loses_no_more_than_a_packet(tmp_path):
    """Joined with their tags, as podcasts are: there is non-audio data between the two."""
    one = make_coded_sound(tmp_path / "1.mp3", tone(4, RATE, span=(1, 1.5)), RATE, "libmp3lame")
    both = tmp_path / "both.mp3"
    both.write_bytes(2 * one.read_bytes())
    window = read_sound(both, seconds=3)
    assert window.lost_s < 0.1
    assert probe(both).end_s == pytest.approx(8.0, abs=0.2)
    assert loud_span(read_sound(both, seconds=1, centre_s=5.25)) == pytest.approx((5.0, 5.5), abs=0.15)


def test_damaged_audio_is_refused_only_inside_the_window(tmp_path):
    path = make_coded_sound(tmp_path / "a.mka", 0.1 + tone(8, RATE), RATE, "ac3")
    out = tmp_path / "b.mka"
    with av.open(str(path)) as given, av.open(str(out), "w") as target:
        copy = target.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux():
            if not packet.size:
                continue
            damaged = 2 <= packet.pts * packet.time_base < 3
            written = av.Packet(bytes(packet.size) if damaged else bytes(packet))
            written.pts, written.dts, written.time_base = packet.pts, packet.dts, packet.time_base
            written.stream = copy
            target.mux(written)
    assert read_sound(out, seconds=1, centre_s=5.0).lost_s == 0
    with pytest.raises(InputError, match=r"its sound is damaged \(\d\.\d\d s of 3 s\)"):
        read_sound(out, seconds=3, centre_s=2.5)


@pytest.mark.parametrize("channels", [9, 12, 16])
def test_more_channels_than_eight(tmp_path, channels):
    sound = np.zeros((channels, 3 * 16_000), np.float32)
    sound[0] = tone(3, 16_000)
    window = read_sound(make_sound(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT"), seconds=3)
    assert np.abs(window.waveform).max() == pytest.approx(0.5 / channels if channels < 10 else 0.5, abs=1e-3)


def test_short_audio_of_a_longer_video_is_not_tiled(tmp_path):
    path = film(tmp_path / "a.mp4", seconds=10, sound=tone(2, RATE))
    late = read_moment(path, seconds=3, at=6.0)
    assert (late.sound.silent, late.sound.short) == (True, False)
    early = read_moment(path, seconds=3, at=1.0)
    assert loud_span(early.sound) == pytest.approx((0.0, 2.0), abs=0.03)
    assert early.sound.end_s == 3.0


# --- streams that cannot be decoded -----------------------------------------------------------------------------


def unknown(path: Path, kind: bytes, count: int = 1) -> Path:
    """Give the first tracks of a type an unknown codec."""
    data = bytearray(path.read_bytes())
    at = 0
    for _ in range(count):
        at = data.index(kind, at + 1)
        data[at : at + 4] = b"zzzz"
        if kind == b"mp4a":
            esds = data.index(b"esds", at)
            data[esds : esds + 4] = b"sdse"
    out = path.with_name(f"unknown-{path.name}")
    out.write_bytes(data)
    return out


def test_undecodable_track_is_not_selected(here, model, tmp_path):
    """Phones record a spatial track in addition to the usual one."""
    one = film(tmp_path / "a.mp4", audio_codec="aac")
    two = tmp_path / "two.mp4"
    with av.open(str(one)) as given, av.open(str(one)) as again, av.open(str(two), "w") as target:
        streams = [*given.streams, again.streams.audio[0]]
        copies = [target.add_stream_from_template(stream) for stream in streams]
        packets = [(stream, copy) for stream, copy in zip(given.streams, copies, strict=False)]
        held = []
        for packet in given.demux():
            if packet.size:
                held.append((packets[packet.stream.index][1], packet))
        held += [(copies[2], packet) for packet in again.demux(again.streams.audio[0]) if packet.size]
        for copy, packet in sorted(held, key=lambda pair: float(pair[1].dts * pair[1].time_base)):
            packet.stream = copy
            target.mux(packet)
    half = unknown(two, b"mp4a")
    assert loud_span(read_moment(half, seconds=1).sound)[0] == pytest.approx(2.0, abs=0.05)
    done = here("localize", half, "--model", model, "--json")
    assert "has 2 sound tracks: 2 (aac, mono) is used, not 1 (cannot be decoded)" in done.err
    assert json.loads(done.out)["silent"] is False
    with pytest.raises(InputError, match="has a sound that cannot be decoded"):
        read_moment(unknown(one, b"mp4a"), seconds=1)
    assert read_frame(unknown(one, b"mp4a"))[1] == pytest.approx(2.0, abs=0.05)


def test_undecodable_video_is_refused(tmp_path):
    path = unknown(film(tmp_path / "a.mp4", video_codec="libx264"), b"avc1", 2)
    with pytest.raises(InputError, match="has a picture that cannot be decoded"):
        read_moment(path, seconds=1)
    assert loud_span(read_sound(path, seconds=1, centre_s=2.25)) == pytest.approx((2.0, 2.5), abs=0.05)


def test_file_without_data_is_refused(tmp_path):
    path = film(tmp_path / "a.webm", video_codec="libvpx", audio_codec="libopus")
    path.write_bytes(path.read_bytes()[:110])
    with pytest.raises(InputError, match="ends before its first picture or sound"):
        read_moment(path, seconds=1)


def test_middle_of_fragments_that_start_late(tmp_path):
    """Part of a live stream: its time stamps, and so FFmpeg's duration, count from the start of the stream."""
    muxer = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "output_ts_offset": "20"}
    path = film(tmp_path / "a.mp4", muxer=muxer, options={"g": "10"})
    moment = read_moment(path, seconds=1)
    assert moment.time_s == pytest.approx(2.0, abs=0.1)
    assert picture_time(moment.picture) == pytest.approx(2.0, abs=0.1)
    assert probe(path).cut_off == ""


# --- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "a" * 244, "x.png"])
def test_longest_file_name_can_be_written(tmp_path, name):
    with atomic_path(tmp_path / name) as part:
        part.write_bytes(b"1")
    assert (tmp_path / name).read_bytes() == b"1"
    assert len(list(tmp_path.iterdir())) == 1


def test_too_long_output_name_fails_only_its_input(here, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "a.mp4")
    for length in (240, 250):
        film(tmp_path / "short.mp4").rename(tmp_path / f"{length * 'b'}.mp4")
    done = here("localize", f"{250 * 'b'}.mp4", f"{240 * 'b'}.mp4", "a.mp4", "--model", model)
    assert done.code == 1
    assert "its output name is too long" in done.err
    assert sorted(path.name for path in tmp_path.glob("*.heat.png")) == ["a.heat.png", f"{240 * 'b'}.heat.png"]


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


# --- streams of their own ---------------------------------------------------------------------------------------


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


def test_truncated_audio_is_reported(here, model, tmp_path):
    from tests.media_makers import make_picture

    picture = make_picture(tmp_path / "a.jpg", disc((64, 48), (0.5, 0.5)))
    whole = tmp_path / "a.m4a"
    make_coded_sound(tmp_path / "plain.m4a", tone(60, RATE), RATE, "aac")
    with (
        av.open(str(tmp_path / "plain.m4a")) as given,
        av.open(str(whole), "w", format="mp4", options={"movflags": "faststart"}) as target,
    ):
        copy = target.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux():
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    end_s = probe(whole).sound[1]
    assert end_s < 30
    run = ("localize", picture, "--audio", whole, "--model", model, "--json")
    done = here(*run)
    line, note = (json.loads(text) for text in done.out.splitlines())
    assert (done.code, line["silent"]) == (1, False)
    assert f"--audio {whole}: is cut off: it should have sound until 60" in note["error"]
    done = here(*run, "--at", "50")
    assert (done.code, "has no sound at 50 s" in done.err) == (3, True)
    assert here(*run, "--at", "5").code == 0


def test_changing_sample_rate_is_resampled_only_with_time_stamps(tmp_path):
    parts = []
    for rate in (44_100, RATE):
        parts.append(
            film(tmp_path / f"{rate}.ts", video_codec="libx264", sound=tone(4, rate, span=(2, 2.5)), rate=rate)
        )
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    start_s = float(probe(both).clock.shifts[1])
    window = read_sound(both, seconds=1, centre_s=start_s + 2.25)
    assert window.source_rate == 44_100
    assert loud_span(window)[0] == pytest.approx(start_s + 2.0, abs=0.1)
    sounds = [make_coded_sound(tmp_path / f"{rate}.aac", tone(4, rate), rate, "aac") for rate in (44_100, RATE)]
    plain = tmp_path / "both.aac"
    plain.write_bytes(b"".join(sound.read_bytes() for sound in sounds))
    with pytest.raises(InputError, match="its sample rate changes within the stream"):
        read_sound(plain, seconds=1, centre_s=6.0)
