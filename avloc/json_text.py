"""Plain data as JSON without NaN, infinity or raw Unicode."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """The same data with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """`value` as ASCII JSON in its own order, NaN as null.

    Escapes keep lone surrogates of file names from failing, and U+2028 from ending a line.
    """
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(finite(value), indent=indent, separators=separators, allow_nan=False)
