"""Where results go, and how they are written: pictures, arrays, several of them for one input."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from avloc.errors import UsageError
from avloc.files import atomic_path, real
from avloc.localize.inputs import STDIN
from avloc.localize.result import Result
from avloc.localize.style import Style

ARRAY, VIDEO = ".npy", ".mp4"
PICTURES = (".png", ".jpg", ".jpeg")
OUTPUT_SUFFIXES = (*PICTURES, ARRAY, VIDEO)
STEM, TIME = "{stem}", "{time}"
_JPEG_QUALITY = 92


def plan_outputs(
    inputs: Sequence[str],
    out: str,
    *,
    pictures: bool = True,
    every: bool = False,
    endings: Sequence[str] = OUTPUT_SUFFIXES,
) -> list[Path | None]:
    """Where each input's result goes; None for nowhere. `{time}` in a path stands for the time of each result.

    A file by its ending; a trailing slash, an existing folder or several inputs mean a folder with `{stem}.png` each
    (`{stem}-{time}.png` where there are several times), a second equal stem getting `-2`; nothing given means
    `{stem}.heat.png` here.

    Args:
        inputs: paths; `-` has the stem `stdin`.
        out: as the user typed it, with `{stem}` and `{time}` or without.
        pictures: False writes nothing where `out` is empty.
        every: an input may have several results.
        endings: of files that can be written.

    Raises:
        UsageError: several results with one file name, an ending we do not write, or a folder that does not exist.
    """
    if not out:
        return [*_named(inputs, _DEFAULT[every])] if pictures else [None] * len(inputs)
    target = Path(out)
    many = len(inputs) > 1 or every
    if out.endswith("/") or target.is_dir() or (many and not target.suffix):
        if target.exists() and not target.is_dir():
            raise UsageError(f"--out {out} is a file; valid: a folder, new or there already")
        return [*_named(inputs, str(target / _IN_FOLDER[every]))]
    _check_file(target, out, inputs, every=every, endings=endings)
    return [*_named(inputs, out)] if STEM in out else [target]


_DEFAULT = {False: f"{STEM}.heat.png", True: f"{STEM}.heat/{TIME}.png"}
_IN_FOLDER = {False: f"{STEM}.png", True: f"{STEM}-{TIME}.png"}


def _check_file(target: Path, out: str, inputs: Sequence[str], *, every: bool, endings: Sequence[str]) -> None:
    suffix = target.suffix.lower()
    if len(inputs) > 1 and STEM not in out:
        raise UsageError(
            f"--out {out} is one file for {len(inputs)} inputs; valid: a folder, as in --out {target.stem}/, or a "
            f"name with {STEM}"
        )
    if suffix not in endings:
        raise UsageError(f"--out {out}: unknown ending; valid: {', '.join(endings)}, or a folder with a slash")
    if every and suffix in PICTURES and TIME not in out:
        raise UsageError(f"--out {out} is one picture for several times; valid: a folder, a name with {TIME}, or .npy")
    if suffix == VIDEO and TIME in out:
        raise UsageError(f"--out {out}: a video holds all times; valid: a name without {TIME}")
    if not (STEM in out or TIME in out or target.parent.is_dir()):
        raise UsageError(f"--out {out}: the folder {target.parent} does not exist")


def check_apart(out: str, outputs: Iterable[Path | None], sources: Iterable[Path]) -> None:
    """No output may take the place of an input.

    Raises:
        UsageError: one would.
    """
    overwritten = {real(at_time(path, 0.0)) for path in outputs if path} & {real(path) for path in sources}
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
    """`path` with `{time}` filled in, in seconds, so that names sort as times do."""
    return Path(str(path).replace(TIME, f"{time_s:08.3f}"))


def write_picture(path: Path, result: Result, style: Style) -> None:
    """Write the overlay, by the ending of `path`, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        picture = Image.fromarray(result.overlay(style))
        if path.suffix.lower() == ".png":
            picture.save(part, format="PNG")
        else:
            picture.save(part, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)


def write_array(path: Path, result: Result) -> None:
    """Write the heat map [H, W] as `.npy`, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, result.heatmap)
    with atomic_path(path) as part:
        part.write_bytes(buffer.getvalue())


class Stack:
    """Heat maps of several times as one `.npy` [T, H, W], written as they come; memory holds one.

    Args:
        path: where it will be.
        files: closes it; on failure nothing is left.
    """

    def __init__(self, path: Path, files: ExitStack) -> None:
        self.path, self._files = path, files
        self._file: BinaryIO | None = None
        self._shape: tuple[int, ...] = ()
        self._count = 0

    def add(self, result: Result) -> None:
        """Append a heat map; the first one opens the file and settles the size."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self._files.enter_context(atomic_path(self.path))
            self._file = self._files.enter_context(part.open("wb"))
            self._shape = result.heatmap.shape
            self._file.write(self._header(0))
        self._count += 1
        self._file.write(np.ascontiguousarray(result.heatmap, "<f4").tobytes())

    def finish(self) -> None:
        """Write how many heat maps there are."""
        assert self._file is not None
        self._file.seek(0)
        self._file.write(self._header(self._count))

    def _header(self, count: int) -> bytes:
        """NumPy leaves room in it for a longer first axis, so that every count takes as many bytes."""
        buffer = io.BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, *self._shape)}
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue()
