"""Reads AVE's annotations: the event of a clip of ten seconds, and the seconds in which it is audible and visible.

`Annotations.txt` has one line for each row of the published feature files, in their order. A video may have several
rows.

Source: Tian, Shi, Li, Duan and Xu, "Audio-Visual Event Localization in Unconstrained Videos", ECCV 2018, and the data
of its repository.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.errors import InputError, UsageError
from avloc.files import check_regular_file, read_input
from avloc.hdf5 import local_data_set

SECONDS = 10
"""Length of every clip."""
AVE_CLASSES = (
    "Church bell",
    "Male speech, man speaking",
    "Bark",
    "Fixed-wing aircraft, airplane",
    "Race car, auto racing",
    "Female speech, woman speaking",
    "Helicopter",
    "Violin, fiddle",
    "Flute",
    "Ukulele",
    "Frying (food)",
    "Truck",
    "Shofar",
    "Motorcycle",
    "Acoustic guitar",
    "Train horn",
    "Clock",
    "Banjo",
    "Goat",
    "Baby cry, infant cry",
    "Bus",
    "Chainsaw",
    "Cat",
    "Horse",
    "Toilet flush",
    "Rodents, rats, mice",
    "Accordion",
    "Mandolin",
)
"""The 28 events of AVE in the order of the published class numbers."""
LABELS_KEY = "avadataset"
"""Name of the data set in each published file of features or labels."""
ORDER_KEY = "order"

_FIELDS = ("Category", "VideoID", "Quality", "Start", "End")
_TIMES = {str(second): second for second in range(SECONDS + 1)}


@dataclass(frozen=True, kw_only=True)
class AveRow:
    """One line: an event from second `start` up to, not including, second `end`; no event if they are equal."""

    video: str
    category: str
    quality: str
    start: int
    end: int


def read_rows(path: Path) -> tuple[AveRow, ...]:
    """The rows of `Annotations.txt`, with or without its header line.

    Raises:
        UsageError: it cannot be read, has no rows, or an invalid line; names the line and the reason.
    """
    try:
        text = read_input(path).decode("utf-8-sig")
    except InputError as error:
        raise UsageError(f"{path} {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from None
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        fields = [field.strip() for field in line.split("&")]
        if fields == [""] or (number == 1 and fields[:2] == list(_FIELDS[:2])):
            continue
        try:
            rows.append(_row(fields))
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: {error}") from None
    if not rows:
        raise UsageError(f"{path} has no rows; valid: lines of {'&'.join(_FIELDS)}")
    return tuple(rows)


def _row(fields: list[str]) -> AveRow:
    if len(fields) != len(_FIELDS):
        raise ValueError(f"{len(fields)} fields; valid: the {len(_FIELDS)} of {'&'.join(_FIELDS)}")
    category, video, quality, *times = fields
    if not category:
        raise ValueError("no category")
    if not video or PurePath(video).name != video:
        raise ValueError(f"VideoID {video!r} is not a file name")
    for name, text in zip(_FIELDS[3:], times, strict=True):
        if text not in _TIMES:
            raise ValueError(f"{name} = {text!r}; valid: a whole second, 0 to {SECONDS}")
    start, end = (_TIMES[text] for text in times)
    if start > end:
        raise ValueError(f"Start = {start} is after End = {end}")
    return AveRow(video=video, category=category, quality=quality, start=start, end=end)


def categories(rows: Sequence[AveRow]) -> tuple[str, ...]:
    """The events in order of first appearance, which is the order of the published class numbers."""
    return tuple(dict.fromkeys(row.category for row in rows))


def presence(rows: Sequence[AveRow]) -> NDArray[np.float32]:
    """Presence of the event in each second [N, 10], 1 or 0, as in the published `labels_closs.h5`."""
    seconds = np.arange(SECONDS)
    starts, ends = (np.array([getattr(row, name) for row in rows]).reshape(-1, 1) for name in ("start", "end"))
    return ((starts <= seconds) & (seconds < ends)).astype(np.float32)


@contextmanager
def open_data_set(path: Path, name: str, content: str) -> Iterator[Any]:
    """Open a data set of one of AVE's HDF5 files.

    Raises:
        UsageError: it cannot be opened, or not be read while it is open; the message names the expected `content`.
    """
    import h5py

    try:
        check_regular_file(path)
        with h5py.File(path, "r", locking=False) as file:
            yield local_data_set(file, name)
    except (InputError, OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as {content}: {error}") from error


def read_order(path: Path, rows: int) -> list[int]:
    """The rows of a split, in the order of its file (`{train,val,test}_order.h5`, `*_order_match.h5`).

    Raises:
        UsageError: it cannot be read, or does not list distinct numbers below `rows`.
    """
    with open_data_set(path, ORDER_KEY, "an order of rows") as values:
        if values.ndim != 1 or values.dtype.kind not in "iu":
            shape = f"shape {values.shape} and type {values.dtype}"
            raise ValueError(f"{ORDER_KEY} has {shape}, not a vector of whole numbers")
        if len(values) > rows:
            raise ValueError(f"{ORDER_KEY} has {len(values)} entries for {rows} rows")
        order: list[int] = values[:].tolist()
    outside = next((row for row in order if not 0 <= row < rows), None)
    if outside is not None:
        raise UsageError(f"{path} names row {outside}; valid: 0 to {rows - 1}")
    if len(set(order)) < len(order):
        raise UsageError(f"{path} names a row twice")
    return order
