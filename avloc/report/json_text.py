"""Plain data as JSON that every parser reads."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """The same data with None for every number that is not finite: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON in the order it has, NaN as null.

    ASCII only: a file name that is no Unicode comes out as an escape instead of failing, and U+2028 ends no line.
    """
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(finite(value), indent=indent, separators=separators, allow_nan=False)
