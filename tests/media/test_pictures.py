"""Picture formats, animations, and inputs that are no picture or no file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avloc.errors import InputError
from avloc.media.pictures import PICTURE_SUFFIXES, as_shown, decode_picture, is_picture
from tests.media_makers import make_sound, make_video, tone

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
