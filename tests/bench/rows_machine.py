"""What the machine can do, so that the other rows can be held against it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.bench.timing import MACHINE, Given, Row, alone


def machine(given: Given, _work: Path) -> list[Row]:
    """Arithmetic and memory of this machine through torch."""
    rows = []
    for kind in (torch.float32, torch.bfloat16):
        name = {torch.float32: "fp32", torch.bfloat16: "bf16"}[kind]
        rows += [_matmul(given, kind, name), _convolution(given, kind, name)]
    return [*rows, _copy(given)]


def _rates(given: Given, work: float, call: Callable[[], object]) -> list[float]:
    """Work a second, each time the best of several calls in a row."""
    call()
    rates = []
    for _ in range(given.repeats):
        spent = []
        for _ in range(3):
            start = time.perf_counter()
            call()
            spent.append(time.perf_counter() - start)
        rates.append(work / min(spent) / 1e9)
    return rates


def _matmul(given: Given, kind: torch.dtype, name: str) -> Row:
    side = 256 if given.quick else 2048
    left, right = (torch.randn(side, side).to(kind) for _ in range(2))
    rates = _rates(given, 2 * side**3, lambda: left @ right)
    return alone("machine", f"matrix product {side} x {side}, {name}", rates, "GFLOP/s", side=MACHINE)


@torch.inference_mode()
def _convolution(given: Given, kind: torch.dtype, name: str) -> Row:
    batch, channels, side = (2, 32, 14) if given.quick else (32, 128, 28)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(kind, memory_format=torch.channels_last)
    cells = torch.randn(batch, channels, side, side).to(kind, memory_format=torch.channels_last)
    rates = _rates(given, 2 * batch * side**2 * channels**2 * 9, lambda: layer(cells))
    what = f"3 x 3 convolution, {batch} x {channels} x {side} x {side}, channels last, {name}"
    return alone("machine", what, rates, "GFLOP/s", side=MACHINE)


def _copy(given: Given) -> Row:
    source = torch.ones(2**20 if given.quick else 2**27)
    target = torch.empty_like(source)
    rates = _rates(given, 2 * source.nbytes, lambda: target.copy_(source))
    return alone("machine", f"copy of {source.nbytes >> 20} MiB, bytes read and written", rates, "GB/s", side=MACHINE)
