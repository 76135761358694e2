"""The extent of a file: no length in the header, an estimated one, an end that is missing.

The grey level of every picture encodes the time, 20 + 20 t, and a tone sounds from 2 to 2.5 s, from the file's start.
"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from avloc.errors import InputError
from avloc.media.audio import read_sound
from avloc.media.probing import probe
from avloc.media.video_frames import read_frame, read_moment
from avloc.prepare.clips import Job, Skip, make_clip
from avloc.prepare.sources import Source
from avloc.registry import StoreSpec
from tests.json_output import json_lines
from tests.media_makers import disc, make_coded_sound, tone
from tests.timed_video import PIPED, RATE, film, loud_span, picture_time, without_length


def prepared(path: Path, at: float | None = None):
    source = Source(id="a", kind="video", path=path)
    return make_clip(Job(source=source, spec=StoreSpec(seconds=1.0, rate=16_000, shorter_side=48), at=at))


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
    times = [line["time_s"] for line in json_lines(done.out)]
    assert times == pytest.approx([0.4, 1.2, 2.0, 2.8, 3.6], abs=0.05)
    assert read_frame(tmp_path / "h.mp4", at=3.9)[1] == pytest.approx(3.9, abs=0.05)
    (line,) = json_lines(here("localize", path, "--model", model, "--json").out)
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
    line, note = json_lines(done.out)
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
    *moments, note = json_lines(done.out)
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


def test_middle_of_fragments_that_start_late(tmp_path):
    """Part of a live stream: its time stamps, and so FFmpeg's duration, count from the start of the stream."""
    muxer = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "output_ts_offset": "20"}
    path = film(tmp_path / "a.mp4", muxer=muxer, options={"g": "10"})
    moment = read_moment(path, seconds=1)
    assert moment.time_s == pytest.approx(2.0, abs=0.1)
    assert picture_time(moment.picture) == pytest.approx(2.0, abs=0.1)
    assert probe(path).cut_off == ""


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
