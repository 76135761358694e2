"""Rates of training steps in memory beside the ceiling of their convolutions, and their peak memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avloc.config import TrainConfig
from avloc.engine import Engine
from avloc.networks.base import fastest_convolutions
from tests.gpu.results import Options, Row, Skipped, attempted
from tests.small_models import SMALL
from tests.training_steps import engine_step, random_batch

BATCHES = (128, 256, 512, 1024)
_QUICK_BATCHES = (2, 4)


def steps(options: Options) -> Iterator[Row]:
    """AVC with two ResNet18 in bf16, from uint8 frames and int16 sound in memory, with both hints."""
    for batch in _QUICK_BATCHES if options.quick else BATCHES:
        yield from attempted(f"step of {batch}", partial(_steps, options, batch))


def _steps(options: Options, batch: int) -> Iterator[Row]:
    if options.left_s() < 60 and not options.quick:
        raise Skipped("less than a minute is left")
    config = TrainConfig(model=SMALL if options.quick else TrainConfig().model, init="random", precision="bf16")
    engine = Engine(config.model, options.device, config.precision)
    engine.model.train()
    samples = int(config.model.seconds * config.model.rate)
    inputs = random_batch(batch, side=256, samples=samples, rate=config.model.rate, dim=config.model.dim)
    step = engine_step(engine, inputs, config)
    shapes = _convolutions(step.model, step.terms)
    ceiling = batch / _seconds_of(shapes, options)
    if options.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(options.device)
    rate = batch / options.seconds(step.whole(), options.size(10, 1), warm=options.size(5, 1))
    yield Row(name=f"step of {batch}", value=rate, unit="pairs/s")
    yield Row(name=f"ceiling of its convolutions in bf16, {batch}", value=ceiling, unit="pairs/s")
    yield Row(name=f"share of the ceiling, {batch}", value=rate / ceiling)
    if options.on_gpu:
        peak = torch.cuda.max_memory_allocated(options.device)
        yield Row(name=f"peak memory, {batch}", value=peak / 1e9, unit="GB")


_Shape = tuple[torch.Size, nn.Conv2d]


def _convolutions(model: nn.Module, run: Callable[[], object]) -> list[_Shape]:
    """Input shape and layer of each convolution that a step runs."""
    found: list[_Shape] = []
    hooks = [
        part.register_forward_pre_hook(lambda layer, inputs: found.append((inputs[0].shape, layer)))
        for part in model.modules()
        if isinstance(part, nn.Conv2d)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return found


@fastest_convolutions()
def _seconds_of(shapes: list[_Shape], options: Options) -> float:
    """Forward and backward seconds of the convolutions alone, each timed by itself in bf16, channels last."""
    counted = Counter(
        (tuple(shape), tuple(layer.weight.shape), layer.stride, layer.padding, layer.groups) for shape, layer in shapes
    )
    return sum(_one(options, *key) * times for key, times in counted.items())


def _one(
    options: Options,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
) -> float:
    given, kernel = (_random(options, size) for size in (shape, weight))
    given.requires_grad_(shape[1] > 3)  # the input of the networks needs no gradient
    kernel.requires_grad_()
    wanted = [each for each in (given, kernel) if each.requires_grad]
    out = F.conv2d(given, kernel, None, stride, padding, groups=groups)
    gradient = torch.ones_like(out)

    def both() -> None:
        again = F.conv2d(given, kernel, None, stride, padding, groups=groups)
        torch.autograd.grad(again, wanted, gradient)

    return options.seconds(both, options.size(5, 1), warm=options.size(3, 1))


def _random(options: Options, size: tuple[int, ...]) -> Tensor:
    values = torch.randn(size, device=options.device, dtype=torch.bfloat16)
    return values.to(memory_format=torch.channels_last)
