"""YAMNet and its bands: against slow references with random weights, and with the real ones where they are at hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save

from avloc.errors import UsageError, WeightsError
from avloc.media.audio import read_sound
from avloc.networks.builder import build_backbone, load_pretrained
from avloc.networks.yamnet import YAMNet, load_yamnet, read_yamnet
from avloc.transforms import log_mel
from avloc.weights import YAMNET
from tests.recipe_makers import SHARED, published_tflite, real, save_yamnet, sounds

SAMPLES = 15_600  # at 16 kHz: input of the published network
CLIPS = SHARED / "clips"


# --- log-mel bands ----------------------------------------------------------------------------------------------------


def slow_log_mel(wave: np.ndarray, offset: float) -> np.ndarray:
    """Band by band, bin by bin, from the definition."""
    window = [0.5 - 0.5 * np.cos(2 * np.pi * i / 400) for i in range(400)]
    mel = [1127 * np.log(1 + hz / 700) for hz in (125, 7500)]
    edges = [mel[0] + (mel[1] - mel[0]) * i / 65 for i in range(66)]
    columns = []
    for start in range(0, len(wave) - 399, 160):
        spectrum = np.abs(np.fft.fft(wave[start : start + 400] * window, 512))
        bands = [0.0] * 64
        for k in range(64):
            for number in range(257):
                at = 1127 * np.log(1 + number * 16_000 / 512 / 700)
                up = (at - edges[k]) / (edges[k + 1] - edges[k])
                down = (edges[k + 2] - at) / (edges[k + 2] - edges[k + 1])
                bands[k] += spectrum[number] * max(0.0, min(up, down))
        columns.append(np.log(np.array(bands) + offset))
    return np.stack(columns, 1)


@pytest.mark.parametrize("offset", [0.001, 0.01])
def test_mel_bands_against_a_slow_reference(offset):
    wave = np.random.default_rng(1).normal(0, 0.1, 1000)
    wave[600:] = 0
    ours = log_mel(torch.from_numpy(wave)[None], 16_000, offset=offset)
    assert ours.shape == (1, 1, 64, 4)
    np.testing.assert_allclose(ours[0, 0].numpy(), slow_log_mel(wave, offset), atol=1e-4)


def test_mel_bands_have_one_shape_of_answer():
    assert log_mel(torch.zeros(2, SAMPLES), 16_000).shape == (2, 1, 64, 96)
    assert log_mel(torch.zeros(1, 48_000), 16_000).shape == (1, 1, 64, 298)
    assert torch.allclose(log_mel(torch.zeros(1, 400), 16_000), torch.tensor(0.001).log())


def test_other_rates_are_refused():
    with pytest.raises(UsageError, match="16000 Hz, not 22050") as caught:
        log_mel(torch.zeros(1, 22_050), 22_050)
    assert "model.rate=16000" in caught.value.hint


def test_quiet_bands_survive_autocast():
    wave = torch.randn(1, 4_000, generator=torch.Generator().manual_seed(0)) / 10
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(wave, 16_000), log_mel(wave, 16_000))
        within = log_mel(wave, 16_000)
    assert torch.equal(within, log_mel(wave, 16_000))


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def yamnet_file(layers, tmp_path_factory) -> Path:
    return save_yamnet(tmp_path_factory.mktemp("yamnet") / "yamnet.safetensors", layers)


def tensorflow_yamnet(layers: list[tuple], mel_BTF: torch.Tensor) -> torch.Tensor:
    """Time down and frequency across, kernels as the file has them; [B, 521]."""
    x = mel_BTF.unsqueeze(1)
    strides = [2, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    for (kind, weight, scales, along, bias), stride in zip(layers[1:-1], strides, strict=True):
        shape = [-1 if axis == along else 1 for axis in range(4)]
        values = torch.from_numpy(weight * (1 if scales is None else scales.reshape(shape))).float()
        kernel = values.permute(3, 0, 1, 2) if kind == "depthwise" else values.permute(0, 3, 1, 2)
        x = F.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)) if kernel.shape[-1] == 3 else x
        groups = len(kernel) if kind == "depthwise" else 1
        x = F.conv2d(x, kernel, torch.from_numpy(bias), stride, groups=groups).relu()
    _, weight, scales, _, bias = layers[-1]
    return x.mean((2, 3)) @ torch.from_numpy(weight * scales).T + torch.from_numpy(bias)


def test_yamnet_against_its_own_orientation(layers, yamnet_file):
    mel = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, reference = load_yamnet(yamnet_file)(mel), tensorflow_yamnet(layers, mel[:, 0].transpose(1, 2))
    assert reference.std() > 0.01
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-3)


def test_the_trunk_keeps_frequency_and_time(yamnet_file):
    assert load_yamnet(yamnet_file).trunk(torch.randn(1, 1, 64, 298)).shape == (1, 1024, 2, 10)


@pytest.mark.parametrize("name", ["yamnet", "yamnet:block5"])
def test_the_audio_backbone_takes_the_file(name, yamnet_file):
    trunk = build_backbone(name, channels=1)
    load_pretrained(trunk, "yamnet", yamnet_file)
    whole = read_yamnet(yamnet_file)
    assert trunk.width() == (256 if "block5" in name else 1024)
    assert all(torch.equal(value, whole[f"trunk.{key}"]) for key, value in trunk.state_dict().items())


def test_an_audio_network_takes_no_images():
    with pytest.raises(UsageError, match="yamnet takes audio input only; valid for images: resnet18"):
        build_backbone("yamnet")


@pytest.mark.parametrize("damage", ["cut", "empty", "fewer", "others", "folder"])
def test_damaged_files_are_named(damage, yamnet_file, tmp_path):
    path, whole = tmp_path / "damaged.safetensors", yamnet_file.read_bytes()
    tensors = load_file(yamnet_file)
    made = {
        "cut": lambda: whole[: len(whole) // 2],
        "empty": lambda: b"",
        "fewer": lambda: save({key: value for key, value in tensors.items() if "head" not in key}),
        "others": lambda: save({**tensors, "head.weight": torch.zeros(3, 1024)}),
    }
    path.mkdir() if damage == "folder" else path.write_bytes(made[damage]())
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load_yamnet(path)
    trunk = build_backbone("yamnet+classes", channels=1)
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load_pretrained(trunk, "yamnet", path)


@pytest.mark.parametrize("load", [load_yamnet, lambda path: load_pretrained(torch.nn.Identity(), "yamnet", path)])
def test_a_file_of_tensorflow_lite_is_refused_with_the_command_that_converts_it(load, tmp_path):
    with pytest.raises(WeightsError) as caught:
        load(tmp_path / "yamnet_int8.tflite")
    assert caught.value.exit_code == 4
    assert f"python -m tests.recipe yamnet {tmp_path / 'yamnet_int8.tflite'}" in caught.value.hint


def clip_sounds() -> list[np.ndarray]:
    if not CLIPS.is_dir():
        pytest.skip("no real clips beside the repository")
    audible = [path for path in sorted(CLIPS.glob("*.mp4")) if path.stem != "tv_basketball"]
    return [read_sound(path, seconds=SAMPLES / 16_000, rate=16_000).waveform for path in audible]


def test_yamnet_agrees_with_the_published_runtime():
    """Given the file's own bands: its 8-bit matrix of them drowns quiet bands, which we do not imitate.

    The runtime rounds outputs of layers to 8 bits, too; that can change the class where no score is high.
    """
    runtime = pytest.importorskip("ai_edge_litert.interpreter", reason="no runtime of TensorFlow Lite to compare with")
    path, waves = published_tflite(), clip_sounds()
    plain = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    runner = runtime.Interpreter(str(path), experimental_preserve_all_tensors=True, experimental_op_resolver_type=plain)
    runner.allocate_tensors()
    (entry,), (out,) = runner.get_input_details(), runner.get_output_details()
    (bands,) = [part for part in runner.get_tensor_details() if part["name"].endswith("/Log")]
    network, alike = load_yamnet(real(YAMNET)), []
    for wave in waves:
        runner.set_tensor(entry["index"], wave.astype(np.float32))
        runner.invoke()
        theirs = runner.get_tensor(out["index"])[0]
        mel = torch.from_numpy(runner.get_tensor(bands["index"]).copy()).T[None, None]
        with torch.no_grad():
            ours = network(mel).sigmoid()[0].numpy()
        alike.append(float(np.corrcoef(theirs, ours)[0, 1]))
    assert sorted(alike)[1] > 0.99
    assert np.median(alike) > 0.999


NAMES = {
    "dog": ("Dog", "Bark"),
    "cat": ("Cat", "Meow"),
    "bird": ("Bird",),
    "cow": ("Cattle, bovinae", "Moo"),
    "piano": ("Piano",),
    "trumpet": ("Trumpet",),
    "accordion": ("Accordion",),
    "violin": ("Violin, fiddle",),
}


def test_yamnet_names_real_sounds():
    path = real(YAMNET)
    rows = (SHARED / "weights" / "yamnet_class_map.csv").read_text().splitlines()[1:]
    labels = [row.split(",", 2)[2].strip('"') for row in rows]
    network, right = load_yamnet(path), []
    for kind in NAMES:
        for file in sounds(kind, 4):
            wave = torch.from_numpy(read_sound(file, seconds=3.0, rate=16_000).waveform)
            with torch.no_grad():
                features = network.trunk(log_mel(wave[None], 16_000))
                scores = network.head(features.mean(2).transpose(1, 2))[0].amax(0)
            best = max(NAMES, key=lambda name: max(float(scores[labels.index(label)]) for label in NAMES[name]))
            right.append(best == kind)
    assert np.mean(right) >= 0.7


def test_yamnet_keys_are_plain():
    keys = [key for key in YAMNet().state_dict() if key.endswith(".weight")]
    assert keys[:3] == ["trunk.stem.conv.weight", "trunk.block1.depthwise.weight", "trunk.block1.pointwise.weight"]
    assert (len(keys), keys[-1]) == (28, "head.weight")
