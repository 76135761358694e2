"""Benchmark rows for the machine itself, as a baseline for the other rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.bench.timing import MACHINE, Options, Row, alone


def machine(options: Options, _work: Path) -> list[Row]:
    """Throughput of arithmetic and memory through torch."""
    rows = []
    for kind in (torch.float32, torch.bfloat16):
        name = {torch.float32: "fp32", torch.bfloat16: "bf16"}[kind]
        rows += [_matmul(options, kind, name), _convolution(options, kind, name)]
    return [*rows, _copy(options)]


def _rates(options: Options, work: float, call: Callable[[], object]) -> list[float]:
    """Rates in units of 1e9 per second, each the best of three consecutive calls."""
    call()
    rates = []
    for _ in range(options.repeats):
        spent = []
        for _ in range(3):
            start = time.perf_counter()
            call()
            spent.append(time.perf_counter() - start)
        rates.append(work / min(spent) / 1e9)
    return rates


def _matmul(options: Options, kind: torch.dtype, name: str) -> Row:
    side = 256 if options.quick else 2048
    left, right = (torch.randn(side, side).to(kind) for _ in range(2))
    rates = _rates(options, 2 * side**3, lambda: left @ right)
    return alone("machine", f"matrix product {side} x {side}, {name}", rates, "GFLOP/s", side=MACHINE)


@torch.inference_mode()
def _convolution(options: Options, kind: torch.dtype, name: str) -> Row:
    batch, channels, side = (2, 32, 14) if options.quick else (32, 128, 28)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(kind, memory_format=torch.channels_last)
    cells = torch.randn(batch, channels, side, side).to(kind, memory_format=torch.channels_last)
    rates = _rates(options, 2 * batch * side**2 * channels**2 * 9, lambda: layer(cells))
    what = f"3 x 3 convolution, {batch} x {channels} x {side} x {side}, channels last, {name}"
    return alone("machine", what, rates, "GFLOP/s", side=MACHINE)


def _copy(options: Options) -> Row:
    source = torch.ones(2**20 if options.quick else 2**27)
    target = torch.empty_like(source)
    rates = _rates(options, 2 * source.nbytes, lambda: target.copy_(source))
    return alone("machine", f"copy of {source.nbytes >> 20} MiB, bytes read and written", rates, "GB/s", side=MACHINE)
