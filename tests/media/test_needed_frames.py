"""`read_moment` decodes only what it needs; the result is that of decoding the whole file from its start."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avloc.errors import InputError
from avloc.media import frame_decoder, video_frames
from avloc.media.audio import SoundWindow, make_window
from avloc.media.audio_decoder import decode_track
from avloc.media.containers import open_container
from avloc.media.frame_decoder import TIMESTAMP_TOLERANCE_S, DecodedFrame, iterate_frames, needed_frames
from avloc.media.packets import open_stream
from avloc.media.probing import probe
from avloc.media.video_frames import read_moment
from tests.media_makers import disc, make_video, noise

FPS, SECONDS, RATE = 25, 5, 44_100
WINDOW = {"seconds": 1.0, "rate": 22_050}
X264 = {"video_codec": "libx264"}


def params(text: str, **more: str) -> dict:
    return X264 | {"options": {"x264-params": text, **more}}


KINDS = {
    "one key frame.mp4": X264,
    "short distances.mp4": params("keyint=13:scenecut=0"),
    "deep pyramid.mp4": params("keyint=60:bframes=8:b-adapt=0:b-pyramid=normal:ref=6"),
    "without B-frames.mp4": params("keyint=20:bframes=0"),
    "only key frames.mp4": params("keyint=1"),
    "key frame in the middle.mp4": params("keyint=5:min-keyint=5:scenecut=0"),
    "open.mp4": params("keyint=20:open-gop=1:bframes=3:b-adapt=0:scenecut=0"),
    "open.mkv": params("keyint=20:open-gop=1:bframes=3:b-adapt=0:scenecut=0"),
    "open.ts": params("keyint=20:open-gop=1:bframes=3:b-adapt=0:scenecut=0"),
    "refresh.mkv": params("keyint=20:intra-refresh=1"),
    "index in front.mp4": X264 | {"faststart": True},
    "fragments.mp4": params("keyint=20") | {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "dash.mp4": params("keyint=20") | {"muxer": {"movflags": "dash+frag_keyframe+empty_moov+default_base_moof"}},
    "dash index.mp4": params("keyint=20") | {"muxer": {"movflags": "dash+global_sidx", "frag_duration": "1000000"}},
    "fragments inside pictures.mp4": params("keyint=50") | {"muxer": {"movflags": "empty_moov", "frag_size": "9000"}},
    "without edit lists.mp4": X264 | {"muxer": {"use_editlist": "0"}},
    "negative offsets.mp4": X264 | {"muxer": {"movflags": "negative_cts_offsets"}},
    "negative start.mp4": X264 | {"pictures_start_s": -0.2, "muxer": {"avoid_negative_ts": "disabled"}},
    "negative start.ts": X264 | {"pictures_start_s": -0.2},
    "short sound.mp4": X264 | {"sound": noise(3, 44_100)},
    "short sound.mkv": X264 | {"sound": noise(3, 44_100)},
    "short sound.ts": X264 | {"sound": noise(3, 44_100)},
    "late sound.mkv": X264 | {"sound_start_s": 0.7},
    "late sound.ts": X264 | {"sound_start_s": 0.7},
    "h264.mkv": params("keyint=20"),
    "h264.ts": params("keyint=20"),
    "interlaced.mp4": params("keyint=20:tff=1"),
    "hevc.mp4": {"video_codec": "libx265", "options": {"x265-params": "keyint=20:open-gop=1:log-level=none"}},
    "hevc.ts": {"video_codec": "libx265", "options": {"x265-params": "keyint=20:open-gop=1:log-level=none"}},
    "late sound.mp4": X264 | {"sound_start_s": 0.7},
    "late pictures.mp4": X264 | {"pictures_start_s": 0.8},
    "uneven.mp4": X264 | {"times": [0.0, 0.04, 0.5, 0.9, 0.94, 1.8, 2.2, 2.21, 2.3, 2.8, 3.9, 4.4, 4.9]},
    "uneven.mkv": X264 | {"times": [0.0, 0.04, 0.5, 0.9, 0.94, 1.8, 2.2, 2.21, 2.3, 2.8, 3.9, 4.4, 4.9]},
    "tall pixels.mp4": X264 | {"pixel_aspect": Fraction(3, 4)},
    "pcm.mov": X264 | {"audio_codec": "pcm_s16le"},
    "mp3.mp4": X264 | {"audio_codec": "libmp3lame"},
    "opus.mkv": X264 | {"audio_codec": "libopus", "rate": 48_000},
    "part 2.mp4": {"options": {"g": "20", "bf": "2"}},
    "part 2.avi": {"options": {"g": "20", "bf": "2"}, "audio_codec": "libmp3lame"},
    "mpeg.ts": {"video_codec": "mpeg2video", "options": {"g": "15", "bf": "2"}, "audio_codec": "mp2"},
    "mpeg.mpg": {"video_codec": "mpeg2video", "options": {"g": "15", "bf": "2"}, "audio_codec": "mp2"},
    "a.flv": X264,
    "a.webm": {"video_codec": "libvpx", "options": {"g": "20"}, "audio_codec": "libopus", "rate": 48_000},
    "motion.mov": {"video_codec": "mjpeg", "pix_fmt": "yuvj420p"},
}


def texture(time_s: float) -> NDArray[np.uint8]:
    """Blocks of noise that move, under a disc that moves faster."""
    blocks = np.random.default_rng(0).integers(0, 255, (12, 44, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    picture = blocks[:, round(20 * time_s) : round(20 * time_s) + 64].copy()
    inside = disc((64, 48), (0.5 + 0.4 * np.sin(4 * time_s), 0.5)) != 90
    picture[inside] = 255 - picture[inside]
    return picture


def make(path: Path, **how) -> Path:
    rate = how.pop("rate", RATE)
    sound = np.stack([noise(SECONDS, rate), np.roll(noise(SECONDS, rate), 1)])
    how = {"seconds": SECONDS, "fps": FPS, "frame_fn": texture, "sound": sound, "rate": rate} | how
    return make_video(path, **how)


class WholeFile:
    """A file decoded from its start to its end."""

    def __init__(self, path: Path) -> None:
        self.layout = probe(path)
        self.frames = list(iterate_frames(path, self.layout, -1.0))
        self.track = decode_track(path, self.layout)

    def displayed(self, time_s: float) -> DecodedFrame:
        started = [one for one in self.frames if one.start_s <= time_s + TIMESTAMP_TOLERANCE_S]
        return [self.frames[0], *started][-1]

    def sound(self, time_s: float) -> SoundWindow:
        end_s = self.layout.end_s
        return make_window(self.track, self.track.extent_s, centre_s=time_s, clip_end_s=end_s, **WINDOW)


def assert_same_moments(path: Path, times: tuple[float | None, ...]) -> None:
    whole = WholeFile(path)
    for at in times:
        time_s = whole.layout.middle_s if at is None else at
        shown, sound, moment = whole.displayed(time_s), whole.sound(time_s), read_moment(path, at=at, **WINDOW)
        assert moment.time_s == shown.start_s, at
        np.testing.assert_array_equal(moment.picture, shown.picture(), err_msg=str(at))
        np.testing.assert_array_equal(moment.sound.waveform, sound.waveform, err_msg=str(at))
        assert {**vars(moment.sound), "waveform": 0} == {**vars(sound), "waveform": 0}, at
        assert not moment.still, at


@pytest.mark.parametrize("name", KINDS)
def test_moment_is_that_of_the_whole_file(tmp_path, name):
    assert_same_moments(make(tmp_path / name, **KINDS[name]), (None, 0.0, 0.85, 1.99, 2.0, 2.31, 3.97, 4.39))


def test_part_of_a_video_copied_without_encoding(tmp_path):
    """Its edit list hides the frames between the key frame and the cut."""
    whole, path = make(tmp_path / "a.mp4", **params("keyint=40:scenecut=0")), tmp_path / "b.mp4"
    with av.open(str(whole)) as given, av.open(str(path), "w") as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.size:
                shift = round(Fraction(13, 25) / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    assert_same_moments(path, (None, 0.2, 1.0, 1.1, 1.7))


@pytest.mark.parametrize("name", ["short distances.mp4", "one key frame.mp4"])
def test_few_frames_are_decoded(tmp_path, name, monkeypatch):
    """The frames that are needed are found without `frames_at`, which starts earlier and decodes all."""
    path = make(tmp_path / name, **KINDS[name])
    monkeypatch.setattr(video_frames, "frames_at", None)
    for at in (None, 2.0):
        assert not read_moment(path, at=at, **WINDOW).still


def test_file_is_opened_once(tmp_path, monkeypatch):
    path, opened = make(tmp_path / "a.mp4", **X264), []
    monkeypatch.setattr(av, "open", lambda *args, _open=av.open, **how: opened.append(args) or _open(*args, **how))
    read_moment(path, **WINDOW)
    assert len(opened) == 1


def test_packets_of_a_rewound_file_are_the_same(tmp_path):
    """Also the samples: the skipped ones at the start are marked in the packets."""
    for name in ("index in front.mp4", "fragments.mp4", "late sound.mp4", "late pictures.mp4", "mp3.mp4", "pcm.mov"):
        path = make(tmp_path / name, **KINDS[name])
        clock = probe(path).clock

        def listed(source, clock=clock):
            found = []
            with open_stream(source, lambda container: container.streams.audio[0], clock) as (_, packets):
                for packet in packets:
                    frames = [(frame.pts, frame.to_ndarray().tobytes()) for frame in packet.decode()]
                    found.append((packet.pts, packet.dts, packet.duration, packet.size, frames))
            return found

        with open_container(path) as container:
            for _ in container.demux():
                pass
            assert listed(container) == listed(path), name


def test_still_is_refused_for_a_change_inside_the_window(tmp_path):
    """The frames in the middle and at both ends of the window are alike, not the key frame before the middle."""
    path = make(
        tmp_path / "a.mp4",
        **params("keyint=13:min-keyint=13:scenecut=0"),
        frame_fn=lambda t: disc((64, 48), (0.7 if 2.05 < t < 2.3 else 0.3, 0.5)),
    )
    assert not read_moment(path, **WINDOW).still
    path = make(tmp_path / "b.mp4", **X264, frame_fn=lambda _t: disc((64, 48), (0.3, 0.5)))
    assert read_moment(path, **WINDOW).still


@pytest.mark.parametrize("name", ["short distances.mp4", "deep pyramid.mp4", "short distances.mkv", "part 2.mp4"])
def test_damage_does_not_change_the_picture(tmp_path, name):
    """A frame that cannot be decoded leaves the picture as it is, or the answer is that of `frames_at`."""
    path = make(tmp_path / name, **KINDS.get(name, KINDS["short distances.mp4"]))
    whole, data = read_moment(path, **WINDOW), path.read_bytes()
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size and packet.pos]
    answers = set()
    for pos, size in packets[len(packets) // 2 - 14 : len(packets) // 2 + 5]:
        path.write_bytes(data[: pos + 24] + bytes(max(0, size - 24)) + data[pos + max(24, size) :])
        answer = picture_or_reason(path)
        if not np.array_equal(answer, whole.picture):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(video_frames, "needed_frames", lambda *_, **__: None)
                np.testing.assert_array_equal(answer, picture_or_reason(path))
        answers.add(np.array_equal(answer, whole.picture))
    assert answers == {True, False}


def picture_or_reason(path: Path) -> NDArray | str:
    try:
        return read_moment(path, **WINDOW).picture
    except InputError as error:
        return str(error)


def test_frames_without_a_key_frame_for_long_are_not_held(tmp_path, monkeypatch):
    path = make(tmp_path / "a.mp4", **X264)
    layout = probe(path)
    assert needed_frames(path, layout, 2.5, 2.0)
    monkeypatch.setattr(frame_decoder, "_MAX_HELD", 20)
    assert needed_frames(path, layout, 2.5, 2.0) is None
    assert needed_frames(path, layout, 0.5, 0.0)
    assert read_moment(path, **WINDOW).time_s == 2.48


def test_frames_are_those_from_a_time_on(tmp_path):
    path = make(tmp_path / "a.mp4", **params("keyint=13:scenecut=0"))
    found = [needed_frames(path, probe(path), at, at - 0.2) for at in (1.0, 1.3, 2.5)]
    assert all(first.start_s >= shown.start_s - 0.2 - 1e-6 for first, shown in found)
    assert all(one[1].start_s < other[0].start_s for one, other in pairwise(found))
