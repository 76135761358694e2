"""Single frames of a video with the sound around them: exact times, or an error with the reason."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avloc.errors import InputError
from avloc.media.video_frames import read_frame, read_moment
from tests.media_makers import (
    disc,
    grey_ramp,
    make_coded_sound,
    make_sound,
    make_video,
    moving_disc,
    tone,
)
from tests.timed_video import loud_span

CLIPS = Path(__file__).parents[3] / "shared" / "clips"


def test_file_object_is_read_like_a_file(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=4, sound=tone(4, 16_000), rate=16_000)
    from_path = read_moment(path, seconds=3)
    from_memory = read_moment(io.BytesIO(path.read_bytes()), seconds=3)
    np.testing.assert_array_equal(from_path.picture, from_memory.picture)
    np.testing.assert_array_equal(from_path.sound.waveform, from_memory.sound.waveform)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_sound_that_starts_late_keeps_its_time(tmp_path, ending):
    """Tone at 0.5-1 s of a stream that starts 0.5 s late is at 1-1.5 s of the file; before that there are zeros."""
    path = make_video(tmp_path / f"a.{ending}", sound=tone(3.5, 16_000, span=(0.5, 1)), rate=16_000, sound_start_s=0.5)
    moment = read_moment(path, seconds=3, at=1.0)
    assert moment.sound.start_s == 0.0
    assert loud_span(moment.sound) == pytest.approx((1.0, 1.5), abs=0.005)
    assert not moment.sound.waveform[: int(0.4 * 16_000)].any()


@pytest.mark.parametrize("at", [0.0, 0.05, 1.0, 1.2, 2.55, 3.9])
def test_the_picture_shown_at_a_time(tmp_path, at):
    path = make_video(tmp_path / "a.mp4", frame_fn=grey_ramp((64, 48)), options={"g": "15", "bf": "2"})
    picture, time_s = read_frame(path, at=at)
    assert time_s == pytest.approx(np.floor(at * 10 + 1e-6) / 10)
    assert picture.mean() == pytest.approx(20 + 20 * time_s, abs=1.5)


def test_middle_is_the_default(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=6, sound=tone(6, 16_000), rate=16_000)
    moment = read_moment(path, seconds=3)
    assert moment.time_s == pytest.approx(3.0, abs=0.02)
    assert moment.sound.start_s == pytest.approx(1.5, abs=0.02)


def test_uneven_picture_times(tmp_path):
    path = make_video(tmp_path / "a.mp4", frame_fn=grey_ramp((64, 48)), times=[0.0, 0.1, 0.2, 1.7, 1.8, 3.9])
    assert read_frame(path, at=1.5)[1] == pytest.approx(0.2)
    assert read_frame(path, at=3.0)[1] == pytest.approx(1.8)


def test_time_past_the_end_is_refused_with_the_end(tmp_path):
    path = make_video(tmp_path / "a.mp4", sound=tone(8, 16_000), rate=16_000)
    with pytest.raises(InputError, match=r"at 6 s: the video ends at 4\.0"):
        read_moment(path, seconds=3, at=6.0)


def test_middle_of_a_video_whose_container_has_only_one_duration(tmp_path):
    path = make_video(tmp_path / "a.mkv", seconds=2, sound=tone(6, 16_000), rate=16_000)
    assert read_moment(path, seconds=3).time_s == pytest.approx(1.0, abs=0.1)


def test_video_with_one_frame(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=0.1, sound=tone(4, 16_000), rate=16_000)
    moment = read_moment(path, seconds=3)
    assert moment.still
    assert not moment.sound.short


def test_still_and_moving_pictures(tmp_path):
    sound = tone(4, 16_000)
    still = make_video(tmp_path / "s.mp4", frame_fn=lambda _t: disc((64, 48), (0.5, 0.5)), sound=sound, rate=16_000)
    assert read_moment(still, seconds=3).still
    moving = make_video(tmp_path / "m.mp4", frame_fn=moving_disc((64, 48), 4), sound=sound, rate=16_000)
    assert not read_moment(moving, seconds=3).still


def test_pixel_aspect_is_applied(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=1, pixel_aspect=Fraction(16, 15), size=(60, 48))
    assert read_frame(path)[0].shape == (48, 64, 3)


def test_rotated_video_is_shown_upright(tmp_path):
    """A phone held upright: the matrix in the track header turns the picture a quarter clockwise."""
    picture = np.full((48, 64, 3), 20, np.uint8)
    picture[:24, :32] = 220  # bright top left, which a clockwise turn brings to the top right
    path = make_video(tmp_path / "a.mp4", seconds=1, frame_fn=lambda _t: picture)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    quarter = (0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)
    data[matrix : matrix + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in quarter)
    path.write_bytes(data)
    shown, _ = read_frame(path)
    assert shown.shape == (64, 48, 3)
    assert shown[:28, 28:].mean() > 200
    assert shown[36:].mean() < 40


def test_unusable_files_are_refused_with_reason(tmp_path):
    sound = tone(4, 16_000)
    good = make_video(tmp_path / "good.mp4", sound=sound, rate=16_000)
    files = {
        "has no sound": make_video(tmp_path / "mute.mp4"),
        "has no picture": make_coded_sound(
            tmp_path / "cover.mp3", sound, 16_000, "libmp3lame", cover=disc((64, 64), (0.5, 0.5))
        ),
    }
    (tmp_path / "empty.mp4").write_bytes(b"")
    files["is empty"] = tmp_path / "empty.mp4"
    (tmp_path / "text.mp4").write_text("This is a diary, not a film.\n" * 50)
    files["cannot be decoded"] = tmp_path / "text.mp4"
    files["cannot be read"] = tmp_path / "absent.mp4"
    for reason, path in files.items():
        with pytest.raises(InputError, match=reason):
            read_moment(path, seconds=3)
    (tmp_path / "half.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be decoded"):
        read_moment(tmp_path / "half.mp4", seconds=3)
    only_sound = make_sound(tmp_path / "a.wav", sound, 16_000)
    with pytest.raises(InputError, match="has no picture"):
        read_moment(only_sound, seconds=3)


def test_video_truncated_after_its_index_is_refused(tmp_path):
    good = make_video(tmp_path / "a.mp4", seconds=8, sound=tone(8, 16_000), rate=16_000, faststart=True)
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[: good.stat().st_size * 4 // 10])
    with pytest.raises(InputError, match="cut off"):
        read_moment(tmp_path / "cut.mp4", seconds=3)


def test_tags_that_are_not_utf8_are_ignored(tmp_path):
    path = make_video(tmp_path / "a.mkv", sound=tone(4, 16_000), rate=16_000)
    named = path.read_bytes()
    path.write_bytes(named.replace(b"Lavf", b"\xe9\xff\xe8\xfe").replace(b"Lavc", b"\xe9\xff\xe8\xfe"))
    assert path.read_bytes() != named
    assert read_moment(path, seconds=3).time_s == pytest.approx(2)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips lie beside the checkout and are not there")
def test_real_clips():
    for path in sorted(CLIPS.glob("*.mp4")):
        if path.stem == "tv_basketball":
            with pytest.raises(InputError, match="has no sound"):
                read_moment(path, seconds=3, rate=22_050)
            continue
        moment = read_moment(path, seconds=3, rate=22_050)
        assert moment.sound.waveform.shape == (66_150,), path.name
        assert [moment.sound.silent, moment.sound.short, moment.still] == [False] * 3, path.name
