"""Training and prediction are the same computation; every parameter learns; batches do not mix."""

from __future__ import annotations

import platform
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from avloc import load
from avloc.checkpoint import load_model, save_model
from avloc.config import AugmentConfig, LossWeights, ModelConfig, TrainConfig, parse_settings, resolve_config
from avloc.dataset import Batch
from avloc.engine import Engine, pick_device, pick_precision, predict_cells, score_clips, weighted_total
from avloc.errors import UsageError
from avloc.losses import contrastive
from avloc.methods import HintBatch
from avloc.networks.base import allows_tf32
from avloc.networks.builder import build_backbone
from avloc.protocols import PROTOCOLS
from avloc.registry import METHOD_SPECS
from avloc.transforms import constant, normalise_frames, tukey_window
from tests.fake_gpu import fake_gpu, on_gpu
from tests.mps_kernels import without_mps
from tests.small_models import SMALL, TINY_METHODS
from tests.training_steps import STEPS, case_config, inputs_of, random_batch, small_engine

CPU = torch.device("cpu")


@pytest.fixture
def batch() -> Batch:
    return random_batch()


def test_prediction_is_the_diagonal_of_the_training_similarity(batch):
    """One encode, one similarity: the loss computed from what `predict` shows equals the loss of the training step."""
    engine = Engine(SMALL, CPU)
    engine.model.eval()
    shown = engine.predict(batch.frames, batch.sound, batch.rate)
    embeddings = engine.encode([normalise_frames(batch.frames)], engine.spectrogram(batch.sound, batch.rate))
    all_pairs = torch.einsum("ndhw,md->nmhw", embeddings.image, embeddings.audio)
    assert torch.allclose(shown, all_pairs[range(3), range(3)], atol=1e-6)
    config = TrainConfig(model=SMALL, augment=AugmentConfig(scale=1.0, flip=0.0))
    terms = engine.training_step(batch, config, torch.Generator().manual_seed(0))
    assert torch.allclose(terms["contrastive"], contrastive(embeddings.image, embeddings.audio, SMALL.tau))


def test_after_one_step_every_parameter_has_a_gradient(batch):
    torch.manual_seed(0)
    engine = Engine(SMALL, CPU)
    config = TrainConfig(model=SMALL)
    weighted_total(engine.training_step(batch, config, torch.Generator()), config.loss).backward()
    for name, parameter in engine.model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # A bias under a batch norm, or a ReLU that is shut for three clips, may stay at exactly zero; a layer may not.
        assert parameter.dim() == 1 or parameter.grad.abs().sum() > 0, name


def test_a_map_does_not_depend_on_its_batch(batch):
    engine = Engine(SMALL, CPU)
    engine.model.eval()
    together = engine.predict(batch.frames, batch.sound, batch.rate)
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(
        engine.predict(batch.frames[order], batch.sound[order], batch.rate), together[order], atol=1e-5
    )
    for row in range(3):
        alone = engine.predict(batch.frames[row : row + 1], batch.sound[row : row + 1], batch.rate)
        assert torch.allclose(alone[0], together[row], atol=1e-5)


def test_the_total_is_the_weighted_sum():
    terms = {"contrastive": torch.tensor(2.0), "audio_hint": torch.tensor(0.003), "visual_hint": torch.tensor(1e-5)}
    assert weighted_total(terms, LossWeights()).item() == pytest.approx(2 + 3 + 1)


def test_impossible_parts_are_named():
    with pytest.raises(UsageError, match="resnet18"):
        build_backbone("resnet19")
    with pytest.raises(UsageError, match="avc, ezvsl"):
        Engine(ModelConfig(method="avd"), CPU)
    with pytest.raises(UsageError, match="--device"):
        pick_device("abacus")


def machine(monkeypatch, *, cards: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("has", "name", "valid"),
    [
        *(({}, name, "auto, cpu") for name in ("cuda", "cuda:0", "mps", "xpu", "meta", "CPU", "cpu:0", "", "no such")),
        ({"cards": 1}, "cuda:7", "auto, cpu, cuda, cuda:0"),
        ({"cards": 2}, "mps", "auto, cpu, cuda, cuda:0, cuda:1"),
        ({"mps": True}, "cuda", "auto, cpu, mps"),
    ],
)
def test_a_device_that_is_absent_is_refused_with_those_that_are_there(monkeypatch, has, name, valid):
    machine(monkeypatch, **has)
    with pytest.raises(UsageError) as caught:
        pick_device(name)
    assert str(caught.value) == f"--device {name} is not usable here; valid: {valid}"


def test_a_device_that_is_there_and_does_not_work_is_refused_in_one_line(monkeypatch):
    machine(monkeypatch, mps=True)

    def busy(*_args, **_more):
        raise RuntimeError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in the manual.\n")

    monkeypatch.setattr(torch, "zeros", busy)
    with pytest.raises(UsageError) as caught:
        pick_device("mps")
    assert str(caught.value) == "--device mps is not usable here: CUDA error: out of memory; valid: cpu"


@pytest.mark.parametrize(
    ("has", "picked"),
    [({}, "cpu"), ({"mps": True}, "cpu"), ({"cards": 1}, "cuda")],
)
def test_the_device_that_is_picked(monkeypatch, has, picked):
    machine(monkeypatch, **has)
    assert pick_device().type == picked
    assert pick_precision("auto", torch.device("mps")) == "fp32"


def test_precision_is_taken_at_its_word():
    assert pick_precision("auto", CPU) in ("fp32", "bf16")
    if platform.machine() == "x86_64":
        assert "cpu_name" in torch.cpu.get_capabilities(), "which identify Intel's processors"
    assert pick_precision("fp32", CPU) == "fp32"
    assert pick_precision("bf16", CPU) == "bf16"


@pytest.mark.parametrize(
    ("has", "picked"),
    [
        ({}, "fp32"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "fp32"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, "fp32"),
    ],
)
def test_bf16_is_picked_where_the_processor_is_faster_in_it(monkeypatch, has, picked):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert pick_precision("auto", CPU) == picked


def test_bf16_maps_are_close_to_fp32(batch, tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path / "small.safetensors", SMALL, Engine(SMALL, CPU).model.state_dict(), {})
    file = load_model(tmp_path / "small.safetensors")
    exact, rough = Engine.from_file(file, CPU), Engine.from_file(file, CPU, "bf16")
    inputs = (batch.frames, batch.sound, batch.rate)
    assert (exact.predict(*inputs) - rough.predict(*inputs)).abs().max() < 0.05


def test_the_steps_on_a_gpu_are_of_every_method():
    assert {case.method for case in STEPS} == set(METHOD_SPECS)


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_a_step_on_a_gpu_waits_for_nothing_and_copies_each_input_once(case):
    config = case_config(case)
    batch, engine = inputs_of(case, config.model), small_engine(config)
    with fake_gpu() as copies:
        on_gpu(engine.model)
        engine.device = torch.device("cuda")
        for _ in range(2):  # the first copies constants
            copies.clear()
            found = engine.training_step(batch.pin_memory(), config, torch.Generator().manual_seed(0))
    assert sorted(found) == sorted(case.terms)
    assert all(term.is_cuda for term in found.values())
    assert copies.blocking == []
    assert copies.doubles == [], "mps has no float64"
    assert without_mps(copies.operators) <= {"aten::cudnn_batch_norm"}
    assert len(copies.pinned) == 4 + sum(case.inputs.values())
    # torchvision's change of hue copies a table for each frame.
    assert set(copies.pageable) <= ({(3, 6)} if case.method == "sacl" else set())


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_gradients_of_a_step_need_no_values_on_the_host(monkeypatch, case):
    """On torch's meta device, whose tensors have no values: the fake GPU has no backward half."""
    monkeypatch.setattr(Engine, "_autocast", lambda _engine: nullcontext())  # which the device does not know
    config = case_config(case)
    engine = small_engine(config)
    engine.model.to("meta")
    engine.device = torch.device("meta")
    terms = engine.training_step(inputs_of(case, config.model), config, torch.Generator().manual_seed(0))
    weighted_total(terms, config.loss).backward()
    trained = [weight for group in engine.model.groups() for weight in group.parameters]
    assert {weight.grad.device.type for weight in trained if weight.grad is not None} == {"meta"}


class _Waits(torch.autograd.Function):
    """Reads a value in its backward half."""

    @staticmethod
    def forward(_ctx, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(_ctx, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * gradient.sum().item()


@pytest.mark.parametrize("waits", [_Waits.apply, lambda values: values[values > 0]])
def test_the_meta_device_notices_what_needs_values(waits):
    values = torch.empty(3, device="meta", requires_grad=True)
    with pytest.raises(RuntimeError, match="meta"):
        waits(values).sum().backward()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predictions_in_fp32_are_without_tf32(batch, precision):
    """Convolutions of the encoders and of SSPL's similarity; training steps keep what the process has set."""
    config = resolve_config(parse_settings((*TINY_METHODS["sspl"], f"precision={precision}")), "sspl")
    engine = small_engine(config)
    convolutions, allowed = [part for part in engine.model.modules() if isinstance(part, nn.Conv2d)], []
    for part in convolutions:
        part.register_forward_pre_hook(lambda *_: allowed.append(allows_tf32(torch.device("cuda"))))
    sound, frames = torch.zeros(3, 16_000, dtype=torch.int16), torch.zeros(3, 3, 224, 224, dtype=torch.uint8)
    with fake_gpu():
        on_gpu(engine.model)
        engine.device = torch.device("cuda")
        engine.model.train()
        step = replace(batch, sound=sound, rate=16_000, hints=HintBatch())
        engine.training_step(step, config, torch.Generator())
        assert allowed == [True] * len(allowed)
        engine.model.eval()
        allowed.clear()
        engine.predict(frames, sound, 16_000)
        engine.encode_sound(sound, 16_000)
    assert len(allowed) > len(convolutions)
    assert allowed == [precision == "bf16"] * len(allowed)
    assert allows_tf32(torch.device("cuda"))


def test_the_fake_gpu_notices_what_waits():
    with fake_gpu() as copies:
        there = torch.zeros(3, device="cuda")
        torch.ones(1).to("cuda"), torch.tensor([1.0, 2.0], device="cuda"), there[torch.tensor([0, 1, 1])]
        torch.zeros(4, device="cuda").cpu()
        assert copies.blocking == [(1,), (2,), (3,), (4,)]
        torch.ones(5).to("cuda", non_blocking=True), torch.ones(6).pin_memory().to("cuda", non_blocking=True)
        assert (copies.pageable, copies.pinned) == ([(5,)], [(6,)])
        for waits in (
            lambda: there.sum().item(),
            lambda: there[there > 0],
            lambda: there.__setitem__(there > 0, 1.0),
            lambda: there + torch.ones(3),
        ):
            with pytest.raises(Exception, match=r"aten|mask|device"):
                waits()


def test_constants_are_computed_once():
    like = torch.zeros(1)
    assert constant(tukey_window, like) is constant(tukey_window, torch.ones(2))
    assert constant(tukey_window, like).dtype == torch.float32
    assert constant(tukey_window, like.double()).dtype == torch.float64
    with torch.inference_mode():
        assert not constant(tukey_window, like.bfloat16()).is_inference(), "it can be used in training"


def test_prediction_and_scoring_run_on_mps_by_its_kernels(batch):
    """As far as a fake device shows: no float64, and no operator without a kernel."""
    model = load(device="cpu")
    engine, rng = model._engine, np.random.default_rng(0)
    small = Engine(SMALL, CPU)
    small.model.eval()
    with fake_gpu(zeros=True) as on_device:
        for each in (engine, small):
            on_gpu(each.model)
            each.device = torch.device("cuda")
        model.localize(rng.integers(0, 255, (80, 100, 3), dtype=np.uint8), rng.standard_normal(48_000) / 10, 16_000)
        clips = list(predict_cells(small, [batch]))[1:]
        for protocol in PROTOCOLS.values():
            assert len(list(score_clips(clips, {"av": 1.0}, protocol, "voted", small.device))) == 2
    assert on_device.doubles == []
    assert without_mps(on_device.operators) == {"aten::cudnn_batch_norm"}
