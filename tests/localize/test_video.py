"""Overlay videos keep time stamps and sound, and show the interpolated heat."""

from __future__ import annotations

import errno
import signal
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from avloc.errors import InputError, UsageError
from avloc.heatmap import heat_maps
from avloc.localize import video
from avloc.localize.heat_interpolation import PREFETCHED_MAPS
from avloc.localize.overlay import draw_overlay, draw_silent
from avloc.localize.scenes import SoundSource
from avloc.localize.style import Style
from avloc.localize.video import write_video
from avloc.media.audio import read_sound
from avloc.media.video_frames import read_frame
from avloc.media.video_stream import stream_frames
from avloc.media.video_writer import VideoWriter
from avloc.progress import Notice, Progress
from tests.media_makers import grey_ramp, make_coded_sound, make_sound, make_video, noise, tone
from tests.processes import start
from tests.program import ROOT, avloc

RATE = 16_000
CLIPS = ROOT.parent / "shared" / "clips"
PLAIN = Style(contour=0, peak=False, caption=False, opacity=0)


class FakeMapper:
    """Hot on the left at odd calls, on the right at even ones; silent if the waveform is. Records its inputs."""

    def __init__(self, *, seconds: float = 1.0, rate: int = RATE, resize: str = "bilinear-corners") -> None:
        self.seconds, self.rate, self.resize = seconds, rate, resize
        self.calls: list[tuple[np.ndarray, np.ndarray, int]] = []

    def cells_at(self, frame, waveform, rate):
        self.calls.append((frame, waveform, rate))
        return self.cells(len(self.calls)), bool(np.abs(waveform).max() <= 1e-4)

    @staticmethod
    def cells(call: int) -> np.ndarray:
        left = np.linspace(1, -1, 5, dtype=np.float32)[None].repeat(4, axis=0)
        return left if call % 2 else left[:, ::-1].copy()


def decoded(path: Path) -> tuple[list[Fraction], np.ndarray, np.ndarray]:
    """Times and RGB of all pictures, and the sound [channels, n] of a file, decoded with PyAV."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        times = [frame.pts * frame.time_base for frame in frames]
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return times, pictures, np.zeros((0, 0), np.float32)
        pieces = [_planes(frame) for frame in container.decode(audio=0)]
        return times, pictures, np.concatenate(pieces, 1)


def _planes(frame: av.AudioFrame) -> np.ndarray:
    return frame.to_ndarray() if frame.format.is_planar else frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T


def closeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


# --- times and pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts", "webm"])
def test_every_frame_keeps_its_time(tmp_path, ending):
    video, audio, rate = {
        "webm": ("libvpx", "libopus", 48_000),
        "ts": ("libx264", "aac", RATE),
        "avi": ("mpeg4", "mp3", RATE),
    }.get(ending, ("mpeg4", "aac", RATE))
    source = make_video(
        tmp_path / f"in.{ending}",
        seconds=3,
        fps=12,
        frame_fn=grey_ramp((64, 48), per_second=60),
        sound=noise(3, rate),
        rate=rate,
        video_codec=video,
        audio_codec=audio,
    )
    summary = write_video(source, tmp_path / "out.mp4", FakeMapper(), style=PLAIN)
    shown = list(stream_frames(source))
    times, pictures, _ = decoded(tmp_path / "out.mp4")
    assert len(times) == len(shown) == summary.frames == 36
    np.testing.assert_allclose([float(t) for t in times], [float(one.start) for one in shown], atol=1e-3)
    assert summary.duration_s == float(shown[-1].end - shown[0].start) == pytest.approx(3, abs=0.09)
    for picture, one in zip(pictures, shown, strict=True):
        assert closeness(picture, one.picture()) < 3


def test_variable_frame_rates_are_kept(tmp_path):
    times = [0.0, 0.04, 0.31, 0.32, 1.0, 1.25, 1.9]
    source = make_video(tmp_path / "in.mkv", times=times, sound=noise(2, RATE), rate=RATE)
    write_video(source, tmp_path / "out.mp4", FakeMapper())
    assert [round(float(t), 3) for t in decoded(tmp_path / "out.mp4")[0]] == times
    assert [round(float(one.end), 2) for one in stream_frames(tmp_path / "out.mp4")][:-1] == [
        round(t, 2) for t in times[1:]
    ]


def test_odd_sizes_are_padded_by_a_pixel(tmp_path):
    picture = np.full((48, 64, 3), 40, np.uint8)
    picture[:, 32:] = 220
    source = make_video(
        tmp_path / "in.mp4",
        seconds=1,
        frame_fn=lambda _t: picture,
        sound=noise(1, RATE),
        rate=RATE,
        pixel_aspect=Fraction(33, 32),
    )
    assert read_frame(source)[0].shape == (48, 66, 3)
    odd = make_video(
        tmp_path / "odd.mkv", seconds=1, size=(63, 47), video_codec="ffv1", sound=noise(1, RATE), rate=RATE
    )
    write_video(odd, tmp_path / "out.mp4", FakeMapper(), style=PLAIN)
    pictures = decoded(tmp_path / "out.mp4")[1]
    assert pictures.shape[1:] == (48, 64, 3)
    assert closeness(pictures[5][:47, :63], read_frame(odd, at=0.55)[0]) < 4


def test_pixel_aspect_and_rotation_are_applied_once(tmp_path):
    picture = np.full((48, 64, 3), 20, np.uint8)
    picture[:24, :32] = 220
    wide = make_video(
        tmp_path / "w.mp4",
        seconds=1,
        frame_fn=lambda _t: picture,
        sound=noise(1, RATE),
        rate=RATE,
        pixel_aspect=Fraction(2),
    )
    turned = make_video(tmp_path / "t.mp4", seconds=1, frame_fn=lambda _t: picture, sound=noise(1, RATE), rate=RATE)
    data = bytearray(turned.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    quarter = (0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)
    data[matrix : matrix + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in quarter)
    turned.write_bytes(data)
    for source, shape in ((wide, (48, 128, 3)), (turned, (64, 48, 3))):
        mapper = FakeMapper()
        write_video(source, tmp_path / "out.mp4", mapper, style=PLAIN)
        assert mapper.calls[0][0].shape == shape
        again, _ = read_frame(tmp_path / "out.mp4")
        assert again.shape == shape
        assert closeness(again, read_frame(source)[0]) < 4
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert container.streams.video[0].sample_aspect_ratio in (None, 0, 1)


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
def test_colours_and_their_tags_equal_the_source(tmp_path, matrix):
    """Luma and chroma of a video without heat equal those of its source, for any colour space."""
    path = tmp_path / "in.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1
        stream.codec_context.color_primaries, stream.codec_context.color_trc = 1, 1
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        planes = np.concatenate([np.full((48, 64), 81), np.full((12, 64), 90), np.full((12, 64), 200)]).astype(np.uint8)
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        piece = av.AudioFrame.from_ndarray(noise(1, RATE)[None], format="fltp", layout="mono")
        piece.sample_rate = RATE
        container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    write_video(path, tmp_path / "out.mp4", FakeMapper(), style=PLAIN)
    with av.open(str(path)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        one, other = next(before.decode(video=0)), next(after.decode(video=0))
        assert other.colorspace == one.colorspace == matrix
        context = after.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1)
        difference = np.abs(one.to_ndarray().astype(int) - other.to_ndarray())
    assert difference.max() <= 3


def test_strips_wider_than_players_support_are_shrunk(tmp_path):
    source = make_video(tmp_path / "in.mp4", seconds=0.3, size=(1600, 320), sound=noise(1, RATE), rate=RATE)
    write_video(source, tmp_path / "out.mp4", FakeMapper(), style=Style(strip=True, legend=True))
    height, width = read_frame(tmp_path / "out.mp4")[0].shape[:2]
    assert width == 4096
    whole = draw_silent(np.zeros((320, 1600, 3), np.uint8), style=Style(strip=True, legend=True), caption="").shape
    assert height / width == pytest.approx(whole[0] / whole[1], rel=0.01)


# --- maps -------------------------------------------------------------------------------------------------------


def test_maps_are_computed_from_frame_and_sound_of_their_time(tmp_path):
    source = make_video(
        tmp_path / "in.mp4",
        seconds=3,
        fps=10,
        frame_fn=grey_ramp((64, 48), per_second=60),
        sound=noise(3, RATE),
        rate=RATE,
    )
    mapper = FakeMapper(seconds=1.0, rate=22_050)
    events = []
    summary = write_video(source, tmp_path / "out.mp4", mapper, every=0.75, listener=events.append)
    assert summary.maps == len(mapper.calls) == 4
    for place, (frame, waveform, rate) in enumerate(mapper.calls):
        np.testing.assert_array_equal(frame, read_frame(source, at=0.75 * place)[0])
        expected = read_sound(source, seconds=1.0, rate=22_050, centre_s=0.75 * place)
        np.testing.assert_allclose(waveform, expected.waveform, atol=1e-6)
        assert rate == 22_050
    progress = [event for event in events if isinstance(event, Progress)]
    assert [(event.done, event.total) for event in progress] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [event for event in events if isinstance(event, Notice)] == [
        Notice("in.mp4: its sound is sampled at 16000 Hz; the model takes 22050 Hz")
    ]


def test_maps_are_prefetched_in_one_background_thread(tmp_path, monkeypatch):
    class Watched(FakeMapper):
        def cells_at(self, frame, waveform, rate):
            threads.add(threading.current_thread())
            return super().cells_at(frame, waveform, rate)

    def drawing(*given, **how):
        counts.append(len(mapper.calls))
        return draw_overlay(*given, **how)

    threads, counts, mapper = set(), [], Watched()
    monkeypatch.setattr(video, "draw_overlay", drawing)
    source = make_video(tmp_path / "in.mp4", seconds=6, fps=10, sound=noise(6, RATE), rate=RATE)
    write_video(source, tmp_path / "out.mp4", mapper, every=0.5)
    assert len(threads) == 1
    assert threading.current_thread() not in threads
    assert len(counts) == 60
    before_and_after = [index // 5 + 2 for index in range(60)]
    assert all(
        few <= made <= few + PREFETCHED_MAPS or made == 12 for few, made in zip(before_and_after, counts, strict=True)
    )


def reference_video(source: Path, every: float, style: Style, resize: str) -> list[np.ndarray]:
    """Every picture of the overlay, with all maps and all pictures in memory: interpolated cell by cell."""
    shown = list(stream_frames(source))
    maps = []
    for place in range(1000):
        if place * every >= float(shown[-1].end):
            break
        silent = read_sound(source, seconds=1.0, rate=RATE, centre_s=place * every).silent
        size = shown[0].picture().shape[:2]
        cells = torch.from_numpy(FakeMapper.cells(place + 1))[None]
        maps.append(None if silent else heat_maps(cells, size, resize)[0].numpy())
    out = []
    for one in shown:
        place = min(int(float(one.start) / every + 1e-9), len(maps) - 1)
        share = float(one.start) / every - place if place + 1 < len(maps) else 0.0
        before, after = maps[place], maps[min(place + 1, len(maps) - 1)]
        if before is not None and after is not None:
            heat = (1 - share) * before + share * after
        elif (before is None and (after is None or share <= 0.5)) or (after is None and share >= 0.5):
            out.append(draw_silent(one.picture(), style=style, caption="silent: no source"))
            continue
        else:
            heat = before * (1 - 2 * share) if after is None else after * (2 * share - 1)
        out.append(draw_overlay(one.picture(), heat.astype(np.float32), style=style))
    return out


@pytest.mark.parametrize(
    ("every", "resize"), [(0.4, "bilinear-corners"), (0.5, "bilinear-halfpixel"), (7.0, "bilinear-corners")]
)
def test_heat_is_interpolated_linearly_and_fades_towards_silence(tmp_path, every, resize):
    sound = noise(5, RATE) * (np.abs(np.arange(5 * RATE) / RATE - 2.5) > 1.2)  # silent in the middle
    source = make_video(
        tmp_path / "in.mp4", seconds=5, fps=20, size=(128, 96), frame_fn=grey_ramp((128, 96)), sound=sound, rate=RATE
    )
    style = Style(peak=False, contour=0)
    write_video(source, tmp_path / "out.mp4", FakeMapper(resize=resize), every=every, style=style)
    expected = reference_video(source, every, style, resize)
    pictures = decoded(tmp_path / "out.mp4")[1]
    assert len(pictures) == len(expected) == 100
    errors = [closeness(one, other) for one, other in zip(pictures, expected, strict=True)]
    assert max(errors) < 4, f"picture {int(np.argmax(errors))}"


def test_frames_that_do_not_fit_in_memory_are_decoded_twice(tmp_path, monkeypatch):
    """Compared before they are encoded: x264 does not give the same bytes for the same pictures every time."""
    source = make_video(tmp_path / "in.mp4", seconds=3, sound=noise(3, RATE), rate=RATE)
    opened, shown, write = [], [], video.VideoWriter.write
    monkeypatch.setattr(
        video, "stream_frames", lambda *given, **how: opened.append(given) or stream_frames(*given, **how)
    )
    monkeypatch.setattr(video.VideoWriter, "write", lambda *given: shown.append(given[1:]) or write(*given))
    outs = {}
    for held in (video._BUFFERED_BYTES, 0):
        monkeypatch.setattr(video, "_BUFFERED_BYTES", held)
        shown.clear()
        write_video(source, tmp_path / "out.mp4", FakeMapper())
        outs[held] = np.stack([picture for picture, *_ in shown])
    assert len(opened) == 1 + 2
    np.testing.assert_array_equal(*outs.values())


def test_a_flat_map_has_neither_peak_nor_box(tmp_path):
    class Flat(FakeMapper):
        @staticmethod
        def cells(call):
            return np.full((4, 5), 0.3, np.float32)

    source = make_video(
        tmp_path / "in.mp4", seconds=1, size=(128, 96), frame_fn=grey_ramp((128, 96)), sound=noise(1, RATE), rate=RATE
    )
    write_video(source, tmp_path / "out.mp4", Flat(), style=Style(box=True))
    assert closeness(decoded(tmp_path / "out.mp4")[1][3], read_frame(source, at=0.35)[0]) < 2


# --- sound ------------------------------------------------------------------------------------------------------


SOUNDS = [
    ("mp4", "aac", 44_100, "exact"),
    ("mp4", "mp3", 44_100, "exact"),
    ("mov", "alac", 44_100, "exact"),
    ("mkv", "flac", 48_000, "exact"),
    ("mkv", "mp3", RATE, "copied"),
    ("mkv", "ac3", 48_000, "copied"),
    ("mkv", "libopus", 48_000, "copied"),
    ("ts", "aac", 44_100, "repacked"),
    ("mkv", "pcm_s16le", 22_050, "encoded"),
    ("avi", "pcm_s16le", 22_050, "encoded"),
    ("mkv", "pcm_s16le", 37_800, "encoded"),
]


def coded_sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.pts is not None]


def least_difference(one: np.ndarray, other: np.ndarray, *, within: int) -> float:
    """Of two sounds, moved against each other by up to so many samples."""
    middle = one[within:-within]
    return min(np.abs(middle - other[shift : shift + len(middle)]).max() for shift in range(2 * within + 1))


@pytest.mark.parametrize(("ending", "codec", "rate", "how"), SOUNDS)
def test_sound_is_copied_if_mp4_supports_its_codec(tmp_path, ending, codec, rate, how):
    sound = np.stack([tone(3, rate, span=(0.5, 1.0)), tone(3, rate, hz=300, span=(1.5, 2.5))])
    video = "libx264" if ending == "ts" else "mpeg4"
    source = make_video(
        tmp_path / f"in.{ending}", seconds=3, sound=sound, rate=rate, audio_codec=codec, video_codec=video
    )
    assert write_video(source, tmp_path / "out.mp4", FakeMapper()).has_sound
    before, after = decoded(source)[2], decoded(tmp_path / "out.mp4")[2]
    if how == "exact":
        np.testing.assert_array_equal(before, after)
    if how in ("exact", "copied"):
        assert coded_sound(source) == coded_sound(tmp_path / "out.mp4")
    assert after.shape[1] / before.shape[1] == pytest.approx(48_000 / 37_800 if rate == 37_800 else 1, rel=0.02)
    for centre_s in (0.75, 1.5, 2.5):
        one = read_sound(source, seconds=1.0, rate=48_000, centre_s=centre_s).waveform
        other = read_sound(tmp_path / "out.mp4", seconds=1.0, rate=48_000, centre_s=centre_s).waveform
        assert least_difference(one, other, within=96) < 0.05, "Matroska's stamps are whole milliseconds"


@pytest.mark.parametrize("codec", ["aac", "mp3", "pcm_s16le"])
def test_an_excerpt_has_the_sound_of_its_times(tmp_path, codec):
    """Pulses keep their times, less the start of the output, for any packet layout."""
    sound = sum(tone(8, 44_100, span=(at, at + 0.05)) for at in (1.0, 2.5, 3.3, 4.9, 6.0))
    ending = "mkv" if codec == "pcm_s16le" else "mp4"
    source = make_video(
        tmp_path / f"in.{ending}",
        seconds=8,
        fps=25,
        frame_fn=grey_ramp((64, 48)),
        sound=sound,
        rate=44_100,
        audio_codec=codec,
    )
    summary = write_video(source, tmp_path / "out.mp4", FakeMapper(), start=2.31, end=5.17, style=PLAIN)
    times, pictures, _ = decoded(tmp_path / "out.mp4")
    assert times[0] == 0
    assert summary.duration_s == pytest.approx(2.86, abs=1e-6)
    assert float(times[1]) == pytest.approx(0.01, abs=1e-3), "the picture on screen at 2.31 is cut at 2.32"
    assert closeness(pictures[0], read_frame(source, at=2.31)[0]) < 3
    assert closeness(pictures[-1], read_frame(source, at=5.165)[0]) < 3
    after = read_sound(tmp_path / "out.mp4", seconds=2.8, rate=44_100, centre_s=1.4)
    assert np.abs(after.waveform).max() > 0.4
    for at in (2.5, 3.3, 4.9):
        pulse = np.flatnonzero(np.abs(after.waveform) > 0.2) / 44_100 + after.start_s
        near = pulse[np.abs(pulse - (at - 2.31)) < 0.2]
        assert (near.min(), near.max()) == pytest.approx((at - 2.31, at - 2.31 + 0.05), abs=0.003), (codec, at)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(2.86, abs=0.05)


def test_a_separate_sound_is_model_input_and_cut_at_the_last_frame(tmp_path):
    source = make_video(tmp_path / "in.mp4", seconds=2, sound=tone(2, RATE, hz=200), rate=RATE)
    sound = make_coded_sound(tmp_path / "other.mp3", noise(9, 44_100), 44_100, "libmp3lame")
    mapper = FakeMapper()
    write_video(source, tmp_path / "out.mp4", mapper, sound=SoundSource(file=sound))
    for place, (_, waveform, _) in enumerate(mapper.calls):
        expected = read_sound(sound, seconds=1.0, rate=RATE, centre_s=place * 0.5)
        np.testing.assert_array_equal(waveform, expected.waveform)
    packets = coded_sound(tmp_path / "out.mp4")
    assert packets == coded_sound(sound)[: len(packets)]
    assert decoded(tmp_path / "out.mp4")[2].shape[1] / 44_100 == pytest.approx(2, abs=0.06)


def test_a_shorter_separate_sound_is_followed_by_silence(tmp_path):
    source = make_video(tmp_path / "in.mp4", seconds=4)
    sound = make_sound(tmp_path / "short.wav", noise(2, RATE), RATE)
    mapper = FakeMapper()
    write_video(source, tmp_path / "out.mp4", mapper, sound=SoundSource(file=sound), every=1.0)
    assert [bool(np.abs(waveform).max()) for _, waveform, _ in mapper.calls] == [True, True, True, False]


def test_sound_longer_than_the_frames_is_kept(tmp_path):
    source = make_video(tmp_path / "in.mp4", seconds=2, sound=noise(5, RATE), rate=RATE)
    summary = write_video(source, tmp_path / "out.mp4", FakeMapper())
    assert summary.duration_s == pytest.approx(2)
    np.testing.assert_array_equal(decoded(source)[2], decoded(tmp_path / "out.mp4")[2])


# --- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"every": 0.0}, "--every 0 is impossible; valid: 0.01 seconds or more"),
        ({"every": float("nan")}, "--every nan"),
        ({"start": -1.0}, "--start -1 is impossible; valid: 0 seconds or more"),
        ({"start": 2.0, "end": 2.0}, "--end 2 is not after the start, 2 s"),
        ({"end": 0.0}, "--end 0"),
    ],
)
def test_errors_of_invalid_times(tmp_path, wrong, words):
    with pytest.raises(UsageError, match=words):
        write_video(tmp_path / "in.mp4", tmp_path / "out.mp4", FakeMapper(), **wrong)


def broken(tmp_path: Path, kind: str) -> Path:
    sound, path = noise(6, RATE), tmp_path / "in.mp4"
    if kind == "has no sound":
        return make_video(path)
    if kind == "has no picture":
        return make_coded_sound(path, sound, RATE, "aac")
    path.write_bytes(b"no video at all")
    return path


@pytest.mark.parametrize("kind", ["has no sound", "has no picture", "cannot be decoded"])
def test_invalid_sources_leave_the_old_file(tmp_path, kind):
    source, out = broken(tmp_path, kind), tmp_path / "out.mp4"
    out.write_bytes(b"old")
    with pytest.raises(InputError, match=kind):
        write_video(source, out, FakeMapper())
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"], "no half file"


def test_errors_name_the_separate_sound(tmp_path):
    source = make_video(tmp_path / "in.mp4")
    (tmp_path / "bad.wav").write_bytes(b"no sound at all")
    with pytest.raises(InputError, match=r"--audio bad\.wav: cannot be decoded"):
        write_video(
            source,
            tmp_path / "out.mp4",
            FakeMapper(),
            sound=SoundSource(file=tmp_path / "bad.wav", name="--audio bad.wav"),
        )


def test_an_interrupt_leaves_no_partial_file(tmp_path):
    class Interrupted(FakeMapper):
        def cells_at(self, frame, waveform, rate):
            if len(self.calls) == 4:
                raise KeyboardInterrupt
            return super().cells_at(frame, waveform, rate)

    source = make_video(tmp_path / "in.mp4", seconds=6, sound=noise(6, RATE), rate=RATE)
    with pytest.raises(KeyboardInterrupt):
        write_video(source, tmp_path / "out.mp4", Interrupted())
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_full_disk_is_not_an_input_error(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    source = make_video(tmp_path / "in.mp4", seconds=2, sound=noise(2, RATE), rate=RATE)
    shown = next(stream_frames(source))
    with pytest.raises(OSError, match="space"), VideoWriter(full, shown, (48, 64)) as writer:
        for one in stream_frames(source):
            writer.write(one.picture(), one.start, one.end)


def test_a_failed_write_ends_the_video(tmp_path, monkeypatch):
    source = make_video(tmp_path / "a.mp4", sound=noise(2, RATE), rate=RATE, seconds=2)
    calls = []

    def write(_self, _picture, start, _end):
        calls.append(start)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(VideoWriter, "write", write)
    with pytest.raises(OSError, match="no space"):
        write_video(source, tmp_path / "out.mp4", FakeMapper())
    assert not (tmp_path / "out.mp4").exists()
    assert len(calls) <= 3 + video._WRITES_AHEAD + 1
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("avloc-encoder")]


def test_without_h264_the_video_is_mpeg4_with_a_notice(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    source = make_video(tmp_path / "in.mp4", seconds=1, sound=noise(1, RATE), rate=RATE)
    events = []
    write_video(source, tmp_path / "out.mp4", FakeMapper(), listener=events.append)
    assert any(isinstance(event, Notice) and "MPEG-4 part 2" in event.text for event in events)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert len(decoded(tmp_path / "out.mp4")[0]) == 10


# --- the command ------------------------------------------------------------------------------------------------


def test_the_command_writes_a_video_and_prints_its_path(model, tmp_path):
    source = make_video(tmp_path / "in.mp4", seconds=3, size=(128, 96), sound=tone(3, 22_050), rate=22_050)
    out = tmp_path / "out.mp4"
    done = avloc(
        "localize", str(source), "--model", str(model), "--out", str(out), "--style", "legend=on", "--every", "1"
    )
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    times, pictures, sound = decoded(out)
    assert len(times) == 30
    assert pictures.shape[1] > 96, "a legend below"
    np.testing.assert_array_equal(sound, decoded(source)[2])


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_no_partial_video(model, tmp_path, stop_signal):
    source = make_video(tmp_path / "in.mp4", seconds=60, fps=30, size=(320, 240), sound=tone(60, 22_050), rate=22_050)
    folder = tmp_path / "maps"
    folder.mkdir()
    running = start("localize", source, "--model", model, "--out", folder / "out.mp4")
    deadline = time.monotonic() + 100
    while running.poll() is None and not list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running.poll() is None, "it ended before it could be stopped"
    running.send_signal(stop_signal)
    _, err = running.communicate(timeout=100)
    assert running.returncode == 128 + stop_signal, err
    assert not list(folder.iterdir())


# --- real clips -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iscc_demo", "foley_vggsound_1", "difffoley_car", "maskvatGEN_pipa"])
def test_real_clips_keep_frames_times_and_sound(tmp_path, name):
    source = CLIPS / f"{name}.mp4"
    if not source.exists():
        pytest.skip(f"{source} is not here")
    summary = write_video(source, tmp_path / "out.mp4", FakeMapper(seconds=3.0, rate=22_050))
    times, _, sound = decoded(source)
    again, _, same = decoded(tmp_path / "out.mp4")
    assert again == times
    assert summary.frames == len(times)
    np.testing.assert_array_equal(same, sound)
    with av.open(str(source)) as one, av.open(str(tmp_path / "out.mp4")) as other:
        assert other.duration / av.time_base == pytest.approx(one.duration / av.time_base, abs=0.1)
        assert other.streams.video[0].average_rate == one.streams.video[0].average_rate
