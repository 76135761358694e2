"""Compiled backbones: the same losses and files, another setting for a resumed run, and what is refused."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from safetensors import safe_open

from avloc.config import parse_settings, resolve_config
from avloc.distributed import Peers
from avloc.engine import Engine
from avloc.errors import Refused, UsageError
from avloc.progress import silent
from avloc.train import TrainOptions, compilation, train
from avloc.train.batches import EpochBatches
from avloc.train.compilation import compile_forward
from avloc.train.localizer import LocalizerTask
from tests.small_models import TINY_METHODS, narrowed
from tests.small_training import CONFIG, changed

CPU = torch.device("cpu")


@pytest.fixture
def graphs(monkeypatch):
    """Graphs that were compiled: captured as by every backend, with compiled gradients, and run without code."""
    from torch._dynamo.backends.debugging import aot_eager

    captured = []

    def backend(graph, inputs):
        captured.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(compilation, "_BACKEND", backend)
    torch._dynamo.reset()
    yield captured
    torch._dynamo.reset()


def keys(path) -> set[str]:
    with safe_open(path, "pt") as file:
        return set(file.keys())


def test_a_compiled_run_has_the_losses_and_files_of_one_that_is_not(store, tmp_path, graphs):
    config = changed(CONFIG, epochs=2)
    plain = train(TrainOptions(store=store, out=tmp_path / "plain", val="0.3"), config)
    assert not graphs
    compiled = train(TrainOptions(store=store, out=tmp_path / "run", val="0.3"), changed(config, compile=True))
    assert len(graphs) == 3, "a probe and two backbones; validation is not compiled"
    for ours, theirs in zip(compiled.metrics, plain.metrics, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)
    files = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {path.name for path in (tmp_path / "run").iterdir()} == files
    assert keys(tmp_path / "run" / "last.safetensors") == keys(tmp_path / "plain" / "last.safetensors")
    resumed = train(TrainOptions(store=store, out=tmp_path / "run", val="0.3"), changed(config, epochs=3))
    assert resumed.epochs_done == 3


@pytest.mark.parametrize("method", ["lvs", "sspl", "sacl"])
def test_the_backbones_of_other_methods_are_compiled(store, tmp_path, graphs, method):
    losses = []
    for compile_ in ("false", "true"):
        own = [*TINY_METHODS[method], "batch=2", "workers=0", "init=random", "precision=fp32", f"compile={compile_}"]
        config = resolve_config(parse_settings(own), method)
        with narrowed():
            task = LocalizerTask(TrainOptions(store=store, out=tmp_path, device="cpu"), config, silent)
            task.start(silent)
        batch = next(iter(task.load(EpochBatches(task.clips, 2, config.seed, 1))))
        losses.append({name: term.item() for name, term in task.terms(batch, torch.Generator().manual_seed(0)).items()})
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(graphs) > len(task.model.backbones())


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++)")
def test_generated_code_is_as_close_to_float64_as_without_it():
    config = resolve_config(parse_settings([*TINY_METHODS["avc"], "init=random"]), "avc")
    torch.manual_seed(0)
    backbone = Engine(config.model, CPU).model.backbones()[0].train()
    frames = torch.randn(4, 3, config.model.frame, config.model.frame)
    compiled = copy.deepcopy(backbone)
    compile_forward([compiled], CPU)
    truth = copy.deepcopy(backbone).double()(frames.double()).concatenated()
    errors = [(part(frames).concatenated() - truth).norm() / truth.norm() for part in (compiled, backbone)]
    assert errors[0] < max(1e-4, 3 * errors[1])


@pytest.mark.parametrize("dry_run", [False, True])
def test_several_processes_are_refused_before_anything_is_compiled(store, tmp_path, graphs, dry_run):
    options = TrainOptions(store=store, out=tmp_path, device="cpu", dry_run=dry_run)
    with pytest.raises(UsageError, match="compile = true is impossible in 2 processes; valid: false"):
        train(options, changed(CONFIG, compile=True), peers=Peers(0, 2))
    assert not graphs


def test_a_compiler_that_does_not_work_is_named(monkeypatch):
    def broken(_graph, _inputs):
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(compilation, "_BACKEND", broken)
    torch._dynamo.reset()
    module = torch.nn.Linear(2, 2)
    with pytest.raises(Refused, match=r"torch\.compile does not work for cpu here: .*no working C") as caught:
        compile_forward([module], CPU)
    assert "Install a C++ compiler (g++ or clang)" in caught.value.hint
    assert module._compiled_call_impl is None
