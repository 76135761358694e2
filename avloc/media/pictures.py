"""Detect, decode, resize and encode still pictures and masks; file suffixes by media type."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from avloc.errors import InputError

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".tga", ".ico"}
    | {".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".icns", ".pcx", ".sgi"}
    | {".heic", ".heif"}  # recognized only to be refused by name
)
SOUND_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".wma", ".aif", ".aiff", ".au", ".ac3", ".amr"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp"}
    | {".ogv", ".vob", ".f4v", ".asf", ".mxf"}
)

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "ICO", "AVIF", "JPEG2000", "PPM", "ICNS", "PCX", "SGI", "TGA")
"""Formats that Pillow may try; without EPS, which starts another program."""
_KINDS = "a JPEG, PNG, WEBP, BMP, GIF, TIFF, TGA, ICO, ICNS, AVIF, JPEG 2000, PPM, PCX or SGI picture"
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\1\0")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
_AVIF = (b"avif", b"avis")
_NO_RANGE = ("I", "F")
"""32-bit modes, which have no standard value range."""
_BROKEN = (
    *(OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error, Image.DecompressionBombError),
    RuntimeError,  # libavif's
)


def is_picture(path: Path) -> bool:
    """Whether a file is a still picture or an animation and not a video, by its suffix, else by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES or suffix in VIDEO_SUFFIXES:
        return suffix in PICTURE_SUFFIXES
    with path.open("rb") as file:
        begin = file.read(12)
    is_webp = begin[:4] == b"RIFF" and begin[8:] == b"WEBP"
    return begin.startswith(_SIGNATURES) or is_webp or _brand(begin) in (*_HEIC, *_AVIF)


def _brand(begin: bytes) -> bytes:
    """Brand of an ISO media file; b'' for other files."""
    return begin[8:12] if begin[4:8] == b"ftyp" else b""


def decode_picture(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture, or the first of an animation, to RGB [H, W, 3]; see `as_shown`.

    Raises:
        InputError: unknown format, truncated, damaged or too large.
    """
    try:
        image = _loaded(data, _FORMATS)
    except _BROKEN as error:
        heic = _brand(data[:12]) in _HEIC
        unknown = "HEIC, which is not read; save it as JPEG or PNG" if heic else f"not {_KINDS}"
        reason = unknown if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"picture cannot be decoded ({reason})") from error
    return as_shown(image)


def as_shown(image: Image.Image) -> NDArray[np.uint8]:
    """RGB [H, W, 3] of a Pillow image, with EXIF orientation applied and composited on white.

    Raises:
        InputError: it cannot be decoded or converted.
    """
    try:
        if image.mode in _NO_RANGE:
            raise ValueError("its 32-bit values have no standard range; save it with 8 or 16 bits")
        rgb = _rgb(image)
        rgb.info.clear()  # `exif_transpose` writes EXIF anew, which fails where other tags are damaged
        rgb.getexif()[ExifTags.Base.Orientation] = _orientation(image)
        ImageOps.exif_transpose(rgb, in_place=True)
        return np.array(rgb)
    except _BROKEN as error:
        raise InputError(f"picture cannot be decoded ({error})") from error


def square(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Stretch to the network's square input (bicubic, antialiased), as the published test loaders do."""
    return np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling.BICUBIC))


def decode_mask(png: bytes) -> NDArray[np.bool_]:
    """Decode a PNG mask to [H, W]: True (sounding) where a pixel is not black, whatever its alpha.

    Palette indices are converted to colours first; 16-bit colours are reduced to their upper eight bits.

    Raises:
        InputError: not a PNG, truncated, damaged or too large.
    """
    try:
        image = _loaded(png, ("PNG",))
        # RGBA, because Pillow warns when it converts a palette with transparency to RGB.
        values = np.asarray(image.convert("RGBA") if image.mode == "P" else image)
    except _BROKEN as error:
        reason = "not a PNG picture" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"mask cannot be decoded ({reason})") from error
    bands = np.atleast_3d(values)
    if bands.shape[2] in (2, 4):  # the last one is alpha
        bands = bands[..., :-1]
    mask: NDArray[np.bool_] = (bands != 0).any(axis=2)
    return mask


def _loaded(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    if not data:
        raise InputError("is empty (0 bytes)")
    with warnings.catch_warnings():
        # Pillow warns of large pictures and unusual animations that it can decode.
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data), formats=formats)
        image.load()
    if image.mode == "P" and image.palette is None:
        raise ValueError("it has no palette")
    return image


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _BROKEN:  # damaged EXIF leaves the picture itself intact
        return 1
    return value if isinstance(value, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        return on_white(image.convert("RGBA"))
    return image.convert("RGB")


def on_white(rgba: Image.Image) -> Image.Image:
    """Composite RGBA on white, as RGB."""
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def encode_jpeg(rgb: NDArray[np.uint8], *, quality: int, subsampling: int = 2) -> bytes:
    """JPEG bytes of `rgb` [H, W, 3]; subsampling 0 is 4:4:4, 2 is 4:2:0."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def encode_png(pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> bytes:
    """PNG bytes of an RGB picture [H, W, 3], or of a mask [H, W] with one bit per pixel."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def shrink(rgb: NDArray[np.uint8], shorter_side: int) -> NDArray[np.uint8]:
    """Resize `rgb` [H, W, 3] to a shorter side of `shorter_side` pixels (bicubic, antialiased); never enlarge."""
    height, width = rgb.shape[:2]
    if min(height, width) <= shorter_side:
        return rgb
    scale = shorter_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
