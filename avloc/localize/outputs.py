"""Output paths of `localize`, and the files of one time: overlays, masks and arrays."""

from __future__ import annotations

import errno
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avloc.errors import InputError, Refused, UsageError
from avloc.files import atomic_path, real_path
from avloc.localize.inputs import STDIN
from avloc.localize.result import Result
from avloc.localize.style import Style


@dataclass(frozen=True, kw_only=True)
class _Format:
    """A picture format of Pillow."""

    name: str
    largest: int
    """Largest side in pixels."""
    options: dict[str, Any] = field(default_factory=dict)


_JPEG = _Format(name="JPEG", largest=65_500, options={"quality": 92, "subsampling": 0})
_FORMATS = {
    ".png": _Format(name="PNG", largest=(1 << 31) - 1),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _Format(name="WEBP", largest=16_383, options={"lossless": True}),
    ".gif": _Format(name="GIF", largest=65_535),  # Pillow chooses the palette by the picture
}
PICTURES = tuple(_FORMATS)
ARRAY, VIDEO, MASK = ".npy", ".mp4", ".mask.png"
JSON, CSV, COCO = ".json", ".csv", ".coco.json"
RECORDS = (JSON, CSV, COCO)
"""Formats in which one file holds all times of one or several inputs."""
OUTPUT_SUFFIXES = (*PICTURES, ARRAY, VIDEO, MASK, *RECORDS)
STEM, TIME = "{stem}", "{time}"
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """An output of one input."""

    path: Path
    """`{time}` stands for the time of each result."""
    suffix: str
    """Selects the format: the longest known suffix of the name that was typed."""
    per_time: bool
    """Whether each time has a file of its own."""


def plan_outputs(
    inputs: Sequence[str],
    outs: Sequence[str],
    *,
    pictures: bool = True,
    every: bool = False,
    suffixes: Sequence[str] = OUTPUT_SUFFIXES,
) -> list[tuple[OutputFile, ...]]:
    """Output files of each input, one for each of `outs`.

    The suffix selects the format. A trailing slash, an existing folder or several inputs mean a folder with
    `{stem}.png` per input (`{stem}-{time}.png` with several times); a second equal stem gets `-2`. Inputs share a file
    of one of the formats in `RECORDS`, unless its name has `{stem}`. The default is `{stem}.heat.png` in the working
    directory.

    Args:
        inputs: paths; `-` has the stem `stdin`.
        outs: as typed, each optionally with `{stem}` and `{time}`.
        pictures: False writes nothing if `outs` is empty.
        every: whether an input may have several results.
        suffixes: valid suffixes of files.

    Raises:
        UsageError: several results with one file name, an unknown suffix or placeholder, a file in place of a folder,
            or the same file twice.
    """
    templates = [_template(inputs, out, every=every, suffixes=suffixes) for out in outs]
    if not outs and pictures:
        templates = [_DEFAULT[every]]
    named = [list(_named(inputs, template)) for template in templates]
    for path, count in Counter(path for paths in named for path in set(paths)).items():
        if count > 1:
            raise UsageError(f"--out: {path} would be written by two of them; valid: different names")
    kinds = [_kind(template, every=every, suffixes=suffixes) for template in templates]
    return [
        tuple(OutputFile(path=paths[number], **kind) for paths, kind in zip(named, kinds, strict=True))
        for number in range(len(inputs))
    ]


_DEFAULT = {False: f"{STEM}.heat.png", True: f"{STEM}.heat/{TIME}.png"}
_IN_FOLDER = {False: f"{STEM}.png", True: f"{STEM}-{TIME}.png"}


def _kind(template: str, *, every: bool, suffixes: Sequence[str]) -> dict[str, Any]:
    """Suffix of the files of a template, and whether each time has its own."""
    suffix = _suffix(Path(template), suffixes)
    is_stack = suffix == ARRAY and every and TIME not in template
    return {"suffix": suffix, "per_time": suffix not in (VIDEO, *RECORDS) and not is_stack}


def _suffix(path: Path, suffixes: Sequence[str]) -> str:
    """The longest of `suffixes` with which the name ends; without one, the usual suffix."""
    name = path.name.lower()
    return max((one for one in suffixes if name.removesuffix(one) not in ("", name)), key=len, default=path.suffix)


def _template(inputs: Sequence[str], out: str, *, every: bool, suffixes: Sequence[str]) -> str:
    """The file names that an `--out` stands for, with placeholders."""
    target = Path(out)
    _check_new(target, out)
    many = len(inputs) > 1 or every
    if out.endswith("/") or target.is_dir() or (many and not target.suffix):
        if target.exists() and not target.is_dir():
            raise UsageError(f"--out {out} is a file; valid: a new or existing folder")
        return str(target / _IN_FOLDER[every])
    _check_file(target, out, inputs, every=every, suffixes=suffixes)
    return out


def _check_new(target: Path, out: str) -> None:
    """Check that the new part of a path can be created and has no unknown placeholder."""
    existing = next(path for path in (target, *target.parents) if path.exists())
    if existing != target and not existing.is_dir():
        raise UsageError(f"--out {out}: {existing} is a file; valid: a new or existing folder")
    new = str(target.relative_to(existing))
    unknown = [name for name in _PLACEHOLDER.findall(new) if name not in (STEM, TIME)]
    if unknown:
        raise UsageError(f"--out {out}: {unknown[0]} is unknown; valid: {STEM}, {TIME}")


def _check_file(target: Path, out: str, inputs: Sequence[str], *, every: bool, suffixes: Sequence[str]) -> None:
    suffix = _suffix(target, suffixes)
    if len(inputs) > 1 and STEM not in out and suffix not in RECORDS:
        raise UsageError(
            f"--out {out} is one file for {len(inputs)} inputs; valid: a folder, as in --out {target.stem}/, or a "
            f"name with {STEM}"
        )
    if suffix not in suffixes:
        raise UsageError(f"--out {out}: unknown suffix; valid: {', '.join(suffixes)}, or a folder with a slash")
    if every and suffix in (*PICTURES, MASK) and TIME not in out:
        raise UsageError(f"--out {out} is one picture for several times; valid: a folder, a name with {TIME}, or .npy")
    if suffix in (VIDEO, *RECORDS) and TIME in out:
        kind = "video" if suffix == VIDEO else f"{suffix} file"
        raise UsageError(f"--out {out}: a {kind} contains all times; valid: a name without {TIME}")


def check_inputs_kept(outputs: Iterable[OutputFile], sources: Iterable[Path]) -> None:
    """Check that no output would overwrite an input.

    Raises:
        UsageError: one would.
    """
    kept = {real_path(path) for path in sources}
    for file in outputs:
        if (overwritten := real_path(at_time(file.path, 0.0))) in kept:
            raise UsageError(f"--out {file.path} would overwrite the input {overwritten}; valid: another folder")


def _named(inputs: Sequence[str], template: str) -> Iterator[Path]:
    taken: set[str] = set()
    for name in inputs:
        stem = unique = "stdin" if name == STDIN else Path(name).stem
        number = 1
        while unique in taken:
            number += 1
            unique = f"{stem}-{number}"
        taken.add(unique)
        yield Path(template.replace(STEM, unique))


def at_time(path: Path, time_s: float) -> Path:
    """`path` with `{time}` replaced by seconds, zero-padded so that names sort by time."""
    return Path(str(path).replace(TIME, f"{time_s:08.3f}"))


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """`atomic_path` that creates missing folders, and removes them again if no file was written.

    Raises:
        InputError: the name is too long.
        Refused: the folders cannot be created.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise Refused(f"a folder cannot be created there: {error}", hint="Name another place.") from error
    try:
        with atomic_path(path) as part:
            with suppress(FileNotFoundError):
                path.lstat()  # a name that is too long is an error now, and not after hours of writing
            yield part
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise InputError(f"its output name is too long: {path.name}; valid: --out with a shorter one") from error
    finally:
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a picture [H, W, 3], or [H, W] in shades of grey, in the format of the suffix of `path`, atomically.

    Raises:
        InputError: it exceeds the largest size of the format.
    """
    kind = _FORMATS[path.suffix.lower()]
    height, width = pixels.shape[:2]
    if max(height, width) > kind.largest:
        reason = f"has an overlay of {width} x {height} pixels, more than {kind.name} supports"
        raise InputError(f"{reason} ({kind.largest} per side); valid: --out with .png")
    with new_file(path) as part:
        Image.fromarray(pixels).save(part, format=kind.name, **kind.options)


def write_result(file: OutputFile, path: Path, result: Result, style: Style) -> None:
    """Write the file of one time, atomically: the heat map [H, W] as `.npy`, its mask, or an overlay.

    Raises:
        InputError: an overlay exceeds the largest size of its format.
    """
    if file.suffix == ARRAY:
        buffer = io.BytesIO()
        np.save(buffer, result.heatmap)
        with new_file(path) as part:
            part.write_bytes(buffer.getvalue())
    elif file.suffix == MASK:
        write_picture(path, np.uint8(255) * result.mask)
    else:
        write_picture(path, result.overlay(style))
