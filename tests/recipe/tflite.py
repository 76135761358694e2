"""Reading the weights out of a TensorFlow Lite file, as numbers only: nothing in it is run, and no runtime is needed.

The file is a flatbuffer: tables that name their fields by number and point at them by offset. Only the few fields that
lead from the operators to their constant tensors are followed. Field numbers and codes: TensorFlow Lite's `schema.fbs`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.errors import WeightsError

CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED = 3, 4, 9

_LONG_CODE = 127  # codes from here on are in a wider field
_FLOAT = np.dtype("<f4")
_TYPES: dict[int, np.dtype[Any]] = {0: _FLOAT, 2: np.dtype("<i4"), 9: np.dtype("i1")}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An operator with weights."""

    kind: int
    """`CONV_2D`, `DEPTHWISE_CONV_2D` or `FULLY_CONNECTED`."""
    weight: NDArray[np.float32]
    """In the file's order of axes: (out, height, width, in), (1, height, width, channels) or (out, in)."""
    bias: NDArray[np.float32]


def read_layers(path: Path) -> list[Layer]:
    """Convolutions and fully connected layers in the order in which they run, their weights as float32.

    Integer weights come back multiplied with their scale, one for the tensor or one for each channel.

    Raises:
        WeightsError: the file is damaged, is none of TensorFlow Lite, or keeps weights in a way that is not read here.
    """
    try:
        data = path.read_bytes()
        if data[4:8] != b"TFL3":
            raise WeightsError(f"{path} is not a TensorFlow Lite file")
        return list(_layers(data))
    except (OSError, struct.error, ValueError, IndexError, KeyError) as error:
        raise WeightsError(f"{path} cannot be read as a TensorFlow Lite file: {error}") from error


@dataclass(frozen=True)
class _Table:
    data: bytes
    at: int

    def field(self, number: int) -> int:
        """Where a field lies; 0 if the table lacks it."""
        listing = self.at - _number("<i", self.data, self.at)
        entry = 4 + 2 * number
        if entry >= _number("<H", self.data, listing):
            return 0
        offset = _number("<H", self.data, listing + entry)
        return self.at + offset if offset else 0

    def scalar(self, number: int, form: str) -> int:
        place = self.field(number)
        return _number(form, self.data, place) if place else 0

    def table(self, number: int) -> _Table | None:
        place = self.field(number)
        return _Table(self.data, _followed(self.data, place)) if place else None

    def tables(self, number: int) -> list[_Table]:
        first, count = self._extent(number)
        return [_Table(self.data, _followed(self.data, first + 4 * index)) for index in range(count)]

    def numbers(self, number: int, kind: str) -> NDArray[Any]:
        first, count = self._extent(number)
        return np.frombuffer(self.data, kind, count, first) if count else np.empty(0, kind)

    def _extent(self, number: int) -> tuple[int, int]:
        place = self.field(number)
        if not place:
            return 0, 0
        vector = _followed(self.data, place)
        return vector + 4, _number("<I", self.data, vector)


def _number(form: str, data: bytes, at: int) -> int:
    if at < 0:
        raise ValueError(f"an offset points to {at}, before its beginning")
    return int(struct.unpack_from(form, data, at)[0])


def _followed(data: bytes, place: int) -> int:
    return place + _number("<I", data, place)


def _layers(data: bytes) -> Iterator[Layer]:
    model = _Table(data, _followed(data, 0))
    codes = [_code(entry) for entry in model.tables(1)]
    graph, buffers = model.tables(2)[0], model.tables(4)
    tensors = graph.tables(0)
    for operator in graph.tables(3):
        kind = codes[operator.scalar(0, "<I")]
        if kind in (CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED):
            _, weight, bias = (tensors[index] for index in operator.numbers(1, "<i4").tolist())
            yield Layer(kind=kind, weight=_values(weight, buffers), bias=_values(bias, buffers))


def _code(entry: _Table) -> int:
    short = entry.scalar(0, "<b")
    return entry.scalar(3, "<i") if short >= _LONG_CODE else short


def _values(tensor: _Table, buffers: list[_Table]) -> NDArray[np.float32]:
    kind = _TYPES[tensor.scalar(1, "<b")]
    shape = tensor.numbers(0, "<i4").tolist()
    stored: NDArray[Any] = buffers[tensor.scalar(2, "<I")].numbers(0, "u1").view(kind).reshape(shape)
    values = stored.astype(np.float32)
    quantised = tensor.table(4)
    scales = quantised.numbers(2, "<f4") if quantised else np.empty(0, np.float32)
    if quantised is None or not len(scales):
        if kind != _FLOAT:
            raise ValueError("integer weights without their scale")
        return values
    if quantised.numbers(3, "<i8").any():
        raise ValueError("integer weights whose zero is not 0")
    along = [1] * len(shape)
    along[quantised.scalar(6, "<i")] = len(scales)
    return values * scales.astype(np.float32).reshape(along)
