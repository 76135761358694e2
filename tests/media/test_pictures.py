"""Pictures and masks: formats, animations, orientation, and inputs that are no picture or no file."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from avloc.errors import InputError
from avloc.media.pictures import (
    PICTURE_SUFFIXES,
    as_shown,
    decode_mask,
    decode_picture,
    encode_jpeg,
    encode_png,
    is_picture,
    shrink,
)
from tests.media_makers import disc, make_picture, make_sound, make_video, tone

RED, BLUE = (200, 30, 30), (30, 30, 200)
SIZE = (32, 16)
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


def encoded(image: Image.Image, kind: str, **save) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **save)
    return file.getvalue()


def animation(kind: str) -> bytes:
    first, second = Image.new("RGB", SIZE, RED), Image.new("RGB", SIZE, BLUE)
    return encoded(first, kind, save_all=True, append_images=[second], duration=100, loop=0)


STILL = {f".{kind.lower()}": encoded(Image.new("RGB", SIZE, RED), kind) for kind in ("TIFF", "TGA", "AVIF", "JPEG")}
STILL[".ico"] = encoded(Image.new("RGB", SIZE, RED), "ICO", sizes=[SIZE])
STILL[".tga rle"] = encoded(Image.new("RGB", SIZE, RED), "TGA", compression="tga_rle")
STILL[".tif lzw"] = encoded(Image.new("RGB", SIZE, RED), "TIFF", compression="tiff_lzw")
STILL[".tif cmyk"] = encoded(Image.new("RGB", SIZE, RED).convert("CMYK"), "TIFF")
MOVING = {f".{name}": animation(kind) for name, kind in (("gif", "GIF"), ("apng", "PNG"), ("webp", "WEBP"))}
MOVING[".tif"] = encoded(
    Image.new("RGB", SIZE, RED), "TIFF", save_all=True, append_images=[Image.new("RGB", SIZE, BLUE)]
)
ALL = STILL | MOVING


def file_of(folder: Path, kind: str) -> Path:
    path = folder / f"a{kind.split()[0]}"
    path.write_bytes(ALL[kind])
    return path


@pytest.mark.parametrize("kind", ALL)
def test_every_format_is_decoded_to_its_first_frame(kind):
    picture = decode_picture(ALL[kind])
    assert picture.shape == (16, 32, 3)
    np.testing.assert_allclose(picture.reshape(-1, 3).mean(0), RED, atol=8)


@pytest.mark.parametrize("kind", ALL)
def test_pictures_are_detected_by_suffix_or_first_bytes(tmp_path, kind):
    path = file_of(tmp_path, kind)
    assert path.suffix in PICTURE_SUFFIXES
    assert is_picture(path)
    bare = path.rename(tmp_path / "bare")
    assert is_picture(bare) == (not kind.startswith(".tga")), "TGA has no signature"


def test_video_is_no_picture_with_any_name(tmp_path):
    video = make_video(tmp_path / "a.mp4", seconds=0.2)
    assert not is_picture(video)
    assert not is_picture(video.rename(tmp_path / "bare"))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_of_a_tiff_is_applied_once(orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = RED
    stored = {1: upright, 3: upright[::-1, ::-1], 6: np.rot90(upright), 8: np.rot90(upright, -1)}[orientation]
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), "TIFF", tiffinfo={0x0112: orientation})
    np.testing.assert_array_equal(decode_picture(data), upright)


@pytest.mark.parametrize("number_type", [2, 5, 7])
def test_orientation_is_applied_though_another_tag_is_damaged(number_type):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    whole = exif.tobytes()
    at = whole.index(b"\x00\x02\x00\x05\x00\x00\x00\x03")
    damaged = whole[: at + 3] + bytes([number_type]) + whole[at + 4 :]
    image = Image.open(io.BytesIO(encoded(Image.new("RGB", (9, 7)), "JPEG", exif=damaged)))
    before = dict(image.info)
    assert as_shown(image).shape == (9, 7, 3)
    assert image.info == before


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_brightness(kind):
    assert (decode_picture(encoded(Image.fromarray(np.full((8, 8), 0x8040, np.uint16)), kind)) == 0x80).all()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "ICO", "TGA"])
def test_transparency_is_composited_on_white(kind):
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert (decode_picture(encoded(clear, kind)) == 255).all()


@pytest.mark.parametrize("kind", ["PPM", "PCX", "SGI", "JPEG2000"])
def test_rare_formats_are_decoded(kind):
    picture = Image.new("RGB", SIZE, (200, 40, 40))
    np.testing.assert_allclose(decode_picture(encoded(picture, kind)).astype(int), np.asarray(picture), atol=2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (HEIC, "HEIC, which is not read; save it as JPEG or PNG"),
        (encoded(Image.new("RGB", SIZE), "EPS"), "not a JPEG"),
        (encoded(Image.new("RGB", SIZE), "DDS"), "not a JPEG"),
        (encoded(Image.new("F", SIZE, 0.5), "TIFF"), "32-bit values have no standard range"),
        (encoded(Image.new("I", SIZE, 70_000), "TIFF"), "32-bit values have no standard range"),
        (ALL[".gif"][:20], "picture cannot be decoded"),
        (ALL[".tiff"][:40], "picture cannot be decoded"),
        (ALL[".tga"][:40], "picture cannot be decoded"),
        (ALL[".ico"][:40], "picture cannot be decoded"),
        (ALL[".avif"][:-40] + bytes(40), "picture cannot be decoded"),
        (ALL[".avif"][:100], "picture cannot be decoded"),
    ],
)
def test_unreadable_picture_gives_a_one_line_error(data, reason):
    with pytest.raises(InputError, match=rf"^picture cannot be decoded \(.*{reason}|^{reason}") as error:
        decode_picture(data)
    assert "\n" not in str(error.value)
    assert "Errno" not in str(error.value)


@pytest.mark.parametrize("kind", [".gif", ".apng", ".webp", ".tif", ".tga", ".ico", ".avif"])
def test_localize_accepts_every_picture_format(tmp_path, model, here, kind):
    picture, sound = file_of(tmp_path, kind), make_sound(tmp_path / "s.wav", tone(3.0, 16_000), 16_000)
    done = here("localize", picture, "--audio", sound, "--model", model, "--out", tmp_path / "h.npy")
    assert (done.code, done.out) == (0, f"{tmp_path / 'h.npy'}\n")
    alone = here("localize", picture, "--model", model, "--out", tmp_path / "h.npy")
    assert alone.code == 3
    assert "a picture has no sound; add one with --audio" in alone.err


def test_prepare_accepts_every_picture_format_but_heic(tmp_path, here):
    for kind in (".gif", ".tif", ".tga", ".avif"):
        file_of(tmp_path, kind).rename(tmp_path / f"{kind[1:]}{kind}")
        make_sound(tmp_path / f"{kind[1:]}.wav", tone(3.0, 16_000), 16_000)
    (tmp_path / "phone.heic").write_bytes(HEIC)
    make_sound(tmp_path / "phone.wav", tone(3.0, 16_000), 16_000)
    done = here("prepare", tmp_path, "--out", tmp_path / "store")
    assert done.code == 1
    assert "stored          4" in done.out
    assert "phone.heic frame: picture cannot be decoded (HEIC, which is not read; save it as JPEG or PNG)" in done.err


URLS = ("https://example.org/a.mp4?x=[1]*", "http://example.org/a.jpg", "rtsp://camera/1", "s3://bucket/a.mp4")


@pytest.mark.parametrize("url", URLS)
def test_url_is_refused(tmp_path, here, url):
    picture = file_of(tmp_path, ".gif")
    (tmp_path / "list.txt").write_text(f"{picture}\n{url}\n")
    for arguments in (
        ("localize", url),
        ("localize", f"@{tmp_path / 'list.txt'}"),
        ("localize", picture, "--audio", url),
        ("prepare", url, "--out", tmp_path / "store"),
    ):
        done = here(*arguments)
        assert (done.code, done.out) == (2, "")
        assert f"{url} is a URL\n  avloc reads files; download it first." in done.err


def test_file_named_like_a_url_is_read(tmp_path, here, monkeypatch):
    (tmp_path / "http:").mkdir()
    (tmp_path / "http:" / "a.gif").write_bytes(ALL[".gif"])
    monkeypatch.chdir(tmp_path)
    assert "a picture has no sound" in here("localize", "http://a.gif").err


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


def test_unusual_pictures(tmp_path):
    red = Image.new("RGB", (20, 10), (200, 30, 30))
    for kind in ("PNG", "BMP", "WEBP", "JPEG"):
        np.testing.assert_allclose(decode_picture(encoded(red, kind))[5, 10].astype(int), (200, 30, 30), atol=6)
    np.testing.assert_allclose(
        decode_picture(encoded(red.convert("CMYK"), "JPEG"))[5, 10].astype(int), (200, 30, 30), atol=6
    )
    sixteen = Image.fromarray(np.full((10, 20), 0x8040, np.uint16))
    assert (decode_picture(encoded(sixteen, "PNG")) == 0x80).all()
    paletted = red.quantize(4)
    np.testing.assert_array_equal(decode_picture(encoded(paletted, "PNG")), np.asarray(paletted.convert("RGB")))
    clear = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    assert (decode_picture(encoded(clear, "PNG")) == 255).all()
    assert decode_picture(encoded(Image.new("L", (20, 10), 77), "PNG")).shape == (10, 20, 3)
    assert decode_picture(encoded(Image.new("1", (20, 10), 1), "PNG")).max() == 255


def test_unusable_pictures_are_refused_with_reason():
    whole = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
    for data, reason in ((b"", "empty"), (b"no picture at all", "not a JPEG"), (whole[: len(whole) // 2], "truncated")):
        with pytest.raises(InputError, match=reason):
            decode_picture(data)


def test_encoders_and_shrinking():
    rgb = disc((64, 48), (0.5, 0.5))
    np.testing.assert_array_equal(decode_picture(encode_png(rgb)), rgb)
    assert np.abs(decode_picture(encode_jpeg(rgb, quality=95, subsampling=0)).astype(int) - rgb).mean() < 2
    assert shrink(rgb, 24).shape == (24, 32, 3)
    assert shrink(rgb, 480) is rgb


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
        assert decode_mask(encoded(image, "PNG")).tolist() == [[False, True, True]], name
    for transparency in (0, 1, bytes([0, 0, 255])):
        file = io.BytesIO()
        paletted.save(file, "PNG", transparency=transparency)
        assert decode_mask(file.getvalue()).tolist() == [[False, True, True]], transparency
    one_bit = Image.fromarray(np.array([[False, True, True]]))
    assert decode_mask(encoded(one_bit, "PNG")).tolist() == [[False, True, True]]


def test_palette_defines_black():
    """AVSBench's masks have a palette in which index 0 need not be the only background, or any."""
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0, 128, 0, 0, 0, 0, 0])
    assert decode_mask(encoded(image, "PNG")).tolist() == [[True, False, True, False]]


def test_16_bit_colours_are_reduced_to_8_bits():
    pixels = struct.pack(">9H", 0, 0, 0, 0x00FF, 0, 0, 0, 0x0100, 0)
    assert decode_mask(_png(3, 1, 16, 2, b"\0" + pixels)).tolist() == [[False, False, True]]


def test_unusable_masks_are_refused_with_reason():
    whole = encoded(Image.effect_noise((64, 64), 50), "PNG")
    for data, reason in (
        (b"", "is empty"),
        (encoded(Image.new("L", (8, 8)), "JPEG"), "not a PNG"),
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
