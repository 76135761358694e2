"""Streams that cannot be decoded, and files without data."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import av
import pytest

from avloc.errors import InputError
from avloc.media.audio import read_sound
from avloc.media.video_frames import read_frame, read_moment
from tests.timed_video import film, loud_span

_REFUSED = r"cannot be decoded \(a playlist or another format that opens other files, or damaged\)"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
PLAYLISTS = {
    "ffconcat": ("evil.mp4", "ffconcat version 1.0\nfile {}\n", "secret.mp4"),
    "HLS": ("evil.m3u8", HLS, "secret.ts"),
    "MLV": ("evil.mp4", "MLVI4\0\0\0v2.0" + "\0" * 64 + "{}", "evil.m00"),
    "SDP": ("evil.mp4", SDP, "secret.mp4"),
    "VobSub": ("evil.idx", "# VobSub index file, v7 {}\nid: en, index: 0\n", "evil.sub"),
    "planes": ("evil.Y", "no planes: {}", "evil.U"),
    "numbered": ("evil%01d.jpg", "no picture: {}", "evil1.jpg"),
}


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


@pytest.mark.timeout(120)
@pytest.mark.parametrize("secret", ["video", "absent", "fifo"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_formats_that_name_other_files_are_refused_before_those_are_opened(tmp_path, kind, secret):
    """A named pipe would block if it were opened, and the reason would be another if an absent file were."""
    name, text, other = PLAYLISTS[kind]
    (tmp_path / name).write_text(text.format(other))
    if secret == "video":
        shutil.copy(film(tmp_path / "good.mp4"), tmp_path / other)
    elif secret == "fifo":
        os.mkfifo(tmp_path / other)
    with pytest.raises(InputError, match=_REFUSED):
        read_frame(tmp_path / name)
    with (tmp_path / name).open("rb") as file, pytest.raises(InputError, match=_REFUSED):
        read_frame(file)


def test_a_playlist_opens_no_connection_and_is_one_without_a_name_too(here, model, tmp_path):
    path = tmp_path / "list.m3u8"
    path.write_text(HLS.format("http://127.0.0.1:9/a.ts"))
    with pytest.raises(InputError, match=_REFUSED):
        read_frame(path)
    film(tmp_path / "secret.mp4")
    text = PLAYLISTS["ffconcat"][1].format(tmp_path / "secret.mp4")
    with pytest.raises(InputError, match=_REFUSED):
        read_frame(io.BytesIO(text.encode()))
    (tmp_path / "evil.mp4").write_text(text)
    done = here("localize", tmp_path / "evil.mp4", "--model", model, "--json")
    assert done.code != 0
    assert "a playlist or another format that opens other files" in done.err
