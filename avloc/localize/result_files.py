"""Files with the results of several times: `.npy` of one input; `.json`, `.csv` and `.coco.json` of one or several."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from avloc import __version__
from avloc.json_text import finite, to_json
from avloc.localize.options import Localization
from avloc.localize.outputs import ARRAY, COCO, CSV, JSON, OutputFile, new_file
from avloc.localize.result import Result

if TYPE_CHECKING:
    from avloc.localize.model import Model

_COLUMNS = {
    "window_s": ("window_start_s", "window_end_s"),
    "frame_hw": ("height", "width"),
    "peak_xy": ("peak_x", "peak_y"),
    "box_xyxy": ("box_x0", "box_y0", "box_x1", "box_y1"),
}
"""Field of a JSON line that is a list -> its columns in CSV."""
_CATEGORY = {"id": 1, "name": "sound source"}


class ResultFile(ABC):
    """A file that grows with each record and is renamed when it is complete.

    The first result opens it; a file without results is not written. On failure within the context it is removed.
    """

    def __init__(self, path: Path, model: Model) -> None:
        self.path, self.model = path, model
        self.count = 0
        """Number of results."""
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._waiting: list[Localization] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, record: Localization) -> None:
        """Append the record of a time, or of an error.

        Raises:
            InputError: the name of the file is too long.
        """
        self._waiting.append(record)
        if self._file is None:
            if record.result is None:
                return
            part = self._stack.enter_context(new_file(self.path))
            self._file = self._stack.enter_context(part.open("wb"))
            self._file.write(self._head(record.result))
        for waiting in self._waiting:
            self.count += waiting.result is not None
            self._file.write(self._entry(waiting))
        self._waiting.clear()

    def finish(self) -> Path | None:
        """Complete the file; None if there are no results."""
        if self._file is None:
            return None
        self._complete(self._file)
        self._stack.close()
        return self.path

    @abstractmethod
    def _head(self, first: Result) -> bytes:
        """Beginning of the file."""

    @abstractmethod
    def _entry(self, record: Localization) -> bytes:
        """Bytes of a record; `count` includes it."""

    def _complete(self, file: BinaryIO) -> None:  # noqa: B027 (most formats have no end)
        """Write the end of the file."""


class HeatMapStack(ResultFile):
    """Heat maps of several times as `.npy` [T, H, W]; the first one determines the size."""

    _shape: tuple[int, ...] = ()

    def _head(self, first: Result) -> bytes:
        self._shape = first.heatmap.shape
        return self._header()

    def _entry(self, record: Localization) -> bytes:
        return b"" if record.result is None else np.ascontiguousarray(record.result.heatmap, "<f4").tobytes()

    def _complete(self, file: BinaryIO) -> None:
        file.seek(0)
        file.write(self._header())

    def _header(self) -> bytes:
        """The `.npy` header, whose length does not depend on `count`: NumPy pads for a growing first axis."""
        buffer = io.BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.count, *self._shape)}
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue()


class JsonFile(ResultFile):
    """The lines of `--json` as one array."""

    def _head(self, first: Result) -> bytes:  # noqa: ARG002
        self._separator = b"\n"
        return b"["

    def _entry(self, record: Localization) -> bytes:
        separator, self._separator = self._separator, b",\n"
        return separator + to_json(record.as_json()).encode()

    def _complete(self, file: BinaryIO) -> None:
        file.write(b"\n]\n")


class CsvFile(ResultFile):
    """A table with one row a record, in UTF-8."""

    def _head(self, first: Result) -> bytes:  # noqa: ARG002
        names = Localization(input="").as_json()
        return _csv_line(column for name in names for column in _COLUMNS.get(name, (name,)))

    def _entry(self, record: Localization) -> bytes:
        cells: list[Any] = []
        for name, value in finite(record.as_json()).items():
            cells += (value or [None] * len(_COLUMNS[name])) if name in _COLUMNS else [value]
        return _csv_line(str(cell).lower() if isinstance(cell, bool) else cell for cell in cells)


def _csv_line(cells: Iterable[object]) -> bytes:
    """A line of CSV; lone surrogates, from paths that are not UTF-8, are escaped as in JSON."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode(errors="backslashreplace")


class CocoFile(ResultFile):
    """A COCO data set with an image for each time, and an annotation for each image with a peak.

    https://cocodataset.org/#format-data; masks are uncompressed run-length encodings. Memory grows by a few hundred
    bytes a time.
    """

    def _head(self, first: Result) -> bytes:  # noqa: ARG002
        self._images: list[str] = []
        self._separator = b"\n"
        info = {
            "description": "Sound sources localized by avloc localize",
            "version": __version__,
            "model": self.model.name,
            "model_sha256": self.model.sha256,
            "protocol": self.model.protocol,
        }
        begin = to_json({"info": info, "licenses": [], "categories": [_CATEGORY]})
        return f'{begin[:-1]},"annotations":['.encode()

    def _entry(self, record: Localization) -> bytes:
        result = record.result
        if result is None:
            return b""
        height, width = result.frame.shape[:2]
        name = record.input if record.is_picture else f"{record.input}#t={result.time_s:.3f}"
        image = {"id": self.count, "file_name": name, "width": width, "height": height, "time_s": result.time_s}
        self._images.append(to_json(image))
        if result.box_xyxy is None:
            return b""
        separator, self._separator = self._separator, b",\n"
        return separator + to_json(self._annotation(result, result.box_xyxy)).encode()

    def _annotation(self, result: Result, box_xyxy: Sequence[int]) -> dict[str, Any]:
        x0, y0, x1, y1 = box_xyxy
        mask = result.mask
        return {
            "id": self.count,
            "image_id": self.count,
            "category_id": _CATEGORY["id"],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": int(mask.sum()),
            "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
            "iscrowd": 0,
            **({} if result.match is None else {"score": result.match}),
        }

    def _complete(self, file: BinaryIO) -> None:
        file.write(('\n],"images":[\n' + ",\n".join(self._images) + "\n]}\n").encode())


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of equal pixels of a mask [H, W], down one column after the other, beginning with 0s."""
    pixels = mask.ravel(order="F")
    starts = np.flatnonzero(np.diff(pixels, prepend=False))
    return [int(run) for run in np.diff(starts, prepend=0, append=pixels.size)]


_KINDS: dict[str, type[ResultFile]] = {ARRAY: HeatMapStack, JSON: JsonFile, CSV: CsvFile, COCO: CocoFile}


class ResultFiles(ExitStack):
    """The result files of a run; each is finished with the last input that it holds."""

    def __init__(self, files: Iterable[OutputFile], model: Model) -> None:
        super().__init__()
        self._inputs = Counter(file.path for file in files)
        self._model = model
        self._open: dict[Path, ResultFile] = {}

    def add(self, files: Iterable[OutputFile], record: Localization) -> None:
        """Append a record to the files of an input that hold several times.

        Raises:
            InputError: the name of a file is too long.
        """
        for file in files:
            if file.per_time or file.suffix not in _KINDS:
                continue
            if file.path not in self._open:
                self._open[file.path] = self.enter_context(_KINDS[file.suffix](file.path, self._model))
            self._open[file.path].add(record)

    def finish(self, files: Iterable[OutputFile]) -> list[Path]:
        """Finish the files of an input, except those that later inputs share; returns the paths written."""
        self._inputs.subtract(file.path for file in files)
        complete = [
            self._open.pop(file.path) for file in files if file.path in self._open and not self._inputs[file.path]
        ]
        return [path for file in complete if (path := file.finish()) is not None]
