"""Reproducible inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic_inference() -> Iterator[None]:
    """Inference mode in full float32, with deterministic cuDNN kernels and no benchmarking."""
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        yield
