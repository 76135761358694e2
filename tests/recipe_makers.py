"""Weight files of the recipe's networks: the published ones if available, or random weights in the same layout."""

from __future__ import annotations

import atexit
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from avloc.errors import WeightsAbsent
from avloc.networks.lite0 import Lite0
from avloc.networks.yamnet import YAMNet
from avloc.weights import YAMNET, Weight, locate
from tests.program import ROOT
from tests.recipe.yamnet import convert_yamnet

SHARED = ROOT.parent / "shared"
DATA = SHARED / "data" / "classes"

CODES = {"conv": 3, "depthwise": 4, "full": 9, "reshape": 22}
KINDS = {np.dtype("f4"): 0, np.dtype("i4"): 2, np.dtype("i1"): 9}


def flatbuffer(root: dict, mark: bytes) -> bytes:
    """Serialise a FlatBuffers table: dicts are tables, lists vectors of tables, arrays vectors, pairs scalars."""
    data = bytearray(struct.pack("<I", 0) + mark)
    struct.pack_into("<I", data, 0, _append(data, root))
    return bytes(data)


def _append(data: bytearray, node: dict | list | np.ndarray) -> int:
    if isinstance(node, np.ndarray):
        at = len(data)
        data += struct.pack("<I", node.size) + node.tobytes()
        return at
    if isinstance(node, list):
        at = len(data)
        data += struct.pack("<I", len(node)) + bytes(4 * len(node))
        for index, part in enumerate(node):
            place = at + 4 + 4 * index
            struct.pack_into("<I", data, place, _append(data, part) - place)
        return at
    return _append_table(data, node)


def _append_table(data: bytearray, node: dict) -> int:
    offsets, body = [0] * (max(node, default=-1) + 1), 4
    for number, value in node.items():
        offsets[number] = body
        body += struct.calcsize(value[0]) if isinstance(value, tuple) else 4
    listing = len(data)
    data += struct.pack(f"<HH{len(offsets)}H", 4 + 2 * len(offsets), body, *offsets)
    at = len(data)
    data += struct.pack("<i", at - listing) + bytes(body - 4)
    for number, value in node.items():
        place = at + offsets[number]
        if isinstance(value, tuple):
            struct.pack_into(value[0], data, place, value[1])
        else:
            struct.pack_into("<I", data, place, _append(data, value) - place)
    return at


def tensor(buffer: int, values: np.ndarray, scales: np.ndarray | None, along: int, zero: int = 0) -> dict:
    table = {0: np.array(values.shape, "<i4"), 1: ("<b", KINDS[values.dtype]), 2: ("<I", buffer)}
    if scales is not None:
        table[4] = {2: scales.astype("<f4"), 3: np.full(len(scales), zero, "<i8"), 6: ("<i", along)}
    return table


def tflite(layers: list[tuple], *, zero: int = 0, mark: bytes = b"TFL3") -> bytes:
    """A TensorFlow Lite file of (kind, weight, scales or None, axis of the scales, bias); other fields are left out."""
    kinds = sorted({kind for kind, *_ in layers})
    buffers: list[dict] = [{}]
    tensors: list[dict] = [tensor(0, np.zeros(1, "f4"), None, 0)]
    operators = []
    for kind, weight, scales, along, bias in layers:
        for values, its_scales in ((weight, scales), (bias, None)):
            buffers.append({0: np.frombuffer(values.tobytes(), "u1")})
            tensors.append(tensor(len(buffers) - 1, values, its_scales, along, zero))
        inputs = np.array([0, len(tensors) - 2, len(tensors) - 1], "<i4")
        operators.append({0: ("<I", kinds.index(kind)), 1: inputs})
    codes = [{0: ("<b", min(CODES[kind], 127)), 3: ("<i", CODES[kind])} for kind in kinds]
    return flatbuffer({0: ("<I", 3), 1: codes, 2: [{0: tensors, 3: operators}], 4: buffers}, mark)


def quantised(values: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Quantise to 8 bits with a scale per index of `axis`, or one scale if None."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    scales = np.abs(values).max(others if axis is not None else None, keepdims=True) / 127
    return np.round(values / scales).astype("i1"), scales.reshape(-1).astype("f4")


def yamnet_layers() -> list[tuple]:
    """Layers in the order of the published file: front end, convolutions, head; not all of them quantised."""
    torch.manual_seed(5)
    state = {key: value.numpy() for key, value in YAMNet().state_dict().items()}
    bands = np.random.default_rng(5).random((64, 257)).astype("f4")
    layers = [("full", *quantised(bands, None), 0, np.full(64, 0.001, "f4"))]
    for name in [key.removesuffix(".weight") for key in state if key.endswith(".weight")]:
        weight, bias = 3 * state[f"{name}.weight"], state[f"{name}.bias"]
        if name == "head":
            layers.append(("full", *quantised(weight, None), 0, bias))
        elif "depthwise" in name:
            layers.append(("depthwise", *quantised(np.ascontiguousarray(weight.transpose(1, 3, 2, 0)), 3), 3, bias))
        elif "stem" in name:
            layers.append(("conv", np.ascontiguousarray(weight.transpose(0, 3, 2, 1)), None, 0, bias))
        else:
            layers.append(("conv", *quantised(np.ascontiguousarray(weight.transpose(0, 3, 2, 1)), 0), 0, bias))
    return layers


def save_yamnet(path: Path, layers: list[tuple] | None = None) -> Path:
    """YAMNet's layers, or random ones, by way of TensorFlow Lite."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "yamnet_int8.tflite"
        source.write_bytes(tflite(yamnet_layers() if layers is None else layers))
        return convert_yamnet(source, path)


def save_lite0(path: Path) -> dict[str, torch.Tensor]:
    """Write a state dict with the published keys and random normalisation parameters."""
    torch.manual_seed(6)
    state = {}
    for key, value in Lite0().state_dict().items():
        random = torch.rand_like(value) + 0.5 if value.is_floating_point() else value
        name = f"_fc.{key.removeprefix('head.')}" if key.startswith("head.") else key.removeprefix("trunk.")
        state[name] = random if value.dim() == 1 else value
    state["_fc.weight"] = 20 * state["_fc.weight"]  # trained classifiers have larger logits than random ones
    torch.save(state, path)
    return state


def published_tflite() -> Path:
    """YAMNet's published file; the test is skipped where there is none."""
    path = SHARED / "weights" / YAMNET.original
    if not path.is_file():
        pytest.skip(f"{path.name} is not at hand")
    return path


@cache
def _converted(source: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="avloc-yamnet-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return convert_yamnet(source, folder / YAMNET.files[0].name)


def real(weight: Weight) -> Path:
    """The published file, YAMNet's converted; the test is skipped where there is none."""
    if weight == YAMNET:
        return _converted(published_tflite())
    folder = SHARED / "weights" if (SHARED / "weights").is_dir() else None
    try:
        return locate(weight, weights_dir=folder).path
    except WeightsAbsent:
        pytest.skip(f"{weight.label} is not at hand")


def sounds(kind: str, count: int) -> list[Path]:
    """The first `count` recorded sounds of a class; skips the test if they are not available."""
    if not DATA.is_dir():
        pytest.skip("no labelled sounds beside the repository")
    return sorted((DATA / "sounds" / kind).iterdir())[:count]
