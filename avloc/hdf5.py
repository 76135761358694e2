"""Safe access to data sets in untrusted HDF5 files."""

from __future__ import annotations

from typing import Any


def local_data_set(file: Any, name: str) -> Any:
    """Open a data set whose values are stored in this HDF5 file: no external link, virtual or external storage.

    Raises:
        ValueError: no such data set.
    """
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is missing or stored in another file")
    values = file[name]
    if not isinstance(values, h5py.Dataset) or values.is_virtual or values.external:
        raise ValueError(f"{name} is not a data set or is stored in another file")
    return values
