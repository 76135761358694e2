"""Windows of sound: channels, damage, joined files, and changing rates."""

from __future__ import annotations

from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avloc.errors import InputError
from avloc.media import audio_decoder
from avloc.media.audio import read_sound
from avloc.media.probing import probe
from avloc.media.video_frames import read_moment
from tests.media_makers import make_coded_sound, make_sound, make_video, tone
from tests.timed_video import RATE, film, loud_span


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


RATES = (16_000, 22_050, 44_100, 48_000)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("ending", ["wav", "flac", "mp4"])
def test_tone_lands_at_its_samples(tmp_path, rate, ending):
    sound = tone(4, rate, span=(1, 2))
    path = tmp_path / f"clip.{ending}"
    if ending == "mp4":
        make_video(path, seconds=4, sound=sound, rate=rate)
    else:
        make_sound(path, sound, rate)
    window = read_sound(path, seconds=3, rate=22_050, centre_s=2.0)
    assert window.waveform.shape == (66_150,)
    assert (window.rate, window.source_rate, window.short, window.silent) == (22_050, rate, False, False)
    assert window.start_s == pytest.approx(0.5, abs=1 / rate)
    assert loud_span(window) == pytest.approx((1.0, 2.0), abs=0.001)
    inside = window.waveform[int(0.6 * 22_050) : int(1.4 * 22_050)]
    spectrum = np.abs(np.fft.rfft(inside * np.hanning(len(inside))))
    assert np.argmax(spectrum) * 22_050 / len(inside) == pytest.approx(1000, abs=2)
    assert np.abs(inside).max() == pytest.approx(0.5, abs=0.03)


class _DamagedFrame:
    """A frame as decoded from damaged AAC; a real one crashes the process."""

    def __init__(self, channels: int, planes: int, *, planar: bool) -> None:
        self.layout = SimpleNamespace(nb_channels=channels)
        self.format = SimpleNamespace(is_planar=planar)
        self.planes = (b"",) * planes

    def to_ndarray(self) -> None:
        raise AssertionError("would follow wild pointers")


@pytest.mark.parametrize(
    ("channels", "planes", "planar"), [(2, 1, True), (1, 2, True), (2, 2, False), (9, 9, True), (0, 0, True)]
)
def test_frame_with_wrong_channel_count_is_refused(channels, planes, planar):
    with pytest.raises(InputError, match="its sound is damaged"):
        audio_decoder._samples(_DamagedFrame(channels, planes, planar=planar))


def test_own_rate_gives_the_files_samples(tmp_path):
    sound = tone(4, 16_000, hz=440)
    window = read_sound(make_sound(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT"), seconds=3)
    np.testing.assert_array_equal(window.waveform, sound[8_000:56_000])


def test_window_is_shifted_inside_at_the_edges(tmp_path):
    path = make_sound(tmp_path / "a.wav", tone(5, 16_000), 16_000)
    starts = [read_sound(path, seconds=3, centre_s=centre).start_s for centre in (0.0, 1.0, 2.5, 4.9)]
    assert starts == [0.0, 0.0, 1.0, 2.0]


def test_short_sound_is_tiled(tmp_path):
    sound = tone(1.25, 16_000, hz=300)
    window = read_sound(make_sound(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT"), seconds=3)
    assert window.short
    np.testing.assert_array_equal(window.waveform, np.resize(sound, 48_000))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_format_has_the_same_scale(tmp_path, subtype):
    sound = tone(3, 16_000)
    window = read_sound(make_sound(tmp_path / "a.wav", sound, 16_000, subtype=subtype), seconds=3)
    np.testing.assert_allclose(window.waveform, sound, atol=1 / 120 if subtype == "PCM_U8" else 1e-4)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(tmp_path, channels):
    sound = np.zeros((channels, 48_000), np.float32)
    sound[0] = tone(3, 16_000)
    window = read_sound(make_sound(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT"), seconds=3)
    np.testing.assert_allclose(window.waveform, sound[0] / channels, atol=1e-6)


@pytest.mark.parametrize(("ending", "codec"), [("mp3", "libmp3lame"), ("opus", "libopus"), ("m4a", "aac")])
def test_position_holds_after_a_seek_into_a_long_file(tmp_path, ending, codec):
    path = make_coded_sound(tmp_path / f"long.{ending}", tone(100, 48_000, span=(80, 81)), 48_000, codec)
    window = read_sound(path, seconds=3, rate=22_050, centre_s=80.5)
    assert loud_span(window) == pytest.approx((80.0, 81.0), abs=0.002)


def test_digital_silence_is_noticed(tmp_path):
    assert read_sound(make_sound(tmp_path / "a.wav", np.zeros(48_000), 16_000), seconds=3, rate=22_050).silent


def test_nan_samples_are_refused(tmp_path):
    sound = tone(3, 16_000)
    sound[100] = np.nan
    path = make_sound(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    with pytest.raises(InputError, match="not numbers"):
        read_sound(path, seconds=3)
