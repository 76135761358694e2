"""Comparison of avloc's numbers with those of the published code."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 2e-3


def close(ours, theirs, tolerance: float) -> None:
    """Assert that the largest deviation, relative to the largest magnitude of the array, is within `tolerance`."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def check_gradients(
    model, reference, tolerance: float = GRADIENT_TOLERANCE, names: Mapping[str, str] | None = None
) -> None:
    """Compare gradient norms of some parameters; `names` maps published names to avloc's where they differ."""
    named = {name.removeprefix("grad_norm/"): reference[name] for name in reference if name.startswith("grad_norm/")}
    expected = {name: norm for name, norm in named.items() if "." in name}
    assert expected
    parameters = dict(model.named_parameters())
    for name, norm in expected.items():
        close(parameters[(names or {}).get(name, name)].grad.norm().item(), norm.item(), tolerance)


def tensors(arrays) -> dict[str, torch.Tensor]:
    """Convert a mapping of arrays to tensors."""
    return {name: torch.from_numpy(value) for name, value in arrays.items()}
