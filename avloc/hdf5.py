"""What is taken from HDF5 files of others."""

from __future__ import annotations

from typing import Any


def own_data_set(file: Any, name: str) -> Any:
    """A data set of an HDF5 file whose values lie in this file and nowhere else.

    Raises:
        ValueError: there is none.
    """
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is not there, or does not lie in it")
    values = file[name]
    if not isinstance(values, h5py.Dataset) or values.is_virtual or values.external:
        raise ValueError(f"{name} is no data set, or does not lie in it")
    return values
