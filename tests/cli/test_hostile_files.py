"""Malicious files are refused by name; they run no code, read no other file, and do not exhaust memory."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from avloc.checkpoint import load_model, save_model
from avloc.distill.imported import read_hint
from avloc.errors import InputError, Refused, WeightsError
from avloc.files import read_json, write_json
from avloc.prepare.packed import read_row
from avloc.prepare.sources import Source
from avloc.store import Hints, Store
from tests.program import avloc
from tests.small_models import SMALL, save_small
from tests.synthetic_scenes import write_store

ESC = "\x1b"


# --- stores -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("whole") / "store", 3, hints=True)


def _replaced(file: h5py.File, name: str, **how) -> None:
    del file[name]
    file.create_dataset(name, **how)


def _elsewhere(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as secret:
        secret["sound"] = file["sound"][:]
    del file["sound"]
    file["sound"] = h5py.ExternalLink(str(folder / "secret.h5"), "sound")


def _soft(file: h5py.File, _folder: Path) -> None:
    del file["label"]
    file["label"] = h5py.SoftLink("/id")


def _raw(file: h5py.File, folder: Path) -> None:
    secret = folder / "secret.bin"
    secret.write_bytes(bytes(file["picture"].nbytes))
    _replaced(file, "picture", shape=file["picture"].shape, dtype="u1", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, folder: Path) -> None:
    shape = file["sound"].shape
    with h5py.File(folder / "secret.h5", "w") as secret:
        secret["sound"] = file["sound"][:]
    layout = h5py.VirtualLayout(shape, "i2")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "sound", shape)
    del file["sound"]
    file.create_virtual_dataset("sound", layout)


STORES: dict[str, Callable[[h5py.File, Path], None]] = {
    "sounds in another file": _elsewhere,
    "a soft link": _soft,
    "pictures in a raw file": _raw,
    "sounds put together from another file": _virtual,
    "sounds of an exabyte": lambda file, _: _replaced(
        file, "sound", shape=(3, 1 << 58), dtype="i2", chunks=(1, 1 << 10)
    ),
    "sounds that are texts": lambda file, _: _replaced(file, "sound", data=np.array([[b"a"]] * 3)),
    "sounds for another number of clips": lambda file, _: _replaced(file, "sound", data=np.zeros((2, 66_150), "i2")),
    "ids that are numbers": lambda file, _: _replaced(file, "id", data=np.arange(3)),
    "ids that are one": lambda file, _: _replaced(file, "id", data="one"),
    "ids that are HDF5's strings": lambda file, _: _replaced(
        file, "id", data=["a", "b", "c"], dtype=h5py.string_dtype()
    ),
    "ids that are no UTF-8": lambda file, _: _replaced(file, "id", data=np.full(len(file["id"]), 255, "u1")),
    "ids without a beginning": lambda file, _: file.__delitem__("id_offset"),
    "labels without a beginning": lambda file, _: file.__delitem__("label_offset"),
    "a group for boxes": lambda file, _: (file.__delitem__("boxes"), file.create_group("boxes")),
    "offsets beyond the end": lambda file, _: _replaced(file, "picture_offset", data=np.array([0, 9, 99, 1 << 40])),
    "offsets that go back": lambda file, _: _replaced(file, "boxes_offset", data=np.array([0, 3, 1, 3])),
    "negative offsets": lambda file, _: _replaced(file, "boxes_offset", data=np.array([-3, 1, 2, 3])),
    "no labels": lambda file, _: file.__delitem__("label"),
    "a time that is a structure": lambda file, _: _replaced(file, "time_s", data=np.zeros(3, [("a", "i4")])),
}


@pytest.mark.parametrize("case", STORES)
def test_a_malformed_shard_is_refused(whole, tmp_path, case):
    shutil.copytree(whole, tmp_path / "store")
    with h5py.File(tmp_path / "store" / "shard-00000.h5", "r+") as file:
        STORES[case](file, tmp_path)
    with pytest.raises(Refused, match=r"shard-00000\.h5 cannot be read"):
        store = Store(tmp_path / "store")
        clips = [store.read(clip_id) for clip_id in store.ids]
        assert clips
        store.annotated()


HEADERS = {
    "deep": b'{"schema": ' + b"[" * 100_000,
    "a list": b"[]",
    "another kind of spec": b'{"schema": 1, "spec": 3, "expected": []}',
    "impossible spec": b'{"schema": 1, "spec": {"seconds": -1, "rate": 1, "shorter_side": 1}, "expected": []}',
    "a number too long": b'{"schema": 1, "expected": ' + b"9" * 10_000 + b"}",
    "no UTF-8": b'{"schema": "\xff"}',
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_malformed_store_header_is_refused(whole, tmp_path, case):
    shutil.copytree(whole, tmp_path / "store")
    (tmp_path / "store" / "store.json").write_bytes(HEADERS[case])
    with pytest.raises(Refused, match=r"store\.json"):
        Store(tmp_path / "store")


@pytest.mark.parametrize(
    "stamp",
    [
        b"[" * 100_000,
        b"[]",
        b'{"teacher": "panns"}',
        b'{"teacher": "detr", "shape": [3]}',
        b'{"teacher": "panns", "shape": ["a"]}',
    ],
)
def test_a_malformed_hint_stamp_is_refused(whole, tmp_path, stamp):
    shutil.copytree(whole, tmp_path / "store")
    (tmp_path / "store" / "hints-panns" / "stamp.json").write_bytes(stamp)
    with pytest.raises(Refused, match=r"stamp\.json"):
        Hints(tmp_path / "store", "panns")


def test_hints_whose_shape_differs_from_their_stamp_are_refused(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "store")
    with h5py.File(tmp_path / "store" / "hints-panns" / "shard-00000.h5", "r+") as file:
        _replaced(file, "value", data=np.zeros((3, 1 << 12), "f2"))
    hints = Hints(tmp_path / "store", "panns")
    with pytest.raises(Refused, match="value has shape"):
        hints.read(hints.shards.ids[0])


def test_a_packed_set_that_links_to_another_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["frames"] = np.zeros((2, 8, 8, 3), "f4")
    frames, sounds = tmp_path / "h5py_train_frames_10k.h5", tmp_path / "h5py_train_audios_10k.h5"
    with h5py.File(frames, "w") as file:
        file["train_frames"] = h5py.ExternalLink("secret.h5", "frames")
    with h5py.File(sounds, "w") as file:
        file["train_audios"] = np.zeros((2, 48_000), "f4")
    with pytest.raises(InputError, match="stored in another file"):
        read_row(Source(id="a", kind="packed", path=frames, sound=sounds, row=0))


# --- annotations ------------------------------------------------------------------------------------------------


# --- models -----------------------------------------------------------------------------------------------------


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


def test_a_decompression_bomb_is_refused(tmp_path):
    torch.save({"model": {"img_proj.weight": torch.zeros(1 << 20)}}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 1 << 16
    with pytest.raises(WeightsError, match=r"bomb\.pth .* claims"):
        load_model(tmp_path / "bomb.pth")


def test_an_undecodable_path_can_be_written_to_json(tmp_path):
    save_model(tmp_path / "a.safetensors", SMALL, {}, {"name": "a", "store": "/no\udcff/text"})
    assert load_model(tmp_path / "a.safetensors").card["store"] == "/no\udcff/text"
    write_json(tmp_path / "a.json", {"path": "/no\udcff/text \u00e4"})
    assert read_json(tmp_path / "a.json") == {"path": "/no\udcff/text \u00e4"}


# --- imported hints, file names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["(1152921504606846976,)", "(1099511627776, 1099511627776)", "(-1,)"])
def test_an_array_that_claims_an_exabyte_is_refused(tmp_path, shape):
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())
    with pytest.raises(InputError, match=r"a\.npy (is not a readable array|holds)"):
        read_hint([tmp_path / "a.npy"], (4,))


def test_control_characters_in_names_are_escaped(tmp_path):
    """The name of a broken file sets the title and colour of the terminal and moves the cursor."""
    name = f"{ESC}]0;owned\x07{ESC}[31mred{ESC}[H.mp4"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"no video")
    done = avloc("prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert done.returncode
    assert ESC not in done.stderr + done.stdout
    assert "\x07" not in done.stderr + done.stdout
    assert "\\x1b[31mred" in done.stderr
    done = avloc("localize", str(tmp_path / "in" / name), "--model", str(save_small(tmp_path / "m.safetensors")))
    assert ESC not in done.stderr + done.stdout
