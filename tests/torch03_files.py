"""Write checkpoint files in PyTorch 0.3's format without PyTorch 0.3."""

from __future__ import annotations

import collections
import io
import pickle
import struct

import numpy as np
import torch

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Global:
    """A class or function pickled by name only, for names that PyTorch no longer has."""

    def __init__(self, name: str) -> None:
        self.name = name


class Called:
    """An object pickled as a call."""

    def __init__(self, name: str, *arguments, state=None) -> None:
        self.name, self.arguments, self.state = name, arguments, state

    def __reduce__(self):
        raise NotImplementedError


class OldPickler(pickle._Pickler):
    """Pickler that writes names for `Global`, calls for `Called`, and persistent ids for `Module` and `Stored`."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(pickle.GLOBAL + "\n".join(obj.name.rsplit(".", 1)).encode() + b"\n")
        elif isinstance(obj, Called):
            self.save(Global(obj.name))
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        elif isinstance(obj, Module):
            self.save(("module", Global(obj.name), "models.py", "class source:\n    pass"))
            self.write(pickle.BINPERSID + pickle.EMPTY_TUPLE + pickle.NEWOBJ)
            self.save(obj.state)
            self.write(pickle.BUILD)
        elif isinstance(obj, Stored):
            self.save(("storage", Global(f"torch.cuda.{obj.kind}"), obj.key, "cuda:0", obj.count, obj.part))
            self.write(pickle.BINPERSID)
        else:
            super().save(obj, save_persistent_id)


class Module:
    def __init__(self, name: str = "models.att_Net.att_Net", modules=(), **parameters) -> None:
        backend = Called("torch.nn.backends.thnn._get_thnn_function_backend")
        groups = {"_parameters": parameters, "_buffers": {}, "_modules": dict(modules)}
        self.name = name
        self.state = {"_backend": backend, **{key: collections.OrderedDict(group) for key, group in groups.items()}}


class Stored:
    def __init__(self, key: str = "1", count: int = 6, kind: str = "FloatStorage", part=None) -> None:
        self.key, self.count, self.kind, self.part = key, count, kind, part


def parameter(storage, offset=0, size=(2, 3), stride=(3, 1), kind="torch.nn.parameter.Parameter"):
    tensor = Called("torch._utils._rebuild_tensor", storage, offset, size, stride)
    return Called(kind, tensor, state=(True, False, collections.OrderedDict()))


def old_file(path, content, numbers: dict[str, np.ndarray], system=SYSTEM, counts=None, keys=None):
    file = io.BytesIO()
    for part in (MAGIC, 1001, system, content, keys or list(numbers)):
        OldPickler(file, 2).dump(part)
    for key, values in numbers.items():
        file.write(struct.pack("<q", (counts or {}).get(key, values.size)) + values.tobytes())
    path.write_bytes(file.getvalue())
    return path


def same(read, expected) -> None:
    """Assert that two state dicts have equal keys, dtypes and values."""
    assert read.keys() == expected.keys()
    for name, value in expected.items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)
