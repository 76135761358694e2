"""Reading PyTorch modules that were pickled whole, without their code and without running any.

Such a pickle names the class of the module and of its submodules. Their code is elsewhere, and old modules do not work
with a current PyTorch even with it. Only the tensors are extracted, under the names of a state dict.

Why unpickling is safe here. `_scan` checks every pickle before it is loaded: its number of operations, its memo indices
(the memo is an array), and that all operations are such as PyTorch writes, of protocol 2 without INST, OBJ and EXT*
(`copyreg`). `_Unpickler.find_class` imports nothing: it returns stub classes, so REDUCE and NEWOBJ can call only the
constructors of `PickledObject` and `PickledDict`, which store their arguments, and BUILD only their `__setstate__`; the
other values have no attributes to set. Dictionaries check keys before they hash them, as the hash of nested tuples can
take exponential time. Memory is bounded by the size of the file and the number of operations: what an operation adds
does not grow with the objects it refers to.

Source of both file layouts: `torch/serialization.py`, from PyTorch 0.3 on.
"""

from __future__ import annotations

import io
import itertools
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor

from avloc.weights.torch_files import check_entries, check_size, reading

_MAX_MEMBERS, _MAX_NAME, _MAX_AXES = 10_000, 1_000, 8
_MAX_SHARING = 2  # total size of the tensors over the size of the file; modules may share tensors

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_TYPES = {"Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2", "Byte": "|u1"}

_TENSOR = re.compile(r"torch\._utils\._rebuild_tensor(_v2)?")
_PARAMETER = re.compile(
    r"torch\.(nn\.parameter\.Parameter|autograd\.variable\.Variable|_utils\._rebuild_parameter(_with_state)?)"
)
_MAX_OPERATIONS, _MAX_CLASSES, _MAX_ARGUMENTS = 300_000, 1_000, 100  # about 20 operations for each parameter
_REFUSED = ("INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "DUP", "STRING", "UNICODE", "FLOAT", "LIST", "DICT")
"""Operations of protocol 2 that PyTorch does not write."""
_CALLABLE = re.compile(r"(torch|collections|numpy|_codecs)\..+|(builtins|__builtin__)\.(set|getattr)")
"""What pickled modules call. Nothing is run, but a file that calls anything else is refused as malicious."""
_NEW_DICT = b"ccollections\nOrderedDict\n)R"
"""Replaces EMPTY_DICT, which creates dictionaries that do not check their keys."""


class PickledObject:
    """Base of the stubs: an object or a call in the pickle, with its arguments and the state that BUILD gives it."""

    __slots__ = ("arguments", "state")
    source: ClassVar[str] = ""
    """Dotted name of the class or function."""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> PickledObject:
        """Called by NEWOBJ, and by REDUCE before `__init__`."""
        if len(arguments) > _MAX_ARGUMENTS:  # each object has a copy of them
            raise ValueError(f"its pickle passes more than {_MAX_ARGUMENTS} arguments")
        instance = super().__new__(cls)
        instance.arguments, instance.state = arguments, None
        return instance

    def __init__(self, *_arguments: Any) -> None:
        """Called by REDUCE alone. Raises ValueError unless the class or function may be called."""
        if not _CALLABLE.fullmatch(self.source):
            raise ValueError(f"its pickle calls {self.source}")

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def extend(self, items: list[Any]) -> None:
        """Ignore items of a subclass of list."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Ignore items of a subclass of dict."""


class PickledDict(dict[Any, Any]):
    """A dict, OrderedDict or defaultdict in the pickle; keys are checked before they are hashed."""

    __slots__ = ()

    def __init__(self, *arguments: Any) -> None:
        """Take the list of pairs that Python 2 passes, and ignore the factory of a defaultdict."""
        super().__init__()
        if arguments and isinstance(arguments[0], list):
            for key, value in arguments[0]:
                self[key] = value
            arguments[0].clear()  # many dictionaries built from one list could exhaust memory

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, (str, int, float, bytes, type(None))):
            raise ValueError(f"its pickle has a {type(key).__name__} as a key")
        super().__setitem__(key, value)

    def __setstate__(self, state: Any) -> None:
        """Ignore attributes: an OrderedDict can have some."""


class Storage(NamedTuple):
    """Data outside the pickle: the storage of this key, or a view of it, (name, first, count)."""

    key: str
    view: Any


class _Unpickler(pickle.Unpickler):
    """Loads a checked pickle into containers, numbers, strings, stubs and storages."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin-1")
        self.types: dict[str, str] = {}
        self._classes: dict[str, type] = {f"collections.{kind}": PickledDict for kind in ("OrderedDict", "defaultdict")}

    def find_class(self, module: str, name: str) -> type:
        """A stub, or `PickledDict`."""
        source = f"{module}.{name}"
        if source not in self._classes:
            if len(self._classes) >= _MAX_CLASSES:
                raise ValueError(f"its pickle names more than {_MAX_CLASSES} classes")
            self._classes[source] = type("PickledObject", (PickledObject,), {"__slots__": (), "source": source})
        return self._classes[source]

    def persistent_load(self, pid: Any) -> type | Storage:
        """A storage, or the class of a module, which is written with its source code."""
        match pid:
            case ("module", type() as named, *_):
                return named
            case ("storage", type() as named, str() as key, *_):
                source = getattr(named, "source", "dict")
                kind = source.rpartition(".")[2].removesuffix("Storage")
                if kind not in _TYPES:
                    raise ValueError(f"storages of type {source} are not supported")
                self.types[key] = _TYPES[kind]
                return Storage(key, pid[5] if len(pid) > 5 else None)
            case _:
                raise ValueError(f"its pickle refers to a {type(pid).__name__}, which is neither a class nor a storage")


def _scan(file: io.BytesIO) -> bytes:
    """Check the operations of the next pickle of a file and return it, EMPTY_DICT replaced by `_NEW_DICT`."""
    start, dicts = file.tell(), []
    for count, (operation, argument, place) in enumerate(pickletools.genops(file)):
        if count > _MAX_OPERATIONS:
            raise ValueError(f"its pickle has more than {_MAX_OPERATIONS} operations")
        if operation.proto > 2 or operation.name in _REFUSED:
            raise ValueError(f"its pickle has the operation {operation.name}, which PyTorch does not write")
        if operation.name.endswith("PUT") and int(argument or 0) > _MAX_OPERATIONS:
            raise ValueError(f"its pickle has the memo index {argument}")
        if operation.name == "EMPTY_DICT":
            dicts.append((place or 0) - start)
    length = file.tell() - start
    file.seek(start)
    data = file.read(length)
    return _NEW_DICT.join(data[before + 1 : at] for before, at in itertools.pairwise((-1, *dicts, length)))


def _load_next(file: io.BytesIO) -> tuple[Any, dict[str, str]]:
    """Content of the next pickle of a file, and key of each storage in it -> NumPy type."""
    unpickler = _Unpickler(_scan(file))
    return unpickler.load(), unpickler.types


def load_modules(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a module that was saved whole, by PyTorch 0.3 or later.

    Returns:
        `module.module.name` -> a tensor with its own memory, on the CPU.

    Raises:
        WeightsError: the file is unreadable, would run code, declares more data than it has, or holds no module.
    """
    tensors, total = {}, 0
    with reading(path, "a module of PyTorch"):
        check_size(path)
        data = path.read_bytes()
        content, storages = _read_archive(data) if data.startswith(b"PK\x03\x04") else _read_legacy(data)
        for name, value in _named_tensors(content):
            view = _view(value, storages)
            total += view.nbytes
            if total > _MAX_SHARING * len(data):
                raise ValueError(f"its tensors take more than {_MAX_SHARING} times the {len(data)} bytes of the file")
            tensors[name] = torch.from_numpy(view.copy())
        if not tensors:
            raise ValueError("its modules have no parameters")
    return tensors


def _read_legacy(data: bytes) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Content and storages of a file before PyTorch 1.6: five pickles, then each storage preceded by its length."""
    file = io.BytesIO(data)
    magic, protocol, system = (_load_next(file)[0] for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise ValueError("it is not a PyTorch file")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its data are not little-endian")
    content, types = _load_next(file)
    keys, _ = _load_next(file)
    storages, start = {}, file.tell()
    for key in keys:
        count = int.from_bytes(data[start : start + 8], "little", signed=True)
        if not isinstance(key, str) or key not in types:
            raise ValueError("it has a storage that nothing refers to")
        if start + 8 > len(data) or count < 0:
            raise ValueError(f"storage {key!r} is missing")
        storages[key] = np.frombuffer(data, types[key], count, start + 8)
        start += 8 + storages[key].nbytes
    return content, storages


def _read_archive(data: bytes) -> tuple[Any, dict[str, NDArray[Any]]]:
    """The same for later files: an uncompressed archive with an entry for the pickle and one for each storage."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        check_entries(archive, len(data))
        roots = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("it is not a PyTorch file")
        order = f"{roots[0]}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("its data are not little-endian")
        content, types = _load_next(io.BytesIO(archive.read(f"{roots[0]}data.pkl")))
        return content, {key: np.frombuffer(archive.read(f"{roots[0]}data/{key}"), kind) for key, kind in types.items()}


def _named_tensors(content: Any) -> Iterator[tuple[str, Any]]:
    """Every parameter and buffer of a module and its submodules, which may be shared."""
    modules, count = [("", content)], 0
    while modules:
        prefix, module = modules.pop()
        state = module.state if isinstance(module, PickledObject) else None
        if not isinstance(state, dict) or "_parameters" not in state:
            raise ValueError(f"{prefix or 'its content'} is not a module but a {type(module).__name__}")
        parameters, buffers, children = (_members(state, name) for name in ("_parameters", "_buffers", "_modules"))
        count += len(parameters) + len(buffers) + len(children)
        if count > _MAX_MEMBERS or len(prefix) > _MAX_NAME:
            raise ValueError(f"it has more than {_MAX_MEMBERS} members, or is nested too deeply")
        yield from ((prefix + name, value) for name, value in (parameters | buffers).items())
        modules += [(f"{prefix}{name}.", child) for name, child in children.items()]


def _members(state: dict[Any, Any], group: str) -> dict[str, Any]:
    """Parameters, buffers or submodules by name; None marks an absent one."""
    members = state.get(group, {})
    if not isinstance(members, dict) or not all(isinstance(key, str) and len(key) <= _MAX_NAME for key in members):
        raise ValueError(f"its {group} are not a dictionary with valid names")
    return {name: member for name, member in members.items() if member is not None}


def _view(value: Any, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """One tensor, as a view of its storage."""
    if isinstance(value, PickledObject) and _PARAMETER.fullmatch(value.source) and value.arguments:
        value = value.arguments[0]
    match value:
        case PickledObject(
            source=source, arguments=(Storage() as storage, int() as offset, tuple() as size, tuple() as stride, *_)
        ) if _TENSOR.fullmatch(source):
            return _strided(_numbers(storage, storages), offset, size, stride)
    raise ValueError(f"a parameter is not a tensor but a {type(value).__name__}")


def _numbers(storage: Storage, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
    if storage.key not in storages:
        raise ValueError(f"storage {storage.key!r} is missing")
    numbers = storages[storage.key]
    match storage.view:
        case None:
            return numbers
        case (_, int() as start, int() as count) if 0 <= start <= start + count <= len(numbers):
            return numbers[start : start + count]
    raise ValueError(f"a view of storage {storage.key!r} exceeds it")


def _strided(numbers: NDArray[Any], offset: int, size: tuple[Any, ...], stride: tuple[Any, ...]) -> NDArray[Any]:
    within = all(isinstance(value, int) and 0 <= value <= len(numbers) for value in (offset, *size, *stride))
    if not within or len(size) != len(stride) or len(size) > _MAX_AXES or math.prod(size) > len(numbers):
        raise ValueError(f"a tensor claims more than the {len(numbers)} elements of its storage")
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= len(numbers):
        raise ValueError(f"a tensor exceeds the {len(numbers)} elements of its storage")
    return as_strided(numbers[offset:], size, [step * numbers.itemsize for step in stride], writeable=False)
