"""A stand-in for `tomli_w`, which `avloc train` writes `config.toml` with, where it is not installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def write_toml_without_tomli_w() -> None:
    """Register a writer of tables, texts, numbers and lists as `tomli_w` if it cannot be imported."""
    try:
        import tomli_w  # noqa: F401
    except ImportError:
        module = ModuleType("tomli_w")
        module.dumps = dumps
        sys.modules["tomli_w"] = module


def dumps(table: Mapping[str, Any], name: str = "") -> str:
    """TOML text; tables come after the values beside them."""
    lines = [f"[{name}]"] if name else []
    lines += [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items() if not _is_table(value)]
    tables = [dumps(value, f"{name}.{_key(key)}".lstrip(".")) for key, value in table.items() if _is_table(value)]
    return "\n".join([*lines, *tables]) + "\n"


def _key(key: str) -> str:
    return json.dumps(key)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)
