"""Parse `.npy` files from untrusted sources."""

from __future__ import annotations

import io
import math
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

# NumPy evaluates the header as a Python literal, and makes a dtype of what it finds. Its text is bounded, so a lack of
# memory or of stack is the parser's word for too deep nesting.
_DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(SyntaxError, TokenError, RecursionError, MemoryError),
)
"""What damaged headers raise."""


def parse_npy(data: bytes) -> NDArray[Any]:
    """Parse a `.npy` file to an array, which is a read-only view of `data`: no memory is used for it.

    Raises:
        ValueError: it is not one, is cut off, or contains pickled objects.
    """
    file = io.BytesIO(data)
    shape, fortran_order, dtype = _read_header(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be read: they are pickled")
    if any(type(side) is not int or side < 0 for side in shape):  # NumPy takes True for a number
        raise ValueError(f"shape {shape} is not valid")
    count = math.prod(shape)
    if max((count, *shape)) > len(data) or count * dtype.itemsize > len(data) - file.tell():
        raise ValueError(f"it is too short for shape {shape}")
    values = np.frombuffer(data, dtype, count, file.tell())
    return values.reshape(shape, order="F" if fortran_order else "C")


def _read_header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, whether in Fortran order, and dtype. What damage raises becomes a ValueError."""
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"unknown version {version}")
        # Version 3 differs from 2 only in the encoding of the names of fields, which no map or hint has.
        return npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
    except _DAMAGE as error:
        raise ValueError(f"damaged header: {str(error).partition(chr(10))[0]}") from error
