"""Model files are self-describing, published checkpoints are converted, and no code in them is run."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable

import numpy as np
import pytest
import torch

from avloc.checkpoint import default_model, load_model, put_weights, save_model
from avloc.config import ModelConfig
from avloc.engine import Engine
from avloc.errors import UsageError, WeightsError
from avloc.files import read_json, write_json
from tests.parity import drawing
from tests.small_models import save_small

CPU = torch.device("cpu")
SMALL = ModelConfig(dim=8, vision_trunk="shufflenet_v2_x0_5", audio_trunk="shufflenet_v2_x0_5", tau=0.05)


def test_a_saved_model_is_loaded_with_its_configuration_and_card(tmp_path):
    engine = Engine(SMALL, CPU)
    save_model(tmp_path / "m.safetensors", SMALL, engine.model.state_dict(), {"name": "mine", "epoch": 3})
    again = load_model(tmp_path / "m.safetensors")
    assert again.config == SMALL
    assert again.card == {"name": "mine", "epoch": 3}
    for key, value in Engine.from_file(again, CPU).model.state_dict().items():
        assert torch.equal(value, engine.model.state_dict()[key])


def test_a_run_folder_loads_its_selected_model(tmp_path):
    save_model(tmp_path / "model.safetensors", SMALL, Engine(SMALL, CPU).model.state_dict(), {})
    assert load_model(tmp_path).path == tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("system", "prefix", "method", "dim", "rate"),
    [("avc", "", "avc", 2048, 44_100), ("avc", "module.", "avc", 2048, 44_100), ("ezvsl", "", "ezvsl", 512, 0)],
)
def test_published_checkpoints_are_converted(tmp_path, system, prefix, method, dim, rate):
    drawn = drawing.weights(f"{system}_keys.json", 5)
    state = {prefix + key.removeprefix("module."): torch.from_numpy(value) for key, value in drawn.items()}
    content = {"model": state, "optimizer": {"state": {}}, "epoch": 7, "best_cIoU": np.float64(0.5), "best_Auc": 0.4}
    torch.save(content, tmp_path / "best.pth")
    model = load_model(tmp_path / "best.pth")
    assert (model.config.method, model.config.dim, model.config.rate) == (method, dim, rate)
    assert model.card["epoch"] == 7
    engine = Engine.from_file(model, CPU)
    assert torch.equal(engine.model.img_proj.bias, state[prefix + "img_proj.bias"])


def test_numpy_scalars_of_old_numpy_are_read(tmp_path):
    """Checkpoints written with NumPy 1 refer to the scalar's constructor by its old module."""
    torch.save({"model": {"w": torch.zeros(1)}, "best": np.float64(0.25)}, tmp_path / "new.pth")
    import zipfile

    with zipfile.ZipFile(tmp_path / "new.pth") as old, zipfile.ZipFile(tmp_path / "old.pth", "w") as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    from avloc.weights.torch_files import load_plain

    assert load_plain(tmp_path / "old.pth")["best"] == 0.25


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)


@pytest.mark.parametrize("writer", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, monkeypatch, writer):
    monkeypatch.chdir(tmp_path)
    writer({"model": {"x": Bomb()}}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth"):
        load_model(tmp_path / "evil.pth")
    assert not (tmp_path / "bomb-went-off").exists()


def published_without(key: str, path) -> None:
    drawn = drawing.weights("ezvsl_keys.json", 5)
    state = {name.removeprefix("module."): torch.from_numpy(value) for name, value in drawn.items()}
    del state[key]
    torch.save({"model": state}, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"not a checkpoint"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: torch.save([1, 2], path), "not a dictionary"),
        (lambda path: torch.save({"model": {"conv.weight": torch.zeros(1)}}, path), "not a checkpoint of avc, ezvsl"),
        (lambda path: torch.save({"model": 3}, path), "not a checkpoint of"),
        (
            lambda path: torch.save({"img_proj.weight": torch.tensor(1.0), "aud_proj.weight": torch.zeros(1)}, path),
            "not a checkpoint of",
        ),
    ],
    ids=["text", "empty", "list", "other network", "number", "no width"],
)
def test_other_files_are_refused_with_the_reason(tmp_path, make, message):
    make(tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(tmp_path / "odd.pth")
    assert "odd.pth" in str(caught.value)


def test_a_checkpoint_with_a_missing_tensor_is_refused(tmp_path):
    published_without("audnet.conv1.weight", tmp_path / "short.pth")
    model = load_model(tmp_path / "short.pth")
    with pytest.raises(WeightsError, match=r"audnet\.conv1\.weight"):
        put_weights(Engine(model.config, CPU).model, model)


def test_a_safetensors_file_without_metadata_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "theirs.safetensors")
    with pytest.raises(WeightsError, match="no model of avloc"):
        load_model(tmp_path / "theirs.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "theirs.safetensors").read_bytes()[:20])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_model(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ([], "not a table"),
        ({"schema": 1, "config": {}}, "does not describe one"),
        ({"schema": 1, "config": {}, "card": []}, "its card is a list"),
        ({"schema": 1, "config": [], "card": {}}, "its config is a list"),
        ({"schema": 1, "config": {"method": "avd"}, "card": {}}, "unknown method 'avd'; valid: avc, ezvsl"),
    ],
)
def test_malformed_metadata_is_refused(tmp_path, about, message):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={"avloc": json.dumps(about)})
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path / "odd.safetensors")


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no model"):
        load_model(tmp_path / "nothing.pth")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="published"):
        load_model(tmp_path / "model.onnx")


def test_the_shipped_model_describes_itself():
    path = default_model()
    assert path.stat().st_size <= 30_000_000
    model = load_model(path)
    assert model.name == "avloc-lite"
    assert "non-commercial" in model.card["licence"]
    assert {"scenes", "boxed", "auc"} <= set(model.card["score"])
    assert not [word for word in json.dumps(model.card).split('"') if word.startswith("/")], "a path of one machine"
    Engine.from_file(model, CPU)


def _with_header(data: bytes, change: Callable[[dict], None]) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _tensor(header: dict, **changes) -> None:
    header[next(name for name in header if name != "__metadata__")].update(changes)


MODELS: dict[str, Callable[[bytes], bytes]] = {
    "header of an exabyte": lambda data: struct.pack("<Q", 1 << 60) + data[8:],
    "header beyond the end": lambda data: struct.pack("<Q", len(data)) + data[8:],
    "absurd shape": lambda data: _with_header(data, lambda head: _tensor(head, shape=[1 << 40, 1 << 40])),
    "negative shape": lambda data: _with_header(data, lambda head: _tensor(head, shape=[-1])),
    "offsets outside": lambda data: _with_header(data, lambda head: _tensor(head, data_offsets=[0, 1 << 50])),
    "offsets backwards": lambda data: _with_header(data, lambda head: _tensor(head, data_offsets=[9, 1])),
    "unknown type": lambda data: _with_header(data, lambda head: _tensor(head, dtype="X9")),
    "deep description": lambda data: _with_header(data, lambda head: head["__metadata__"].update(avloc="[" * 100_000)),
    "absurd network": lambda data: _with_header(data, _absurd),
    "cut off": lambda data: data[: len(data) // 2],
}


def _absurd(header: dict) -> None:
    about = json.loads(header["__metadata__"]["avloc"])
    about["config"]["dim"] = 1 << 50
    header["__metadata__"]["avloc"] = json.dumps(about)


@pytest.mark.parametrize("case", MODELS)
def test_a_malformed_model_file_is_refused(tmp_path, case):
    path = save_small(tmp_path / "model.safetensors")
    path.write_bytes(MODELS[case](path.read_bytes()))
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load_model(path)


def test_an_undecodable_path_can_be_written_to_json(tmp_path):
    save_model(tmp_path / "a.safetensors", SMALL, {}, {"name": "a", "store": "/no\udcff/text"})
    assert load_model(tmp_path / "a.safetensors").card["store"] == "/no\udcff/text"
    write_json(tmp_path / "a.json", {"path": "/no\udcff/text \u00e4"})
    assert read_json(tmp_path / "a.json") == {"path": "/no\udcff/text \u00e4"}
