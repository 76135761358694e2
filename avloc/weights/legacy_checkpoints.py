"""Weights that others saved as whole PyTorch modules, or with Keras.

A pickled module names its own class and those of its parts, whose code is elsewhere, and old ones cannot be used by a
current PyTorch even with it. Here the tensors are taken out, under the names that a state dictionary would have, and
nothing is run.

Source of both layouts of PyTorch: its `torch/serialization.py`, from version 0.3 on.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor

from avloc.errors import WeightsError
from avloc.files import check_regular_file
from avloc.hdf5 import local_data_set
from avloc.weights.legacy_pickles import Made, Name, Outside, read_pickle
from avloc.weights.torch_files import check_entries

_LARGEST = 1 << 31
"""Bytes of a file that is read: half a milliard numbers."""
_MOST_PARTS, _LONGEST_NAME, _MOST_AXES = 10_000, 1_000, 8
_SHARED = 2
"""How often the numbers of a file may be taken on average; parts can share theirs."""

_ZIP = b"PK\x03\x04"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_KINDS = {"Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2", "Byte": "|u1"}

_REBUILT = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETERS = (
    "torch.nn.parameter.Parameter",
    "torch.autograd.variable.Variable",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
)


def load_modules(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a module that was saved whole, by PyTorch 0.3 or later.

    Returns:
        `part.part.name` -> a tensor with a memory of its own, on the CPU.

    Raises:
        WeightsError: it cannot be read, asks for code to be run, claims more than it holds, or holds no module.
    """
    try:
        data = _contents(path)
        content, numbers = _archive(data) if data.startswith(_ZIP) else _legacy(data)
        tensors, taken = {}, 0
        for name, value in _parts(content):
            view = _view(value, numbers)
            taken += view.nbytes
            if taken > _SHARED * len(data):
                raise ValueError(f"its parts take more than {_SHARED} times the {len(data)} bytes that there are")
            tensors[name] = torch.from_numpy(view.copy())
        if not tensors:
            raise ValueError("its modules have no parameters")
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path} cannot be read as a module of PyTorch: {reason}") from error
    return tensors


def load_keras(path: Path) -> dict[str, Tensor]:
    """The weights in an HDF5 file of Keras.

    Returns:
        `layer/layer/kernel:0` and the like -> a float32 tensor, as it lies there: kernels are (in, out).

    Raises:
        WeightsError: it cannot be read, claims more than it holds, or has anything but float32 numbers of its own.
    """
    try:
        _check_size(path)
        with h5py.File(path, "r", locking=False) as file:
            tensors, taken = {}, 0
            for name, values in _data_sets(file):
                taken += values.nbytes
                if values.dtype.str != "<f4" or taken > path.stat().st_size:
                    raise ValueError(f"{name} has shape {values.shape} and type {values.dtype}")
                tensors[name] = torch.from_numpy(values[...])
        if not tensors:
            raise ValueError("it has no weights")
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path} cannot be read as weights of Keras: {reason}") from error
    return tensors


def _contents(path: Path) -> bytes:
    _check_size(path)
    return path.read_bytes()


def _check_size(path: Path) -> None:
    check_regular_file(path)
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"it has {path.stat().st_size} bytes; at most {_LARGEST} are read")


def _legacy(data: bytes) -> tuple[Any, dict[str, NDArray[Any]]]:
    """What a file from before PyTorch 1.6 holds, and its numbers: five pickles, then each storage behind its length."""
    file = io.BytesIO(data)
    magic, protocol, system = (read_pickle(file).content for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise ValueError("it is no file of PyTorch")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    pickle, keys = read_pickle(file), read_pickle(file).content
    kinds = _kinds(pickle.outside)
    numbers, start = {}, file.tell()
    for key in keys:
        count = int.from_bytes(data[start : start + 8], "little", signed=True)
        if not isinstance(key, str) or key not in kinds:
            raise ValueError("it has numbers that nothing refers to")
        if start + 8 > len(data) or count < 0:
            raise ValueError(f"there are no numbers {key!r}")
        numbers[key] = np.frombuffer(data, kinds[key], count, start + 8)
        start += 8 + numbers[key].nbytes
    return pickle.content, numbers


def _archive(data: bytes) -> tuple[Any, dict[str, NDArray[Any]]]:
    """The same of the form since: an uncompressed archive, with an entry for the pickle and one for each storage."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        check_entries(archive, len(data))
        homes = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(homes) != 1:
            raise ValueError("it is no file of PyTorch")
        order = f"{homes[0]}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("its numbers are not little-endian")
        pickle = read_pickle(io.BytesIO(archive.read(f"{homes[0]}data.pkl")))
        kinds = _kinds(pickle.outside)
        numbers = {key: np.frombuffer(archive.read(f"{homes[0]}data/{key}"), kind) for key, kind in kinds.items()}
    return pickle.content, numbers


def _kinds(outside: Iterable[Outside]) -> dict[str, str]:
    """Storage -> what kind of numbers it has."""
    kinds = {}
    for found in outside:
        match found.id:
            case ("storage", Name(name=name), str() as key, *_) if name.removesuffix("Storage") in _KINDS:
                kinds[key] = _KINDS[name.removesuffix("Storage")]
            case (_, Name() as kind, str(), *_):
                raise ValueError(f"numbers of the kind {kind} are not read")
            case _:
                raise ValueError("it refers to numbers without a kind or a name")
    return kinds


def _parts(content: Any) -> Iterator[tuple[str, Any]]:
    """Every parameter and buffer of a module and of its parts; one of which may be a part of several."""
    waiting, count = [("", content)], 0
    while waiting:
        prefix, module = waiting.pop()
        state = module.state if isinstance(module, Made) else None
        if not isinstance(state, dict) or "_parameters" not in state:
            raise ValueError(f"{prefix or 'what it holds'} is no module, but a {type(module).__name__}")
        parameters, buffers, modules = (_named(state, name) for name in ("_parameters", "_buffers", "_modules"))
        count += len(parameters) + len(buffers) + len(modules)
        if count > _MOST_PARTS or len(prefix) > _LONGEST_NAME:
            raise ValueError(f"it has more than {_MOST_PARTS} parts, or is nested absurdly deep")
        yield from ((prefix + name, value) for name, value in (parameters | buffers).items())
        waiting += [(f"{prefix}{name}.", part) for name, part in modules.items()]


def _named(state: dict[Any, Any], group: str) -> dict[str, Any]:
    """Parts of one kind; a part that is None is a place for one."""
    parts = state.get(group, {})
    if not isinstance(parts, dict) or not all(isinstance(name, str) and len(name) <= _LONGEST_NAME for name in parts):
        raise ValueError(f"its {group} are no parts with names")
    return {name: part for name, part in parts.items() if part is not None}


def _view(value: Any, numbers: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The numbers of one tensor, where they lie in the file."""
    if isinstance(value, Made) and str(value.maker) in _PARAMETERS and value.arguments:
        value = value.arguments[0]
    match value:
        case Made(
            maker=maker,
            arguments=(Outside() as found, int() as offset, tuple() as size, tuple() as stride, *_),
        ) if str(maker) in _REBUILT:
            return _strided(_stored(found, numbers), offset, size, stride)
    raise ValueError(f"a parameter is no tensor, but a {type(value).__name__}")


def _stored(found: Outside, numbers: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The storage of a tensor; old files have some that are a part of another."""
    key, part = found.id[2], found.id[5] if len(found.id) > 5 else None
    if key not in numbers:
        raise ValueError(f"there are no numbers {key!r}")
    match part:
        case None:
            return numbers[key]
        case (_, int() as start, int() as count) if 0 <= start <= start + count <= len(numbers[key]):
            return numbers[key][start : start + count]
    raise ValueError(f"a part of the numbers {key!r} reaches beyond them")


def _strided(numbers: NDArray[Any], offset: int, size: tuple[Any, ...], stride: tuple[Any, ...]) -> NDArray[Any]:
    within = all(isinstance(value, int) and 0 <= value <= len(numbers) for value in (offset, *size, *stride))
    if not within or len(size) != len(stride) or len(size) > _MOST_AXES or math.prod(size) > len(numbers):
        raise ValueError(f"a tensor claims more than the {len(numbers)} numbers of its storage")
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= len(numbers):
        raise ValueError(f"a tensor reaches beyond the {len(numbers)} numbers of its storage")
    return as_strided(numbers[offset:], size, [step * numbers.itemsize for step in stride], writeable=False)


def _data_sets(file: Any) -> Iterator[tuple[str, Any]]:
    """Every data set of an HDF5 file, by its path; a link to anything else than what lies in it is an error."""
    waiting, count = [("", file)], 0
    while waiting:
        prefix, group = waiting.pop()
        count += len(group)
        if count > _MOST_PARTS or len(prefix) > _LONGEST_NAME:
            raise ValueError(f"it has more than {_MOST_PARTS} parts, or is nested absurdly deep")
        for name in group:
            if isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(group[name], h5py.Group):
                waiting.append((f"{prefix}{name}/", group[name]))
            else:
                yield f"{prefix}{name}", local_data_set(group, name)
