"""YAMNet out of its TensorFlow Lite file: bit for bit, or refused by name."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from avloc.errors import WeightsAbsent, WeightsError
from avloc.networks.builder import build_backbone, load_pretrained
from avloc.networks.yamnet import YAMNet, load_yamnet, read_yamnet
from avloc.transforms import mel_bands
from avloc.weights import YAMNET, cache_folder, locate
from tests.recipe.__main__ import main
from tests.recipe.tflite import read_layers
from tests.recipe.yamnet import convert_yamnet, read_yamnet_tflite
from tests.recipe_makers import published_tflite, tflite


@pytest.fixture(params=["random", "published"])
def source(request, layers, tmp_path) -> Path:
    path = tmp_path / "yamnet_int8.tflite"
    path.write_bytes(published_tflite().read_bytes() if request.param == "published" else tflite(layers))
    return path


def test_the_converted_file_has_the_same_bits_and_numbers(source, capsys):
    main(["yamnet", str(source)])
    path = source.with_name("yamnet.safetensors")
    assert capsys.readouterr().out == f"{path}\n"
    read, expected = read_yamnet(path), read_yamnet_tflite(source)
    assert read.keys() == expected.keys()
    for key, value in expected.items():
        assert read[key].dtype == value.dtype == torch.float32
        assert read[key].numpy().tobytes() == value.numpy().tobytes()
    mel = torch.randn(1, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    direct = YAMNet().eval()
    direct.load_state_dict(expected)
    trunk = build_backbone("yamnet", channels=1)
    load_pretrained(trunk, "yamnet", path)
    with torch.no_grad():
        assert torch.equal(load_yamnet(path)(mel), direct(mel))
        assert torch.equal(trunk.eval()(mel).features, direct.trunk(mel))


def test_the_same_file_is_written_twice(source, tmp_path):
    written = [convert_yamnet(source, tmp_path / name).read_bytes() for name in ("a.safetensors", "b.safetensors")]
    assert written[0] == written[1]


def test_the_command_writes_where_it_is_asked_and_names_a_damaged_file(layers, tmp_path, capsys):
    source, out = tmp_path / "a.tflite", tmp_path / "out.safetensors"
    source.write_bytes(tflite(layers))
    main(["yamnet", str(source), "--out", str(out)])
    assert out.is_file()
    source.write_bytes(b"TFL3")
    with pytest.raises(SystemExit) as caught:
        main(["yamnet", str(source), "--out", str(out)])
    assert caught.value.code == 4
    assert str(source) in capsys.readouterr().err


@pytest.mark.parametrize("place", ["--weights-dir", "cache"])
@pytest.mark.usefixtures("offline")
def test_a_file_that_has_to_be_converted_is_named_with_the_command(place, tmp_path):
    folder = cache_folder() if place == "cache" else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "yamnet_int8.tflite").write_bytes(b"TFL3")
    with pytest.raises(
        WeightsAbsent, match=re.escape(f"{folder / 'yamnet_int8.tflite'} has to be converted")
    ) as caught:
        locate(YAMNET, weights_dir=tmp_path)
    assert caught.value.exit_code == 4
    assert f"python -m tests.recipe yamnet {folder / 'yamnet_int8.tflite'}" in caught.value.hint


def test_the_published_file_has_the_same_bands():
    """Its matrix is kept in 8 bits, all with one scale: half a step is as near as it comes."""
    (front, *_) = read_layers(published_tflite())
    step = np.abs(front.weight[front.weight != 0]).min()
    assert np.abs(front.weight.T - mel_bands().numpy()).max() <= 0.501 * step
    assert front.bias == pytest.approx(np.full(64, 0.001))


@pytest.mark.parametrize("damage", ["cut", "mark", "empty", "fewer", "zero", "scale", "text", "folder", "cycle"])
def test_damaged_files_are_named(damage, layers, tmp_path):
    path = tmp_path / "damaged.tflite"
    whole = tflite(layers)
    kind, weight, _, along, bias = layers[-1]
    made = {
        "cut": lambda: whole[: len(whole) // 2],
        "mark": lambda: tflite(layers, mark=b"ABCD"),
        "empty": lambda: b"",
        "fewer": lambda: tflite(layers[:-1]),
        "zero": lambda: tflite(layers, zero=3),
        "scale": lambda: tflite([*layers[:-1], (kind, weight, None, along, bias)]),
        "text": lambda: b"abcdTFL3" + b"x" * 500,
        "cycle": lambda: b"\4\0\0\0TFL3" + b"\0" * 500,
    }
    path.mkdir() if damage == "folder" else path.write_bytes(made[damage]())
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        convert_yamnet(path, tmp_path / "yamnet.safetensors")
    assert not (tmp_path / "yamnet.safetensors").exists()


def test_hints_and_runs_record_the_published_file(source, tmp_path):
    """Hint stores and runs of avloc 0.1, which read the .tflite itself, continue with the converted file."""
    convert_yamnet(source, tmp_path / "yamnet.safetensors")
    found = locate(YAMNET, weights_dir=tmp_path)
    assert (found.name, found.sha256) == ("yamnet_int8.tflite", sha256(source.read_bytes()).hexdigest())
    assert found.hashes == {found.name: found.sha256}
    assert found.path == tmp_path / "yamnet.safetensors"
