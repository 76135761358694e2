"""Reading weights that Keras saved as HDF5."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from avloc.hdf5 import local_data_set
from avloc.weights.torch_files import check_size, reading

_MAX_ENTRIES, _MAX_NAME = 10_000, 1_000


def load_keras(path: Path) -> dict[str, Tensor]:
    """The weights in an HDF5 file of Keras.

    Returns:
        `layer/layer/kernel:0` and the like -> a float32 tensor, unchanged: kernels are (in, out).

    Raises:
        WeightsError: the file is unreadable, declares more data than it has, or has data that is not float32 or is
            stored elsewhere.
    """
    tensors, total = {}, 0
    with reading(path, "weights of Keras"):
        check_size(path)
        with h5py.File(path, "r", locking=False) as file:
            for name, values in _data_sets(file):
                total += values.nbytes
                if values.dtype.str != "<f4" or total > path.stat().st_size:
                    raise ValueError(f"{name} has shape {values.shape} and type {values.dtype}")
                tensors[name] = torch.from_numpy(values[...])
        if not tensors:
            raise ValueError("it has no weights")
    return tensors


def _data_sets(file: Any) -> Iterator[tuple[str, Any]]:
    """Every data set of an HDF5 file with its path; links to other files or objects are refused."""
    groups, count = [("", file)], 0
    while groups:
        prefix, group = groups.pop()
        count += len(group)
        if count > _MAX_ENTRIES or len(prefix) > _MAX_NAME:
            raise ValueError(f"it has more than {_MAX_ENTRIES} entries, or is nested too deeply")
        for name in group:
            if isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(group[name], h5py.Group):
                groups.append((f"{prefix}{name}/", group[name]))
            else:
                yield f"{prefix}{name}", local_data_set(group, name)
