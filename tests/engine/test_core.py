"""Training and prediction are the same computation; every parameter learns; batches do not mix."""

from __future__ import annotations

import platform
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
from tests.small_models import SMALL, TINY_METHODS, narrowed

CPU = torch.device("cpu")


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        ids=["a", "b", "c"],
        frames=torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=generator),
        sizes=torch.full((3, 2), 64),
        sound=torch.randint(-9000, 9000, (3, 12_000), dtype=torch.int16, generator=generator),
        rate=22_050,
        hints=HintBatch(
            audio=torch.randn(3, 16, generator=generator),
            visual=torch.rand(3, 25, 25, generator=generator),
            visual_present=torch.tensor([True, False, True]),
        ),
        boxes=[np.zeros((0, 4)), np.array([[0.0, 0.0, 0.5, 1.0]]), np.array([[0.25, 0.25, 0.75, 0.75]])],
        labels=["dog", "dog | dog, cat", "siren | cat"],
        masks=[b"", b"", b""],
        failures=[],
        failed_at=[],
    )


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
    ("has", "shared", "picked"),
    [({}, False, "cpu"), ({"mps": True}, False, "mps"), ({"mps": True}, True, "cpu"), ({"cards": 1}, True, "cuda")],
)
def test_the_device_that_is_picked(monkeypatch, has, shared, picked):
    machine(monkeypatch, **has)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: shared)
    assert pick_device().type == picked
    assert picked != "mps" or pick_precision("auto", pick_device()) == "fp32"


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


LABELLED = ("loss.same_class=masked", "loss.box=1", "loss.peak=1")
CLASS_SCORES = ("model.vision_trunk=efficientnet_lite0+classes", "model.audio_trunk=yamnet+classes", "model.rate=16000")
GPU_STEPS = [
    ("avc", (), ["contrastive", "audio_hint", "visual_hint"], {"audio": 1, "visual": 1, "rows with a visual hint": 1}),
    ("avc", ("loss.audio_hint=0",), ["contrastive", "visual_hint"], {"vectors": 1, "rows with a visual hint": 1}),
    ("avc", ("loss.audio_hint=0", "loss.visual_hint=0", "precision=bf16"), ["contrastive"], {}),
    *(
        (method, LABELLED, ["contrastive", "box", "peak"], {"anchors and ignored": 2, "box": 2, "peak": 2})
        for method in ("avc", "ezvsl")
    ),
    ("ezvsl", (), ["contrastive"], {}),
    ("ezvsl", CLASS_SCORES, ["contrastive"], {}),
    ("lvs", (), ["contrastive"], {}),
    ("lvs", ("loss.same_class=masked",), ["contrastive"], {"anchors and ignored": 2}),
    ("sspl", (), ["agreement"], {"crops of the second view": 1}),
    ("sspl", ("sspl.pcm=false",), ["agreement"], {"crops of the second view": 1}),
    ("sacl", (), ["contrastive"], {"crops of the second view": 1, "segments": 1}),
]
"""Method, settings, loss terms, and what is copied to the GPU besides frames, their sizes, sound and crops."""


def test_the_steps_on_a_gpu_are_of_every_method():
    assert {method for method, *_ in GPU_STEPS} == set(METHOD_SPECS)


@pytest.mark.parametrize(("method", "settings", "terms", "inputs"), GPU_STEPS)
def test_a_step_on_a_gpu_waits_for_nothing_and_copies_each_input_once(batch, method, settings, terms, inputs):
    wanted = (*TINY_METHODS[method], *settings)
    config = resolve_config(parse_settings(wanted), method)
    rate = config.model.rate or 22_050
    sound = torch.zeros(3, int(config.model.seconds * rate), dtype=torch.int16)
    vectors = torch.rand(3, 16, 7, 7)
    hints = HintBatch(
        audio=batch.hints.audio if "audio" in inputs else None,
        visual=vectors if "vectors" in inputs else batch.hints.visual if "visual" in inputs else None,
        visual_present=batch.hints.visual_present,
    )
    segments = torch.zeros(3, 256, 256, dtype=torch.uint8) if "segments" in inputs else None
    batch = replace(batch, sound=sound, rate=rate, hints=hints, segments=segments)
    with narrowed():
        engine = Engine(config.model, CPU, config.precision)
    engine.model.train()
    with fake_gpu() as copies:
        on_gpu(engine.model)
        engine.device = torch.device("cuda")
        for _ in range(2):  # the first copies constants
            copies.clear()
            found = engine.training_step(batch.pin_memory(), config, torch.Generator().manual_seed(0))
    assert sorted(found) == sorted(terms)
    assert all(term.is_cuda for term in found.values())
    assert copies.blocking == []
    assert copies.doubles == [], "mps has no float64"
    assert without_mps(copies.operators) <= {"aten::cudnn_batch_norm"}
    assert len(copies.pinned) == 4 + sum(inputs.values())
    # torchvision's change of hue copies a table for each frame.
    assert set(copies.pageable) <= ({(3, 6)} if method == "sacl" else set())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predictions_in_fp32_are_without_tf32(batch, precision):
    """Convolutions of the encoders and of SSPL's similarity; training steps keep what the process has set."""
    config = resolve_config(parse_settings(TINY_METHODS["sspl"]), "sspl")
    with narrowed():
        engine = Engine(config.model, CPU, precision)
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
