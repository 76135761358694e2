"""Decoding of audio, video, pictures and masks: exact samples and frames, or an error with the reason."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from avloc.errors import InputError
from avloc.media import audio_decoder
from avloc.media.audio import read_sound
from avloc.media.pictures import decode_mask, decode_picture, encode_jpeg, encode_png, shrink
from avloc.media.video_frames import read_frame, read_moment
from tests.media_makers import (
    disc,
    grey_ramp,
    make_coded_sound,
    make_picture,
    make_sound,
    make_video,
    moving_disc,
    tone,
)

CLIPS = Path(__file__).parents[3] / "shared" / "clips"
RATES = (16_000, 22_050, 44_100, 48_000)


def heard_span(window) -> tuple[float, float]:
    """First and last time above 4 % of full scale, on the file's timeline."""
    loud = np.nonzero(np.abs(window.waveform) > 0.04)[0]
    return window.start_s + loud[0] / window.rate, window.start_s + loud[-1] / window.rate


# --- sound ------------------------------------------------------------------------------------------------------


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
    assert heard_span(window) == pytest.approx((1.0, 2.0), abs=0.001)
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
    assert heard_span(window) == pytest.approx((80.0, 81.0), abs=0.002)


def test_digital_silence_is_noticed(tmp_path):
    assert read_sound(make_sound(tmp_path / "a.wav", np.zeros(48_000), 16_000), seconds=3, rate=22_050).silent


def test_nan_samples_are_refused(tmp_path):
    sound = tone(3, 16_000)
    sound[100] = np.nan
    path = make_sound(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    with pytest.raises(InputError, match="not numbers"):
        read_sound(path, seconds=3)


def test_file_object_is_read_like_a_file(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=4, sound=tone(4, 16_000), rate=16_000)
    from_path = read_moment(path, seconds=3)
    from_memory = read_moment(io.BytesIO(path.read_bytes()), seconds=3)
    np.testing.assert_array_equal(from_path.picture, from_memory.picture)
    np.testing.assert_array_equal(from_path.sound.waveform, from_memory.sound.waveform)


# --- videos -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_sound_that_starts_late_keeps_its_time(tmp_path, ending):
    """Tone at 0.5-1 s of a stream that starts 0.5 s late is at 1-1.5 s of the file; before that there are zeros."""
    path = make_video(tmp_path / f"a.{ending}", sound=tone(3.5, 16_000, span=(0.5, 1)), rate=16_000, sound_start_s=0.5)
    moment = read_moment(path, seconds=3, at=1.0)
    assert moment.sound.start_s == 0.0
    assert heard_span(moment.sound) == pytest.approx((1.0, 1.5), abs=0.005)
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


def test_disguised_playlist_opens_no_connection(tmp_path):
    path = tmp_path / "list.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError):
        read_moment(path, seconds=3)


# --- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24] = (255, 0, 0)
    upright[16:, :24] = (0, 255, 0)
    # How each EXIF orientation stores an upright picture (EXIF 2.3, 4.6.4 A).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = make_picture(tmp_path / "a.jpg", np.ascontiguousarray(stored), exif=exif, quality=95, subsampling=0)
    np.testing.assert_allclose(decode_picture(path.read_bytes()).astype(int), upright, atol=12)


def _encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_unusual_pictures(tmp_path):
    red = Image.new("RGB", (20, 10), (200, 30, 30))
    for kind in ("PNG", "BMP", "WEBP", "JPEG"):
        np.testing.assert_allclose(decode_picture(_encoded(red, kind))[5, 10].astype(int), (200, 30, 30), atol=6)
    np.testing.assert_allclose(
        decode_picture(_encoded(red.convert("CMYK"), "JPEG"))[5, 10].astype(int), (200, 30, 30), atol=6
    )
    sixteen = Image.fromarray(np.full((10, 20), 0x8040, np.uint16))
    assert (decode_picture(_encoded(sixteen, "PNG")) == 0x80).all()
    paletted = red.quantize(4)
    np.testing.assert_array_equal(decode_picture(_encoded(paletted, "PNG")), np.asarray(paletted.convert("RGB")))
    clear = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    assert (decode_picture(_encoded(clear, "PNG")) == 255).all()
    assert decode_picture(_encoded(Image.new("L", (20, 10), 77), "PNG")).shape == (10, 20, 3)
    assert decode_picture(_encoded(Image.new("1", (20, 10), 1), "PNG")).max() == 255


def test_unusable_pictures_are_refused_with_reason():
    whole = _encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
    for data, reason in ((b"", "empty"), (b"no picture at all", "not a JPEG"), (whole[: len(whole) // 2], "truncated")):
        with pytest.raises(InputError, match=reason):
            decode_picture(data)


def test_encoders_and_shrinking():
    rgb = disc((64, 48), (0.5, 0.5))
    np.testing.assert_array_equal(decode_picture(encode_png(rgb)), rgb)
    assert np.abs(decode_picture(encode_jpeg(rgb, quality=95, subsampling=0)).astype(int) - rgb).mean() < 2
    assert shrink(rgb, 24).shape == (24, 32, 3)
    assert shrink(rgb, 480) is rgb


# --- masks ------------------------------------------------------------------------------------------------------


def _png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """Build a PNG: `rows` with a filter byte before each, `more` chunks after the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    every = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), *more, (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in every
    )
    return b"\x89PNG\r\n\x1a\n" + body


@given(st.integers(1, 20), st.integers(1, 20), st.randoms(use_true_random=False))
def test_masks_round_trip(height, width, random):
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    back = decode_mask(encode_png(mask))
    assert back.dtype == np.bool_
    np.testing.assert_array_equal(back, mask)


def test_every_png_mode_is_decoded_as_a_mask():
    """Rows of three pixels: black, nearly black, white. Alpha is ignored."""
    rgb = np.array([[[0, 0, 0], [0, 0, 1], [255, 255, 255]]], np.uint8)
    grey = rgb.max(axis=2)
    alphas = np.array([[[255], [0], [0]]], np.uint8)
    clear = np.array([[[0], [255], [7]]], np.uint8)
    paletted = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    paletted.putpalette([0, 0, 0, 0, 0, 1, 255, 255, 255])
    images = {
        "L": Image.fromarray(grey),
        "RGB": Image.fromarray(rgb),
        "LA": Image.fromarray(np.concatenate([grey[..., None], alphas], axis=2)),
        "LA, clear": Image.fromarray(np.concatenate([grey[..., None], clear], axis=2)),
        "RGBA": Image.fromarray(np.concatenate([rgb, alphas], axis=2)),
        "RGBA, clear": Image.fromarray(np.concatenate([rgb, clear], axis=2)),
        "16 bits": Image.fromarray(np.array([[0, 1, 0x100]], np.uint16)),
        "P": paletted,
    }
    for name, image in images.items():
        assert decode_mask(_encoded(image, "PNG")).tolist() == [[False, True, True]], name
    for transparency in (0, 1, bytes([0, 0, 255])):
        file = io.BytesIO()
        paletted.save(file, "PNG", transparency=transparency)
        assert decode_mask(file.getvalue()).tolist() == [[False, True, True]], transparency
    one_bit = Image.fromarray(np.array([[False, True, True]]))
    assert decode_mask(_encoded(one_bit, "PNG")).tolist() == [[False, True, True]]


def test_palette_defines_black():
    """AVSBench's masks have a palette in which index 0 need not be the only background, or any."""
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0, 128, 0, 0, 0, 0, 0])
    assert decode_mask(_encoded(image, "PNG")).tolist() == [[True, False, True, False]]


def test_16_bit_colours_are_reduced_to_8_bits():
    pixels = struct.pack(">9H", 0, 0, 0, 0x00FF, 0, 0, 0, 0x0100, 0)
    assert decode_mask(_png(3, 1, 16, 2, b"\0" + pixels)).tolist() == [[False, False, True]]


def test_unusable_masks_are_refused_with_reason():
    whole = _encoded(Image.effect_noise((64, 64), 50), "PNG")
    for data, reason in (
        (b"", "is empty"),
        (_encoded(Image.new("L", (8, 8)), "JPEG"), "not a PNG"),
        (whole[: len(whole) // 2], "truncated"),
        (_png(3, 1, 8, 3, b"\0\0\0\0"), "no palette"),
        (_png(30_000, 30_000, 1, 0, b""), "exceeds limit"),
        (_png(1, 1, 8, 0, b"\0\1", (b"iCCP", b"")), "index out of range"),
    ):
        with pytest.raises(InputError, match=reason):
            decode_mask(data)


def test_picture_without_palette_is_refused():
    with pytest.raises(InputError, match="no palette"):
        decode_picture(_png(3, 1, 8, 3, b"\0\0\0\0"))


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), st.integers(0, 10_000))
@example([], 0)
def test_damaged_masks_raise_only_input_error(changes, cut):
    """The header is not changed: with a large size, decoding takes seconds before the error."""
    mask = np.arange(48).reshape(6, 8) % 3 == 0
    data = bytearray(encode_png(mask))
    header = 8 + 25
    for place, value in changes:
        data[header + place % (len(data) - header)] = value
    with contextlib.suppress(InputError):
        assert decode_mask(bytes(data[: len(data) - cut % len(data)])).shape == mask.shape


# --- real clips -------------------------------------------------------------------------------------------------


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
