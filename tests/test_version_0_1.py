"""Later versions read the stores, runs, models and network files of version 0.1.0.

`tests/data/version_0_1/README.md` describes how the data were made. Only commands, `avloc.load` and `Engine` are used.
"""

from __future__ import annotations

import json
import lzma
import math
import re
import tarfile
import zlib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import avloc
from avloc.checkpoint import load_model, save_model
from avloc.engine import Engine
from tests.processes import Here
from tests.synthetic_ave import write_ave

DATA = Path(__file__).with_name("data") / "version_0_1"
EXPECTED = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
NETWORKS: dict[str, dict[str, Any]] = json.loads(lzma.decompress((DATA / "networks.json.xz").read_bytes()))
LOCALIZERS = [name for name in NETWORKS if not name.startswith("ave")]
EVENTS = [name for name in NETWORKS if name.startswith("ave")]
LARGE = ("sspl", "sacl")
"""Name prefixes of networks of 300 MB and more."""
SMALL = (
    *("--set", "model.vision_trunk=shufflenet_v2_x0_5:conv1", "--set", "model.audio_trunk=shufflenet_v2_x0_5:conv1"),
    *("--set", "model.frame=64", "--set", "model.tau=0.1", "--set", "precision=fp32", "--set", "workers=0"),
    *("--set", "loss.visual_hint=100", "--set", "optim.lr=0.003", "--batch", "3", "--device", "cpu"),
)
RUN = (*SMALL, "--dim", "16", "--no-audio-hint", "--init", "random", "--epochs", "3", "--val", "0.4")
"""Options of the interrupted run."""
MODEL = (*SMALL, "--dim", "128", "--set", "audio_teacher=vggish", "--set", "loss.audio_hint=1")
"""Options with which the model was trained."""
_BLOCK = 65_521
"""A prime: rows of a repeated block differ."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store`, `test-store` and `scene`."""
    return unpacked("stores.tar.xz", tmp_path_factory.mktemp("stores"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run that was interrupted after the first of the two steps of its second epoch."""
    return unpacked("run.tar.xz", tmp_path) / "run"


def unpacked(name: str, folder: Path) -> Path:
    with tarfile.open(DATA / name) as archive:
        archive.extractall(folder, filter="data")
    return folder


def rows_match(found: list[dict], expected: list[dict], tolerance: float) -> bool:
    """Whether lines of `metrics.jsonl` have the same names, and the same values up to rounding."""
    return len(found) == len(expected) and all(
        one.keys() == other.keys() and one == pytest.approx(other, rel=tolerance, abs=tolerance * 1e-2)
        for one, other in zip(found, expected, strict=True)
    )


# --- stores, runs and models ------------------------------------------------------------------------------------------


def test_an_interrupted_run_resumes_to_the_result_of_an_uninterrupted_one(stores: Path, run: Path, here: Here) -> None:
    command = ("train", stores / "store", "--out", run, *RUN)
    begun = (run / "metrics.jsonl").read_text()
    planned = json.loads(here(*command, "--dry-run", "--json").out)
    assert (planned["epochs_done"], planned["steps_per_epoch"], planned["dry_run"]) == (1, 2, True)
    done = here(*command, "--json")
    assert done.code == 0
    assert "epoch 2/3" in done.err
    assert "epoch 1/3" not in done.err
    assert json.loads(done.out)["epochs_done"] == 3
    assert (run / "metrics.jsonl").read_text().startswith(begun)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows_match(rows, EXPECTED["run"]["metrics"], 1e-5)
    model = load_model(run / "last.safetensors")
    assert model.card["epoch"] == 3
    norms = {key: float(value.float().norm()) for key, value in model.state.items()}
    assert norms == pytest.approx(EXPECTED["run"]["norms"], rel=1e-3)


def test_a_run_with_other_settings_is_refused(stores: Path, run: Path, here: Here) -> None:
    refused = here("train", stores / "store", "--out", run, *RUN, "--seed", "11")
    assert refused.code == 5
    assert "seed was 10, now 11" in refused.err


def test_a_model_is_finetuned_with_the_hints_of_the_store(stores: Path, tmp_path: Path, here: Here) -> None:
    begin = ("--init", DATA / "model.safetensors", "--epochs", "1")
    done = here("train", stores / "store", "--out", tmp_path / "run", *MODEL, *begin, "--json")
    assert done.code == 0
    rows = json.loads(done.out)["metrics"]
    assert {"audio_hint", "visual_hint", "contrastive"} < rows[0].keys()
    assert rows_match(rows, EXPECTED["onward"], 1e-4)


def test_a_model_is_scored_on_the_test_store(stores: Path, here: Here) -> None:
    model = ("--model", DATA / "model.safetensors", "--maps", "av", "--protocol", "avloc")
    done = here("eval", "--store", stores / "test-store", *model, "--device", "cpu", "--json")
    assert done.code == 0
    report = json.loads(done.out)
    assert {key: report[key] for key in ("n_scored", "data_hash", "model_hash")} == EXPECTED["eval"]["identity"]
    overall = report["maps"]["av"]["overall"]
    assert {key: overall[key] for key in EXPECTED["eval"]["overall"]} == pytest.approx(
        EXPECTED["eval"]["overall"], abs=1e-3
    )
    clips = {row["id"]: row["scores"]["av"]["ciou"] for row in report["clips"]}
    assert clips == pytest.approx(EXPECTED["eval"]["ciou"], abs=1e-3)


def test_a_model_localizes_as_in_version_0_1(stores: Path, tmp_path: Path, here: Here) -> None:
    scene = (stores / "scene" / "scene.png", "--audio", stores / "scene" / "scene.wav")
    out = ("--model", DATA / "model.safetensors", "--out", tmp_path / "heat.npy", "--device", "cpu", "--json")
    done = here("localize", *scene, *out)
    assert done.code == 0
    np.testing.assert_allclose(np.load(tmp_path / "heat.npy"), np.load(DATA / "heat.npy"), atol=1e-4)
    line = json.loads(done.out)
    changed = {"schema": "avloc.localize/3", "verdict": None}  # the model has no calibration
    for key, value in (EXPECTED["localize"] | changed).items():
        assert line[key] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value), key


def test_the_data_stay_small_and_unchanged() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 200_000
    digests = {name: sha256((DATA / name).read_bytes()).hexdigest() for name in EXPECTED["sha256"]}
    assert digests == EXPECTED["sha256"]


# --- networks ---------------------------------------------------------------------------------------------------------


def filled(key: str, shape: list[int], kind: str) -> torch.Tensor:
    """The tensor of that name: numbers of `default_rng(crc32(name))` that keep the size of what flows through.

    65,521 numbers u in [-1, 1) are repeated as often as needed. Variances are 1 + u/2, weights of one axis 1 + u/4,
    other tensors of one axis u/4; the rest is u times the square root of 6 over the inputs of an output, and counters
    are 0.
    """
    if kind != "float32":
        return torch.zeros(shape, dtype=getattr(torch, kind))
    size = math.prod(shape)
    draws = np.random.default_rng(zlib.crc32(key.encode())).uniform(-1, 1, min(size, _BLOCK))
    values = np.resize(draws.astype(np.float32), size)
    if key.endswith("running_var"):
        values = 1 + values / 2
    elif len(shape) < 2:
        values = values / 4 + (1 if key.endswith("weight") else 0)
    else:
        values = values * np.float32((6 / math.prod(shape[1:])) ** 0.5)
    return torch.from_numpy(values.reshape(shape))


def write_network(path: Path, network: Mapping[str, Any]) -> Path:
    """Write the model file of a network of `networks.json` without avloc."""
    state = {key: filled(key, shape, kind) for key, (kind, shape) in network["tensors"].items()}
    save_file(state, path, {"avloc": json.dumps(network["metadata"])})
    return path


def scene_for(config: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, int]:
    """A square frame of coloured blocks, a noisy tone, and its sample rate, in the sizes that the model takes."""
    draws = np.random.default_rng(1)
    side, rate = config["frame"], config["rate"] or 22_050
    blocks = draws.integers(0, 256, (8, 8, 3), np.uint8)
    frame = np.kron(blocks, np.ones((side // 8, side // 8, 1), np.uint8))
    time = np.arange(int(config["seconds"] * rate)) / rate
    sound = 0.4 * np.sin(2 * np.pi * 700 * time) + draws.uniform(-0.2, 0.2, len(time))
    return frame, sound.astype(np.float32), rate


def fingerprint(path: Path, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Outputs of a model for its scene: the map, and the features of both modalities."""
    frame, sound, rate = scene_for(config)
    result = avloc.load(path, device="cpu").localize(frame, sound, rate)
    engine = Engine.from_file(load_model(path), torch.device("cpu"))
    features = engine.embed(torch.from_numpy(frame).permute(2, 0, 1)[None], torch.from_numpy(sound)[None], rate)
    found = {"similarity": result.similarity, "cells": result.cells, "image": features.image, "audio": features.audio}
    return {name: summary(np.asarray(value)) for name, value in (found | {"activation": features.activation}).items()}


def summary(values: np.ndarray) -> dict[str, Any]:
    """A few statistics that change if the array does."""
    flat = values.astype(np.float64).ravel()
    picked = flat[np.linspace(0, len(flat) - 1, 6).astype(int)]
    numbers = (flat.mean(), flat.std(), flat.min(), flat.max(), *picked)
    return {"shape": list(values.shape), "numbers": [float(f"{number:.7g}") for number in numbers]}


def assert_same(found: Mapping[str, Any], expected: Mapping[str, Any], name: str) -> None:
    assert found["shape"] == expected["shape"], name
    scale = max(map(abs, expected["numbers"]))
    np.testing.assert_allclose(found["numbers"], expected["numbers"], rtol=1e-4, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * n.startswith(LARGE)) for n in LOCALIZERS])
def test_the_outputs_of_a_localizer_are_unchanged(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]
    path = write_network(tmp_path / "network.safetensors", network)
    found = fingerprint(path, network["metadata"]["config"])
    assert found.keys() == network["fingerprint"].keys()
    for part, expected in network["fingerprint"].items():
        assert_same(found[part], expected, f"{name}, {part}")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_metadata_of_a_model_file_are_unchanged(name: str, tmp_path: Path) -> None:
    """Configuration, protocol and card are read, and written again, under the same names."""
    network = {**NETWORKS[name], "tensors": {"x": ["float32", [1]]}}
    model = load_model(write_network(tmp_path / "old.safetensors", network))
    save_model(tmp_path / "new.safetensors", model.config, model.state, model.card)
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        about = json.loads(file.metadata()["avloc"])
    assert about == {**network["metadata"], "version": about["version"]}


@pytest.fixture(scope="module")
def event_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from avloc.prepare import PrepareOptions, prepare

    folder = tmp_path_factory.mktemp("events")
    write_ave(folder / "AVE", clips=20, events=4)
    prepare([str(folder / "AVE")], folder / "store", PrepareOptions(layout="ave"))
    return folder / "store"


def event_losses(path: Path, network: Mapping[str, Any], store: Path, out: Path, here: Here) -> dict[str, float]:
    """The loss of an event model on all training clips in one batch, before any training step."""
    config = network["metadata"]["config"]
    table = {**config["own"], **({"cross_entropy": True} if config["method"] == "ave" else {})}
    own = [f"{config['method'].replace('-', '_')}.{key}={json.dumps(value)}" for key, value in table.items()]
    settings = [part for text in (*own, "optim.lr=1e-30", "batch=64") for part in ("--set", text)]
    command = ("train", store, "--out", out, "--method", config["method"], "--init", path, "--epochs", "1")
    done = here(*command, *settings, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)["metrics"][0]


@pytest.mark.parametrize("name", EVENTS)
def test_the_outputs_of_an_event_model_are_unchanged(name: str, event_store: Path, tmp_path: Path, here: Here) -> None:
    network = NETWORKS[name]
    path = write_network(tmp_path / "network.safetensors", network)
    found = event_losses(path, network, event_store, tmp_path / "run", here)
    assert found == pytest.approx(network["fingerprint"], rel=1e-4)


def test_schema_names_are_frozen():
    """Readers of JSON compare them; renaming a module must not change one."""
    source = "".join(path.read_text() for path in Path(avloc.__file__).parent.rglob("*.py"))
    assert set(re.findall(r"\"(avloc\.[a-z]+/\d+)\"", source)) == {
        *("avloc.compare/1", "avloc.doctor/1", "avloc.eval/2", "avloc.events/1", "avloc.localize/3"),
        *("avloc.report/1", "avloc.runs/1", "avloc.table/1"),
    }
