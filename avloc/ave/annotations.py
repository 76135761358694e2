"""AVE's annotations: the event of a clip of ten seconds, and the seconds in which it is both audible and visible.

`Annotations.txt` has one line for each row of the published feature files, in their order. The published label files,
of which only some come with the authors' code, are derived from it. A video may have several rows.

Source: Tian, Shi, Li, Duan and Xu, "Audio-Visual Event Localization in Unconstrained Videos", ECCV 2018, and the data
of its repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.errors import InputError, UsageError
from avloc.files import atomic_path, check_regular_file, read_input
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
    """One line: an event from second `start` up to, not including, second `end`; the same second means no event."""

    video: str
    category: str
    quality: str
    start: int
    end: int


def read_rows(path: Path) -> tuple[AveRow, ...]:
    """The rows of `Annotations.txt`, with or without its line of headings.

    Raises:
        UsageError: it cannot be read, has no row, or an invalid line; names the line and the reason.
    """
    try:
        text = read_input(path).decode("utf-8-sig")
    except InputError as error:
        raise UsageError(f"{path} {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text: {error}") from None
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
        raise UsageError(f"{path} has no row; valid: lines of {'&'.join(_FIELDS)}")
    return tuple(rows)


def _row(fields: list[str]) -> AveRow:
    if len(fields) != len(_FIELDS):
        raise ValueError(f"{len(fields)} fields; valid: the {len(_FIELDS)} of {'&'.join(_FIELDS)}")
    category, video, quality, *times = fields
    if not category:
        raise ValueError("no category")
    if not video or PurePath(video).name != video:
        raise ValueError(f"VideoID {video!r} is no name")
    for name, text in zip(_FIELDS[3:], times, strict=True):
        if text not in _TIMES:
            raise ValueError(f"{name} = {text!r}; valid: a whole second, 0 to {SECONDS}")
    start, end = (_TIMES[text] for text in times)
    if start > end:
        raise ValueError(f"Start = {start} is after End = {end}")
    return AveRow(video=video, category=category, quality=quality, start=start, end=end)


def class_names(rows: Sequence[AveRow]) -> tuple[str, ...]:
    """The events in order of first appearance, which is that of the published class numbers; without background."""
    return tuple(dict.fromkeys(row.category for row in rows))


def second_labels(rows: Sequence[AveRow], classes: Sequence[str]) -> NDArray[np.int64]:
    """Class of every second.

    Args:
        rows: N rows.
        classes: as `class_names` returns them.

    Returns:
        [N, 10] int64: index of the event, `len(classes)` for background.

    Raises:
        UsageError: unknown category.
    """
    return np.where(presence(rows) > 0, _numbers(rows, classes)[:, None], len(classes))


def presence(rows: Sequence[AveRow]) -> NDArray[np.float32]:
    """Presence of the event [N, 10], 1 or 0: the published `labels_closs.h5`."""
    seconds = np.arange(SECONDS)
    starts, ends = (np.array([getattr(row, name) for row in rows]).reshape(-1, 1) for name in ("start", "end"))
    return ((starts <= seconds) & (seconds < ends)).astype(np.float32)


def video_labels(rows: Sequence[AveRow], classes: Sequence[str]) -> NDArray[np.float32]:
    """One-hot category of each row [N, classes + 1], even without a second of it: the published `mil_labels.h5`.

    Raises:
        UsageError: unknown category.
    """
    return one_hot(_numbers(rows, classes), len(classes))


def one_hot(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """One-hot labels [..., classes + 1], background last; `classes` is the number of events."""
    return np.eye(classes + 1, dtype=np.float32)[labels]


def _numbers(rows: Sequence[AveRow], classes: Sequence[str]) -> NDArray[np.int64]:
    number = {name: place for place, name in enumerate(classes)}
    unknown = next((row.category for row in rows if row.category not in number), None)
    if unknown is not None:
        raise UsageError(f"category {unknown!r} is no class; valid: {', '.join(classes)}")
    return np.array([number[row.category] for row in rows], np.int64)


def write_labels(path: Path, rows: Sequence[AveRow]) -> None:
    """Write `labels.h5` of the authors' training script: one-hot class per second [N, 10, classes + 1]."""
    import h5py

    classes = class_names(rows)
    with atomic_path(path) as part, h5py.File(part, "w", locking=False) as file:
        file[LABELS_KEY] = one_hot(second_labels(rows, classes), len(classes))


def read_order(path: Path, rows: int) -> list[int]:
    """The rows of a split, in the order of its file (`{train,val,test}_order.h5`, `*_order_match.h5`).

    Args:
        path: the file.
        rows: number of rows of the annotations.

    Raises:
        UsageError: it cannot be read, or does not list distinct rows.
    """
    import h5py

    try:
        check_regular_file(path)
        with h5py.File(path, "r", locking=False) as file:
            order = _vector(file, rows).tolist()
    except (InputError, OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as an order of rows: {error}") from error
    outside = next((row for row in order if not 0 <= row < rows), None)
    if outside is not None:
        raise UsageError(f"{path} names row {outside}; valid: 0 to {rows - 1}")
    if len(set(order)) < len(order):
        raise UsageError(f"{path} names a row twice")
    return [int(row) for row in order]


def _vector(file: Any, rows: int) -> NDArray[np.integer]:
    """The order in an open file; refuses external data and more entries than rows."""
    values = local_data_set(file, ORDER_KEY)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(f"{ORDER_KEY} has shape {values.shape} and type {values.dtype}, not a vector of whole numbers")
    if len(values) > rows:
        raise ValueError(f"{ORDER_KEY} has {len(values)} entries for {rows} rows")
    numbers: NDArray[np.integer] = values[:]
    return numbers
