"""Output paths of `localize`, and the writers of pictures and arrays."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avloc.errors import InputError, Refused, UsageError
from avloc.files import atomic_path, real_path
from avloc.localize.inputs import STDIN
from avloc.localize.result import Result


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
ARRAY, VIDEO = ".npy", ".mp4"
PICTURES = tuple(_FORMATS)
OUTPUT_SUFFIXES = (*PICTURES, ARRAY, VIDEO)
STEM, TIME = "{stem}", "{time}"
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


def plan_outputs(
    inputs: Sequence[str],
    out: str,
    *,
    pictures: bool = True,
    every: bool = False,
    suffixes: Sequence[str] = OUTPUT_SUFFIXES,
) -> list[Path | None]:
    """Output path of each input; None for no output. `{time}` in a path is replaced by the time of each result.

    The suffix selects the format. A trailing slash, an existing folder or several inputs mean a folder with
    `{stem}.png` per input (`{stem}-{time}.png` with several times); a second equal stem gets `-2`. The default is
    `{stem}.heat.png` in the working directory.

    Args:
        inputs: paths; `-` has the stem `stdin`.
        out: as typed, optionally with `{stem}` and `{time}`.
        pictures: False writes nothing if `out` is empty.
        every: whether an input may have several results.
        suffixes: valid suffixes of files.

    Raises:
        UsageError: several results with one file name, an unknown suffix or placeholder, or a file in place of a
            folder.
    """
    if not out:
        return [*_named(inputs, _DEFAULT[every])] if pictures else [None] * len(inputs)
    target = Path(out)
    _check_new(target, out)
    many = len(inputs) > 1 or every
    if out.endswith("/") or target.is_dir() or (many and not target.suffix):
        if target.exists() and not target.is_dir():
            raise UsageError(f"--out {out} is a file; valid: a new or existing folder")
        return [*_named(inputs, str(target / _IN_FOLDER[every]))]
    _check_file(target, out, inputs, every=every, suffixes=suffixes)
    return [*_named(inputs, out)] if STEM in out else [target]


_DEFAULT = {False: f"{STEM}.heat.png", True: f"{STEM}.heat/{TIME}.png"}
_IN_FOLDER = {False: f"{STEM}.png", True: f"{STEM}-{TIME}.png"}


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
    suffix = target.suffix.lower()
    if len(inputs) > 1 and STEM not in out:
        raise UsageError(
            f"--out {out} is one file for {len(inputs)} inputs; valid: a folder, as in --out {target.stem}/, or a "
            f"name with {STEM}"
        )
    if suffix not in suffixes:
        raise UsageError(f"--out {out}: unknown suffix; valid: {', '.join(suffixes)}, or a folder with a slash")
    if every and suffix in PICTURES and TIME not in out:
        raise UsageError(f"--out {out} is one picture for several times; valid: a folder, a name with {TIME}, or .npy")
    if suffix == VIDEO and TIME in out:
        raise UsageError(f"--out {out}: a video contains all times; valid: a name without {TIME}")


def check_inputs_kept(out: str, outputs: Iterable[Path | None], sources: Iterable[Path]) -> None:
    """Check that no output would overwrite an input.

    Raises:
        UsageError: one would.
    """
    overwritten = {real_path(at_time(path, 0.0)) for path in outputs if path} & {real_path(path) for path in sources}
    if overwritten:
        raise UsageError(f"--out {out} would overwrite the input {min(overwritten)}; valid: another folder")


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
            yield part
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise InputError(f"its output name is too long: {path.name}; valid: --out with a shorter one") from error
    finally:
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write a picture [H, W, 3] in the format of the suffix of `path`, atomically.

    Raises:
        InputError: it exceeds the largest size of the format.
    """
    kind = _FORMATS[path.suffix.lower()]
    height, width = rgb.shape[:2]
    if max(height, width) > kind.largest:
        reason = f"has an overlay of {width} x {height} pixels, more than {kind.name} supports"
        raise InputError(f"{reason} ({kind.largest} per side); valid: --out with .png")
    with new_file(path) as part:
        Image.fromarray(rgb).save(part, format=kind.name, **kind.options)


def write_array(path: Path, result: Result) -> None:
    """Write the heat map [H, W] as `.npy`, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, result.heatmap)
    with new_file(path) as part:
        part.write_bytes(buffer.getvalue())


class HeatMapStack:
    """Writes heat maps of several times to one `.npy` [T, H, W], one at a time.

    Args:
        path: the file.
        files: closes it; on failure the file is removed.
    """

    def __init__(self, path: Path, files: ExitStack) -> None:
        self.path, self._files = path, files
        self._file: BinaryIO | None = None
        self._shape: tuple[int, ...] = ()
        self._count = 0

    def add(self, result: Result) -> None:
        """Append a heat map; the first one opens the file and determines the size."""
        if self._file is None:
            part = self._files.enter_context(new_file(self.path))
            self._file = self._files.enter_context(part.open("wb"))
            self._shape = result.heatmap.shape
            self._file.write(self._header(0))
        self._count += 1
        self._file.write(np.ascontiguousarray(result.heatmap, "<f4").tobytes())

    def finish(self) -> None:
        """Write the final number of heat maps to the header."""
        assert self._file is not None
        self._file.seek(0)
        self._file.write(self._header(self._count))

    def _header(self, count: int) -> bytes:
        """The `.npy` header, whose length does not depend on `count`: NumPy pads for a growing first axis."""
        buffer = io.BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, *self._shape)}
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue()
