"""Frames in presentation order and as displayed: palettes, mirroring, transparency, damage."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from avloc.errors import InputError
from avloc.media.probing import probe
from avloc.media.video_frames import read_frame
from avloc.media.video_stream import stream_frames
from tests.media_makers import disc, grey_ramp, make_video
from tests.timed_video import FPS, film, picture_time


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


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("depth", ["0", "1", "3"])
def test_avi_frames_are_in_presentation_order(tmp_path, codec, depth):
    options = {"bf": depth, "g": "20"} | ({"b_strategy": "0"} if codec == "mpeg4" else {"b-adapt": "0"})
    path = film(tmp_path / "a.avi", video_codec=codec, options=options, audio_codec="libmp3lame")
    for time in (0.0, 0.4, 1.0, 1.44, 2.0, 2.6, 3.0, 3.9):
        picture, shown_s = read_frame(path, at=time)
        assert shown_s == pytest.approx(time, abs=1 / FPS + 1e-6)
        # FFmpeg's muxer leaves the second slot empty, so that frames are one late.
        assert picture_time(picture) == pytest.approx(shown_s, abs=0.13)
    starts = [float(shown.start) for shown in stream_frames(path)]
    assert all(one < other for one, other in pairwise(starts))
