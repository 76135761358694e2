"""Strict JSON: no NaN, ASCII only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """Replace NaN and infinities in plain data by None."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text with the order of keys kept and NaN as null.

    ASCII only: lone surrogates of file names become escapes, and U+2028 cannot end a line.
    """
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(finite(value), indent=indent, separators=separators, allow_nan=False)
