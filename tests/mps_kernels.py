"""Operators that have no kernel for mps, by PyTorch's table of kernels: what runs on the fake GPU can run there."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

_GENERIC = ("MPS", "CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = (files("torchgen") / "packaged/ATen/native/native_functions.yaml").read_text(encoding="utf-8")
    return {entry["func"].partition("(")[0]: entry for entry in yaml.load(text, yaml.CSafeLoader)}


def without_mps(operators: set[str]) -> set[str]:
    """Those of the operators, such as `aten::add.Tensor`, that mps lacks."""
    return {name for name in operators if not _has(name.removeprefix("aten::"))}


def _has(name: str) -> bool:
    entry = _table()[name]
    if "structured_delegate" in entry:
        return _has(entry["structured_delegate"])
    kernels = {kind for kinds in entry.get("dispatch", {_GENERIC[1]: ""}) for kind in kinds.split(", ")}
    return bool(kernels.intersection(_GENERIC))
