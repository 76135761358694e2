"""Weights saved by Keras: read bit for bit, or refused with the file's name."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from avloc.errors import WeightsError
from avloc.weights.keras_files import load_keras
from tests.parity import drawing_events
from tests.program import ROOT
from tests.torch03_files import same

PUBLISHED = ROOT.parent / "shared" / "data" / "ave" / "cmm_model_weights.h5"


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published weights lie beside the checkout and are not there")
def test_published_matching_weights():
    read = load_keras(PUBLISHED)
    with h5py.File(PUBLISHED) as file:
        same(read, {name: torch.from_numpy(file[name][:]) for name in drawing_events.weights(1)["cmm_model_weights"]})
    assert sum(value.numel() for value in read.values()) == 98_688


def keras(path, change=None):
    with h5py.File(path, "w") as file:
        file["dense_1/dense_1/kernel:0"] = np.arange(6, dtype=np.float32).reshape(2, 3)
        file.create_group("input_1")
        if change:
            change(file)
    return path


def test_keras_weights_are_read(tmp_path):
    read = load_keras(keras(tmp_path / "weights.h5", lambda file: file.update({"scalar": np.float32(3)})))
    same(read, {"dense_1/dense_1/kernel:0": torch.arange(6.0).view(2, 3), "scalar": torch.tensor(3.0)})


def _external(file) -> None:
    keras(file.filename + ".other")
    file["there"] = h5py.ExternalLink(file.filename + ".other", "dense_1")


def _virtual(file) -> None:
    layout = h5py.VirtualLayout((2, 3), np.float32)
    layout[:] = h5py.VirtualSource(file["dense_1/dense_1/kernel:0"])
    file.create_virtual_dataset("virtual", layout)


ATTACKS = {
    "external link": _external,
    "soft link": lambda file: file.update({"soft": h5py.SoftLink("/dense_1")}),
    "virtual": _virtual,
    "raw file": lambda file: file.create_dataset(
        "raw", (2,), np.float32, external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    ),
    "double": lambda file: file.update({"double": np.ones(2)}),
    "text": lambda file: file.update({"text": "words"}),
    "named type": lambda file: file.update({"type": np.dtype("f4")}),
    "nothing": lambda file: file.update({"nothing": h5py.Empty("f4")}),
    "exabyte": lambda file: file.create_dataset("exabyte", (1 << 60,), np.float32, chunks=(1 << 20,)),
    "zeros": lambda file: file.create_dataset("zeros", (1 << 24,), np.float32, chunks=True, compression="gzip"),
    "circle": lambda file: file.update({"circle": file["/"]}),
    "empty": lambda file: file.clear(),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_malicious_keras_file_is_refused(tmp_path, attack):
    with pytest.raises(WeightsError, match=r"weights.h5 cannot be read as weights of Keras: \S"):
        load_keras(keras(tmp_path / "weights.h5", attack))


def test_truncated_keras_file_is_refused(tmp_path):
    path = keras(tmp_path / "weights.h5")
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match="cannot be read as weights of Keras"):
            load_keras(path)
