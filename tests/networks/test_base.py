"""Settings of torch's backends: what each context changes, and that the process has its own again afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
import torch

from avloc.networks.base import allows_tf32, deterministic_inference, fastest_convolutions, full_float32

CUDA = torch.device("cuda")
CUDNN, MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul


def settings() -> dict[str, object]:
    return {
        "benchmark": CUDNN.benchmark,
        "deterministic": CUDNN.deterministic,
        "conv": CUDNN.conv.fp32_precision,
        "rnn": CUDNN.rnn.fp32_precision,
        "matmul": MATMUL.fp32_precision,
    }


@pytest.fixture(params=["torch's own", "TF32 everywhere", "convolutions alone"])
def own(request) -> Iterator[dict[str, object]]:
    """What the process had set."""
    before = settings()
    if request.param == "TF32 everywhere":
        torch.set_float32_matmul_precision("high")
    elif request.param == "convolutions alone":  # torch's older functions refuse to read such a state
        CUDNN.conv.fp32_precision = "ieee"
    yield settings()
    torch.set_float32_matmul_precision("highest")
    CUDNN.conv.fp32_precision = before["conv"]
    MATMUL.fp32_precision = before["matmul"]


FULL = {"conv": "ieee", "rnn": "ieee", "matmul": "ieee"}


@pytest.mark.parametrize(
    ("context", "changes"),
    [
        (full_float32, FULL),
        (fastest_convolutions, {"benchmark": True}),
        (deterministic_inference, {**FULL, "benchmark": False, "deterministic": True}),
    ],
)
def test_a_context_changes_its_settings_and_restores_them(own, context, changes):
    def used(inner: AbstractContextManager[None]) -> None:
        with inner:
            assert settings() == {**own, **changes}
            raise InterruptedError

    with pytest.raises(InterruptedError):
        used(context())
    assert settings() == own


def test_contexts_can_be_nested(own):
    with fastest_convolutions(), full_float32(), deterministic_inference():
        assert settings() == {**FULL, "benchmark": False, "deterministic": True}
        assert torch.is_inference_mode_enabled()
    assert settings() == own


def test_tf32_is_allowed_by_default_on_a_gpu_alone():
    assert allows_tf32(CUDA)
    assert not allows_tf32(torch.device("cpu"))
    with full_float32():
        assert not allows_tf32(CUDA)
