"""Whole modules as PyTorch pickles them: read bit for bit, and no code is run."""

from __future__ import annotations

import os
import re
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from avloc.ave.networks import AVE
from avloc.errors import WeightsError
from avloc.weights.keras_files import load_keras
from avloc.weights.legacy_checkpoints import PickledDict, load_modules
from tests.parity import drawing_events
from tests.parity.comparing import tensors
from tests.torch03_files import SYSTEM, Called, Module, Stored, old_file, parameter, same

SIX = {"1": np.arange(6, dtype=np.float32)}


class Net(nn.Module):
    """Nested and shared modules, some without parameters; batch norm, an LSTM, and attributes that are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 2, bidirectional=True)
        self.part = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 3, bias=False))
        self.part[3].weight = nn.Parameter(self.part[0].weight.detach().T)
        self.again = self.part[0]
        self.sizes, self.names, self.activation = (3, 4, -5, 1 << 40, 0.5), {"one": [1, None], 2: True}, torch.relu
        self.register_parameter("absent", None)


@pytest.fixture
def published_class(monkeypatch):
    """A class in a module that exists while a file is written, and not when it is read."""
    package, module = types.ModuleType("models"), types.ModuleType("models.att_Net")
    kind = type("att_Net", (Net,), {"__module__": "models.att_Net"})
    module.att_Net = kind
    monkeypatch.setitem(sys.modules, "models", package)
    monkeypatch.setitem(sys.modules, "models.att_Net", module)
    return kind


def forget() -> None:
    for name in ("models", "models.att_Net"):
        del sys.modules[name]


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("zipped", [False, True])
def test_module_is_read_without_its_code(published_class, tmp_path, zipped):
    torch.manual_seed(0)
    model = published_class()
    path = tmp_path / "AV_att.pt"
    torch.save(model, path, _use_new_zipfile_serialization=zipped)
    forget()
    same(load_modules(path), {name: value.detach() for name, value in model.state_dict().items()})
    data = path.read_bytes()
    for length in [*range(0, min(3000, len(data)), 7), *range(0, len(data), len(data) // 50), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match=r"AV_att.pt cannot be read as a module of PyTorch: \S"):
            load_modules(path)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_any_wrong_byte_is_read_or_refused(published_class, tmp_path):
    path = tmp_path / "wrong.pt"
    random = np.random.default_rng(0)
    for zipped in (False, True):
        torch.save(published_class(), path, _use_new_zipfile_serialization=zipped)
        data = path.read_bytes()
        for place in random.integers(0, len(data), 250):
            path.write_bytes(data[:place] + bytes([random.integers(256)]) + data[place + 1 :])
            try:
                load_modules(path)
            except WeightsError as error:
                assert "wrong.pt" in str(error)  # noqa: PT017 -- most bytes are numbers, and any number may be one


# --- files of PyTorch 0.3 --------------------------------------------------------------------------------------------


def test_a_file_of_pytorch_0_3(tmp_path):
    """Parameters share a storage, as cuDNN's do; some storages are views of another."""
    inner = Module(
        "torch.nn.modules.linear.Linear",
        weight=parameter(Stored("2", 12, "DoubleStorage"), 4, (2, 2), (1, 2)),
        bias=parameter(Stored("2", 12, "DoubleStorage", ("view", 9, 3)), 1, (2,), (1,)),
    )
    outer = Module(
        modules={"L1": inner, "none": None}, flat=parameter(Stored()), none=None, scalar=parameter(Stored(), 5, (), ())
    )
    numbers = {**SIX, "2": np.arange(12) / 7}
    read = load_modules(old_file(tmp_path / "AV_att.pt", outer, numbers))
    two = torch.from_numpy(numbers["2"])
    expected = {
        "flat": torch.arange(6.0).view(2, 3),
        "scalar": torch.tensor(5.0),
        "L1.weight": two[4:8].view(2, 2).T,
        "L1.bias": two[10:12],
    }
    same(read, expected)
    read["flat"] += 1
    assert load_modules(tmp_path / "AV_att.pt")["flat"][0, 0] == 0


def test_the_published_keys_in_a_file_of_pytorch_0_3(tmp_path):
    weights = drawing_events.weights(5)["AV_att_weak"]
    numbers = {str(place): value.ravel() for place, value in enumerate(weights.values())}
    parts: dict[str, dict] = {}
    for place, (name, value) in enumerate(weights.items()):
        part, _, last = name.partition(".")
        strides = tuple(step // 4 for step in value.strides)
        parts.setdefault(part, {})[last] = parameter(Stored(str(place), value.size), 0, value.shape, strides)
    outer = Module(modules={name: Module("torch.nn.modules.linear.Linear", **part) for name, part in parts.items()})
    read = load_modules(old_file(tmp_path / "AV_att_weak.pt", outer, numbers))
    same(read, tensors(weights))
    config, state = AVE.from_published({"AV_att_weak": read})
    AVE(config).load_state_dict(state)


# --- malicious files -------------------------------------------------------------------------------------------------

ITSELF = Module()
ITSELF.state["_modules"]["again"] = ITSELF


def many(depth: int) -> Module:
    """2 to the power of `depth` modules, in a file of a few kilobytes."""
    part = Module()
    for _ in range(depth):
        part = Module(modules={"a": part, "b": part})
    return part


def doubled() -> tuple:
    """A tuple that takes exponential time to hash, compare or print."""
    value: tuple = ()
    for _ in range(60):
        value = (value, value)
    return value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Module(weight=Called("os.system", "touch harm")), "its pickle calls os.system"),
        (Module(weight=Called("builtins.eval", "open('harm', 'w')")), "its pickle calls builtins.eval"),
        (Module(weight=Called("torch.hub.load", "harm")), "a parameter is not a tensor"),
        (Module(weight=parameter(Stored(), 1)), "exceeds the 6 elements"),
        (Module(weight=parameter(Stored(), -1)), "claims more than the 6 elements"),
        (Module(weight=parameter(Stored(), 0, (1 << 40, 1 << 40), (0, 0))), "claims more than the 6 elements"),
        (Module(weight=parameter(Stored(), 0, (6, 6), (0, 0))), "claims more than the 6 elements"),
        (Module(weight=parameter(Stored(), 0, (2, 3), (3,))), "claims more than the 6 elements"),
        (Module(weight=parameter(Stored(), 0, (2, 3.0), (3, 1))), "claims more than the 6 elements"),
        (Module(weight=parameter(Stored(), 0, (1,) * 9, (1,) * 9)), "claims more than the 6 elements"),
        (Module(weight=parameter(Stored(), "0")), "a parameter is not a tensor"),
        (Module(weight=parameter(Stored("7"))), "storage '7' is missing"),
        (Module(weight=parameter(Stored(kind="ComplexStorage"))), "storages of type torch.cuda.ComplexStorage"),
        (Module(weight=parameter(Stored(doubled()))), "refers to a tuple, which is neither a class nor a storage"),
        (Module(weight=doubled()), "a parameter is not a tensor but a tuple"),
        (Module(weight=parameter(Stored(part=("view", 4, 3)))), "a view of storage '1' exceeds it"),
        (Module(weight=[1, 2]), "a parameter is not a tensor but a list"),
        (Module(modules={"a": {"_parameters": {}}}), "harm.a. is not a module but a PickledDict"),
        ({"weight": parameter(Stored())}, "harm. is not a module but a PickledDict"),
        (ITSELF, "nested too deeply"),
        (many(60), "more than 10000 members"),
        ({(1, 2): 3}, "a tuple as a key"),
        (b"bytes", "harm. is not a module"),
    ],
)
def test_malicious_module_is_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    outer = Module(modules={"fine": Module(weight=parameter(Stored())), "harm": content})
    with pytest.raises(WeightsError, match=rf"harmful\.pt.*{re.escape(message)}"):
        load_modules(old_file(tmp_path / "harmful.pt", outer, SIX))
    assert not (tmp_path / "harm").exists()


def test_inconsistent_storages_are_refused(tmp_path):
    content, path = Module(weight=parameter(Stored())), tmp_path / "lie.pt"
    load_modules(old_file(path, content, SIX))
    for count in (-1, 7, 1 << 60):
        with pytest.raises(WeightsError, match=r"storage '1' is missing|buffer"):
            load_modules(old_file(path, content, SIX, counts={"1": count}))
    with pytest.raises(WeightsError, match="not little-endian"):
        load_modules(old_file(path, content, SIX, system={**SYSTEM, "little_endian": False}))
    for keys in (["1", "2"], [doubled()]):
        with pytest.raises(WeightsError, match="storage that nothing refers to"):
            load_modules(old_file(path, content, SIX, keys=keys))
    thousand = {"1": np.ones(1000, np.float32)}
    shared = Module(**{f"w{place}": parameter(Stored(), 0, (1000,), (1,)) for place in range(9)})
    with pytest.raises(WeightsError, match="more than 2 times"):
        load_modules(old_file(path, shared, thousand))
    with pytest.raises(WeightsError, match="have no parameters"):
        load_modules(old_file(path, Module(), {}))


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02" + b"(" * 300_001 + b".", "more than 300000 operations"),
        (b"\x80\x04\x8c\x01a\x94.", "operation SHORT_BINUNICODE, which PyTorch does not write"),
        (b"\x80\x02Nr\xff\xff\xff\x7f." * 3, "the memo index 2147483647"),
        (b"\x80\x02T\xff\xff\xff\x7fa.", "cannot be read"),
        (b"\x80\x02h\x05.", "Memo value not found"),
        (b"\x80\x02R.", "stack underflow"),
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00harm\x85R.", "its pickle calls os.system"),
        (b"\x80\x02NQ.", "refers to a NoneType"),
        (b"\x80\x02K\x01Nb.", "exhausted before seeing STOP"),
        (b"\x80\x02K\x01Na.", "'int' object has no attribute 'append'"),
        (b"\x80\x02K\x01NNs.", "'int' object does not support item assignment"),
        (b"\x80\x02NNR.", "argument list must be a tuple"),
        (b"", "cannot be read"),
        (b"GIF89a", "cannot be read"),
    ],
)
def test_malicious_pickle_is_refused(tmp_path, pickled, message):
    (tmp_path / "harmful.pt").write_bytes(pickled)
    with pytest.raises(WeightsError, match=rf"harmful\.pt.*{message}"):
        load_modules(tmp_path / "harmful.pt")


ITEMS = b"".join(b"K\x01" for _ in range(200))
OBJECT, CLASS, NUMBERS = (
    b"ctorch\nX\n)R",
    b"ctorch\nX\n",
    b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x001\x87Q",
)
ATTRIBUTES = b"X\x03\0\0\0key" + b"X\x01\0\0\x002"


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (b"(ios\nsystem\n", "operation INST"),
        (b"(cos\nsystem\no", "operation OBJ"),
        (b"\x82\x01", "operation EXT1"),
        (b"\x83\x01\x00", "operation EXT2"),
        (b"\x84\x01\x00\x00\x00", "operation EXT4"),
        (b"\x8c\x02os\x8c\x06system\x93", "operation SHORT_BINUNICODE"),
        (b"X\x02\0\0\0osX\x06\0\0\0system\x93", "operation STACK_GLOBAL"),
        (b"ctorch\nX\n)}\x92", "operation NEWOBJ_EX"),
        (b"P1\n", "operation PERSID"),
        (b"N2", "operation DUP"),
        (b"\x8f", "operation EMPTY_SET"),
        (b"(d", "operation DICT"),
        (b"I" + b"9" * 5000 + b"\n", "4300"),
        (b"}q\x00(" + ITEMS + b"tN" + b"s", "a tuple as a key"),
        (b"ccollections\nOrderedDict\n](NNtK\x01\x86a\x85R", "a tuple as a key"),
        (CLASS + b"(" + ITEMS + b"tR", "more than 100 arguments"),
        (CLASS + b"(" + ITEMS + b"t\x81", "more than 100 arguments"),
        (b"".join(b"cx\n%d\n0" % number for number in range(1001)) + b"N", "more than 1000 classes"),
        (CLASS + b"}" + ATTRIBUTES + b"sb", "missing 1 required positional argument"),
        (b"ccollections\nOrderedDict\n}" + ATTRIBUTES + b"sb", "missing 1 required positional argument"),
        (NUMBERS + b"}" + ATTRIBUTES + b"sb", "'Storage' object has no attribute '__dict__'"),
        (NUMBERS + b"N}" + ATTRIBUTES + b"s\x86b", "can't set attribute"),
        (OBJECT + b")R", "not callable"),
        (OBJECT + b")\x81", "must be a type"),
        (NUMBERS + b")R", "not callable"),
        (CLASS + b")RNa", "not a PyTorch file"),
    ],
)
def test_unexpected_operations_are_refused(tmp_path, operations, message):
    """Nor can stubs of objects, classes and storages be changed or called."""
    (tmp_path / "harmful.pt").write_bytes(b"\x80\x02" + operations + b".\x80\x02N.\x80\x02N.")
    with pytest.raises(WeightsError, match=rf"harmful\.pt.*{message}"):
        load_modules(tmp_path / "harmful.pt")


def test_dictionaries_built_from_one_list_do_not_multiply_it():
    """Each empties the list, so that many references to one list cannot exhaust memory."""
    pairs = [("a", 1), ("b", 2)]
    assert (PickledDict(pairs), PickledDict(pairs)) == ({"a": 1, "b": 2}, {})


@pytest.mark.parametrize("layer", [b"]", b"}K\x01", b"ctorch\nX\n"], ids=["lists", "dictionaries", "calls"])
def test_deep_nesting_does_not_recurse(tmp_path, layer):
    closing = {b"]": b"a", b"}K\x01": b"s", b"ctorch\nX\n": b"\x85R"}[layer]
    (tmp_path / "deep.pt").write_bytes(
        b"\x80\x02" + 90_000 * layer + b"N" + 90_000 * closing + b"." + b"\x80\x02N." * 2
    )
    with pytest.raises(WeightsError, match="not a PyTorch file"):
        load_modules(tmp_path / "deep.pt")


def test_malicious_archive_is_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    for names, how, message in (
        (["bomb/data.pkl"], zipfile.ZIP_DEFLATED, "compressed or more than once"),
        (["bomb/data", "bomb/version"], zipfile.ZIP_STORED, "not a PyTorch file"),
        (["a/data.pkl", "b/data.pkl"], zipfile.ZIP_STORED, "not a PyTorch file"),
    ):
        with zipfile.ZipFile(path, "w", how) as archive:
            for name in names:
                archive.writestr(name, bytes(10_000))
        with pytest.raises(WeightsError, match=rf"bomb\.pt.*{message}"):
            load_modules(path)
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(WeightsError, match="but a PickledDict"):
        load_modules(path)
    os.mkfifo(tmp_path / "pipe.pt")
    for other in (tmp_path / "pipe.pt", tmp_path, tmp_path / "nowhere.pt"):
        for load in (load_modules, load_keras):
            with pytest.raises(WeightsError, match=str(other)):
                load(other)
