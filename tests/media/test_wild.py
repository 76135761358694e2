"""Files as they are found: no length in the header, streams that start apart, clocks that jump, ends that are missing.

Every file shows grey that says the time, 20 + 20 t, and has a tone from 2 to 2.5 s, both counted from its own start.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import threading
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avloc.errors import InputError
from avloc.media.audio import read_sound
from avloc.media.probing import probe
from avloc.media.video_frames import read_frame, read_moment
from avloc.media.video_stream import stream_frames, stream_sound
from avloc.prepare.clips import Job, Skip, make_clip
from avloc.prepare.sources import Source
from avloc.registry import StoreSpec
from tests.media_makers import disc, make_coded_sound, make_picture, make_sound, tone
from tests.processes import start
from tests.timed_video import FPS, RATE, film, loud_span, picture_time

PIPED = {
    "mkv": {"piped": "matroska"},
    "webm": {"piped": "webm", "video_codec": "libvpx", "audio_codec": "libopus"},
    "live.webm": {"muxer": {"live": "1"}, "video_codec": "libvpx", "audio_codec": "libopus"},
    "asf": {"piped": "asf", "audio_codec": "libmp3lame"},
    "flv": {"piped": "flv", "video_codec": "flv"},
    "zeroed.mp4": {},
}
"""Ways to write a file without duration."""


def without_length(folder: Path, kind: str) -> Path:
    path = film(folder / f"a.{kind}", **PIPED[kind])
    if kind == "zeroed.mp4":
        data = bytearray(path.read_bytes())
        for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
            at = -1
            while (at := data.find(box, at + 1)) >= 0:
                data[at + offset : at + offset + 4] = bytes(4)
        path.write_bytes(data)
    return path


def prepared(path: Path, at: float | None = None):
    source = Source(id="a", kind="video", path=path)
    return make_clip(Job(source=source, spec=StoreSpec(seconds=1.0, rate=16_000, shorter_side=48), at=at))


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# --- files without duration -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in PIPED if kind not in ("asf", "flv")])
def test_material_has_no_duration(tmp_path, kind):
    with av.open(str(without_length(tmp_path, kind))) as container:
        assert container.duration is None
        assert not any(stream.duration for stream in container.streams)


@pytest.mark.parametrize("kind", PIPED)
def test_the_middle_of_a_file_without_a_length(tmp_path, kind):
    path = without_length(tmp_path, kind)
    moment = read_moment(path, seconds=1)
    assert moment.time_s == pytest.approx(2.0, abs=0.03)
    assert picture_time(moment.picture) == pytest.approx(2.0, abs=0.06)
    assert moment.sound.start_s == pytest.approx(1.5, abs=0.03)
    assert loud_span(moment.sound)[0] == pytest.approx(2.0, abs=0.03)
    whole = read_moment(io.BytesIO(path.read_bytes()), seconds=1)
    np.testing.assert_array_equal(whole.picture, moment.picture)
    np.testing.assert_array_equal(whole.sound.waveform, moment.sound.waveform)


@pytest.mark.parametrize("kind", ["mkv", "live.webm", "zeroed.mp4"])
def test_every_command_finds_the_middle_of_a_file_without_a_length(here, model, tmp_path, kind):
    path = without_length(tmp_path, kind)
    clip = prepared(path).clip
    assert clip.time_s == pytest.approx(2.0, abs=0.03)
    assert clip.window_s == pytest.approx(1.5, abs=0.03)
    done = here("localize", path, "--model", model, "--json", "--out", tmp_path / "h.mp4")
    times = [line["time_s"] for line in lines(done.out)]
    assert times == pytest.approx([0.4, 1.2, 2.0, 2.8, 3.6], abs=0.05)
    assert read_frame(tmp_path / "h.mp4", at=3.9)[1] == pytest.approx(3.9, abs=0.05)
    (line,) = lines(here("localize", path, "--model", model, "--json").out)
    assert line["time_s"] == pytest.approx(2.0, abs=0.03)


def test_a_time_past_the_end_of_a_file_without_a_length(tmp_path):
    with pytest.raises(InputError, match=r"no picture at 6 s: the video ends at 4\.000 s"):
        read_moment(without_length(tmp_path, "mkv"), seconds=1, at=6.0)


@pytest.mark.parametrize("ending", ["mp3", "aac", "ac3", "flac"])
def test_the_middle_of_a_sound_whose_length_is_an_estimate(tmp_path, ending):
    """Silence takes few bits, so a duration estimated from the bit rate is wrong."""
    codec = {"mp3": "libmp3lame", "aac": "aac", "ac3": "ac3", "flac": "flac"}[ending]
    sound = tone(160, RATE, span=(79.5, 80.5))
    window = read_sound(make_coded_sound(tmp_path / f"a.{ending}", sound, RATE, codec), seconds=3)
    assert window.start_s == pytest.approx(78.5, abs=0.1)
    assert loud_span(window) == pytest.approx((79.5, 80.5), abs=0.05)


# --- two streams, one clock -------------------------------------------------------------------------------------


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


def test_localize_uses_the_sound_before_the_first_picture(here, model, tmp_path):
    path = film(tmp_path / "a.mp4", pictures_start_s=0.8, sound=tone(4, RATE, span=(0.1, 0.6)))
    (line,) = lines(here("localize", path, "--model", model, "--at", "0.8", "--json").out)
    assert line["silent"] is False
    assert line["window_s"] == pytest.approx([0.0, 3.0])


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


# --- time stamp jumps -------------------------------------------------------------------------------------------


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


# --- truncated files -------------------------------------------------------------------------------------------


def cut(path: Path, share: float = 0.6) -> Path:
    data = path.read_bytes()
    out = path.with_name(f"cut-{path.name}")
    out.write_bytes(data[: int(len(data) * share)])
    return out


def promising(path: Path, times: int) -> Path:
    """An AVI whose header declares a multiple of its length."""
    data = bytearray(path.read_bytes())
    main = data.index(b"avih") + 8 + 16
    places, at = [main], 0
    for _ in range(2):
        at = data.index(b"strh", at + 1)
        places.append(at + 8 + 32)
    for place in places:
        (count,) = struct.unpack_from("<I", data, place)
        struct.pack_into("<I", data, place, count * times)
    out = path.with_name(f"promising-{path.name}")
    out.write_bytes(data)
    return out


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("broken")
    many = {"options": {"g": "10"}, "sound": 0.1 * np.sin(np.arange(4 * RATE) ** 1.2).astype(np.float32)}
    return {
        "mp4": cut(film(folder / "a.mp4", faststart=True, **many)),
        "mkv": cut(film(folder / "a.mkv", **many)),
        "avi": promising(film(folder / "a.avi", audio_codec="libmp3lame"), 600),
    }


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_localize_uses_the_middle_of_a_truncated_file(here, model, broken, tmp_path, kind):
    end_s = probe(broken[kind]).pictures[1]
    done = here("localize", broken[kind], "--model", model, "--json", "--out", tmp_path / "h.png")
    assert done.code == 1
    line, note = lines(done.out)
    assert line["error"] is None
    assert line["time_s"] == pytest.approx(end_s / 2, abs=0.05)
    assert (tmp_path / "h.png").is_file()
    assert f"{end_s:.3f} s" in note["error"]
    assert note["error"] in done.err
    assert note["time_s"] is None


@pytest.mark.parametrize("out", ["h.npy", "h-{time}.png"])
def test_localize_maps_all_times_of_a_truncated_file(here, model, broken, tmp_path, out):
    path = broken["mp4"]
    end_s = probe(path).pictures[1]
    done = here("localize", path, "--model", model, "--every", "0.5", "--json", "--out", tmp_path / out)
    assert done.code == 1
    *moments, note = lines(done.out)
    assert [line["time_s"] for line in moments] == pytest.approx(np.arange(0, end_s, 0.5), abs=0.05)
    assert "cut off" in note["error"]
    if out == "h.npy":
        assert np.load(tmp_path / out).shape == (len(moments), 48, 64)
    else:
        assert len(list(tmp_path.glob("h-*.png"))) == len(moments)


def test_time_before_the_truncation_is_no_failure(here, model, broken, tmp_path):
    for times in (("--at", "0.5"), ("--every", "0.5", "--end", "1.5")):
        done = here("localize", broken["mp4"], "--model", model, *times, "--out", f"{tmp_path}/h/")
        assert (done.code, "cut off" in done.err) == (0, False), done.err


def test_truncated_video_is_rendered_to_its_end(here, model, broken, tmp_path):
    done = here("localize", broken["mp4"], "--model", model, "--out", tmp_path / "h.mp4")
    assert done.code == 1
    assert "cut off" in done.err
    end_s = probe(broken["mp4"]).pictures[1]
    assert probe(tmp_path / "h.mp4").pictures[1] == pytest.approx(end_s, abs=0.15)


def test_library_raises_after_the_available_results(model, broken):
    import avloc

    times = []
    with pytest.raises(InputError, match="cut off"):
        for result in avloc.load(model, device="cpu").localize_video(broken["mp4"], every=0.5):
            times.append(result.time_s)
    assert times == pytest.approx(np.arange(0, probe(broken["mp4"]).pictures[1], 0.5), abs=0.05)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_prepare_skips_files_truncated_before_the_middle(broken, tmp_path, kind):
    path = broken[kind] if kind == "avi" else cut(broken[kind], 0.5)
    skip = prepared(path)
    assert isinstance(skip, Skip)
    assert "is cut off: it should have pictures until" in skip.reason


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


# --- pictures whose file says only when they are decoded --------------------------------------------------------


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


# --- short sounds, odd channels, several tracks -----------------------------------------------------------------


def test_short_audio_reports_its_end(here, model, tmp_path):
    path = film(tmp_path / "a.mkv", seconds=1, sound=tone(0.05, RATE), audio_codec="pcm_s16le")
    (line,) = lines(here("localize", path, "--model", model, "--json").out)
    assert line["window_s"] == pytest.approx([0.0, 0.05], abs=1e-3)
    assert line["tiled"] is True
    (line,) = lines(here("localize", film(tmp_path / "b.mp4"), "--model", model, "--json").out)
    assert line["window_s"] == pytest.approx([0.5, 3.5], abs=0.02)
    assert line["tiled"] is False


def stereo(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.stack([left, right])


def test_cancelling_channels_are_not_averaged(tmp_path):
    one = tone(3, 16_000)
    window = read_sound(make_sound(tmp_path / "a.wav", stereo(0.5 * one, -one), 16_000, subtype="FLOAT"), seconds=3)
    assert window.channel is None  # half of the louder one is left
    both = stereo(0.99 * one, -one)
    window = read_sound(make_sound(tmp_path / "b.wav", both, 16_000, subtype="FLOAT"), seconds=3)
    assert window.channel == 2
    np.testing.assert_array_equal(window.waveform, -one)
    seven = np.zeros((6, 48_000), np.float32)
    seven[3] = one
    assert read_sound(make_sound(tmp_path / "c.wav", seven, 16_000), seconds=3).channel is None
    assert read_sound(make_sound(tmp_path / "d.wav", np.zeros((2, 48_000)), 16_000), seconds=3).channel is None


@given(st.floats(-1, 1), st.sampled_from([0.5, 1.5, 3.0]))
def test_mean_is_used_down_to_a_tenth_of_the_loudest_channel(tmp_path_factory, share, seconds):
    folder = tmp_path_factory.mktemp("channels")
    one = tone(2, 16_000)
    path = make_sound(folder / "a.wav", stereo(one, share * one), 16_000, subtype="FLOAT")
    window = read_sound(path, seconds=seconds)
    cancelled = abs(1 + share) / 2 < 0.1
    if abs(abs(1 + share) / 2 - 0.1) > 1e-3:
        assert window.channel == (1 if cancelled else None)


def test_cancelling_channels_are_reported(here, model, tmp_path):
    one = tone(4, RATE)
    path = film(tmp_path / "a.mkv", sound=stereo(one, -one), audio_codec="flac")
    done = here("localize", path, "--model", model, "--out", tmp_path / "h.png")
    assert "channels of its sound all but cancel in their mean; channel 1 alone is used" in done.err
    done = here("prepare", path, "--out", tmp_path / "store", "--workers", "1")
    assert done.code == 0
    assert f"{path} the channels of its sound all but cancel in their mean; channel 1 alone is stored" in done.err


@pytest.fixture(scope="module")
def two_tracks(tmp_path_factory) -> Path:
    """The first track is silent, the second is not."""
    folder = tmp_path_factory.mktemp("tracks")
    quiet = film(folder / "quiet.mkv", sound=np.zeros(4 * RATE, np.float32))
    loud = film(folder / "loud.mkv")
    out = folder / "both.mkv"
    with av.open(str(quiet)) as one, av.open(str(loud)) as other, av.open(str(out), "w") as target:
        streams = [*one.streams, other.streams.audio[0]]
        copies = [target.add_stream_from_template(stream) for stream in streams]
        copies[1].disposition = av.stream.Disposition.default
        copies[2].metadata["language"] = "deu"
        packets = []
        for index, (container, stream) in enumerate(((one, streams[0]), (one, streams[1]), (other, streams[2]))):
            container.seek(0)
            packets += [(index, packet) for packet in container.demux(stream) if packet.size]
        for index, packet in sorted(packets, key=lambda pair: float(pair[1].dts * pair[1].time_base)):
            packet.stream = copies[index]
            target.mux(packet)
    return out


def test_other_audio_tracks_are_listed_and_selectable(here, model, two_tracks, tmp_path):
    done = here("localize", two_tracks, "--model", model, "--json")
    assert lines(done.out)[0]["silent"] is True
    assert "has 2 sound tracks: 1 (aac, mono) is used, not 2 (deu, aac, mono); --track chooses" in done.err
    done = here("localize", two_tracks, "--model", model, "--json", "--track", "2")
    assert lines(done.out)[0]["silent"] is False
    assert "sound tracks" not in done.err
    done = here("localize", two_tracks, "--model", model, "--json", "--track", "3")
    assert "has no sound track 3; it has 2" in done.err
    assert here("localize", two_tracks, "--model", model, "--track", "0").code == 2
    done = here("localize", two_tracks, "--model", model, "--track", "2", "--out", tmp_path / "h.mp4")
    assert done.code == 0, done.err
    assert loud_span(read_sound(tmp_path / "h.mp4", seconds=1, centre_s=2.2))[0] == pytest.approx(2.0, abs=0.05)


def test_prepare_lists_and_selects_tracks(here, two_tracks, tmp_path):
    from avloc.store import Store

    done = here("prepare", two_tracks, "--out", tmp_path / "main", "--workers", "1")
    assert "has 2 sound tracks" in done.err
    assert Store(tmp_path / "main").read("both").flags == ("silent",)
    done = here("prepare", two_tracks, "--out", tmp_path / "second", "--workers", "1", "--track", "2")
    assert "sound tracks" not in done.err
    assert Store(tmp_path / "second").read("both").flags == ()
    done = here("prepare", two_tracks, "--out", tmp_path / "second", "--workers", "1")
    assert done.code == 5
    assert "sound track (2 stored, main requested)" in done.err


# --- the sound of --audio ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    return make_picture(tmp_path_factory.mktemp("picture") / "a.jpg", disc((64, 48), (0.5, 0.5)))


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
    assert lines(here(*run).out)[0]["silent"] is True
    (line,) = lines(here(*run, "--at", "80.5").out)
    assert (line["silent"], line["window_s"]) == (False, [79.0, 82.0])
    done = here(*run, "--at", "100")
    assert done.code == 3
    assert f"--audio {sound}: has no sound at 100 s: it ends at 100.000 s" in done.err
    done = here(*run, "--every", "1")
    assert "apply to videos only" in done.err


def written_to_a_pipe(pipe: Path, data: bytes) -> threading.Thread:
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True)
    writer.start()
    return writer


def test_a_named_pipe_is_read_like_a_file(here, model, picture, tmp_path):
    sound = make_sound(tmp_path / "a.wav", tone(4, 16_000), 16_000)
    video = film(tmp_path / "a.mp4")
    run = ("localize", "--model", model, "--json")
    for files, piped in (((picture, "--audio", sound), 2), ((video,), 0)):
        (expected,) = lines(here(*run, *files).out)
        pipe = tmp_path / f"pipe{piped}"
        writer = written_to_a_pipe(pipe, files[piped].read_bytes())
        (line,) = lines(here(*run, *files[:piped], pipe, *files[piped + 1 :]).out)
        writer.join(timeout=10)
        assert {**line, "seconds": 0} == {**expected, "seconds": 0, "input": line["input"]}


def test_pipe_is_named_as_typed(here, model, picture, tmp_path):
    writer = written_to_a_pipe(tmp_path / "pipe", b"no sound at all")
    done = here("localize", picture, "--audio", tmp_path / "pipe", "--model", model)
    writer.join(timeout=10)
    assert done.code == 3
    assert f"--audio {tmp_path / 'pipe'}: cannot be decoded" in done.err


def test_named_pipe_in_a_folder_does_not_block(here, model, tmp_path):
    film(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "b.mp4")
    done = here("localize", tmp_path, "--model", model, "--json", "--out", f"{tmp_path}/out/")
    assert done.code == 1
    assert "b.mp4: is not a regular file" in done.err


def test_the_sound_can_come_from_standard_input(model, picture, tmp_path):
    sound = make_sound(tmp_path / "a.wav", tone(4, 16_000), 16_000)
    command = ("localize", picture, "--audio", "-", "--model", model, "--json")
    with sound.open("rb") as stdin:
        out, _ = start(*command, stdin=stdin).communicate(timeout=120)
    assert lines(out.decode())[0]["window_s"] == [0.5, 3.5]
    _, err = start("localize", "-", "--audio", "-", "--model", model, stdin=subprocess.DEVNULL).communicate(timeout=120)
    assert "standard input (-) can be read once" in err.decode()


def test_a_live_webm_on_standard_input_has_its_middle(model, tmp_path):
    with without_length(tmp_path, "live.webm").open("rb") as stdin:
        out, _ = start("localize", "-", "--model", model, "--json", stdin=stdin).communicate(timeout=120)
    (line,) = lines(out.decode())
    assert line["input"] == "-"
    assert line["time_s"] == pytest.approx(2.0, abs=0.03)
