"""Training steps of every method: the same numbers as on the CPU, and no wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn

from avloc.engine import weighted_total
from avloc.networks.base import full_float32
from tests.gpu.results import Options, Row, at_most, attempted, difference, equal
from tests.training_steps import EVENT_STEPS, STEPS, Step, event_step, localizer_step

CPU = torch.device("cpu")
BARS = {"fp32": (1e-4, 1e-3), "bf16": (2e-2, 2e-2)}
"""Largest errors of loss terms and of gradients, relative to the length of the vector of all of them."""
_SLACK = 4
"""How much larger than on the CPU an error may be: gradients of random networks nearly cancel out."""

Maker = Callable[..., Step]
"""Makes the step of a case on a device, with further settings."""


def _cases(options: Options) -> dict[str, Maker]:
    """Every step by name; in a quick run one of each method."""
    clips = options.size(4, 2)
    cases = [(case.method, case.settings, partial(localizer_step, case, clips)) for case in STEPS]
    cases += [(method, (setting,), partial(event_step, method, setting, clips)) for method, setting in EVENT_STEPS]
    first = {method: (method, settings, make) for method, settings, make in reversed(cases)}
    chosen = first.values() if options.quick else cases
    return {" ".join((method, *settings)): make for method, settings, make in chosen}


def agreement(options: Options) -> Iterator[Row]:
    """Loss terms and gradients on the device and on the CPU against float64, in fp32 without TF32 and in bf16."""
    for name, make in _cases(options).items():
        yield from attempted(name, partial(_agreement, options, name, make))


@full_float32()
def _agreement(options: Options, name: str, make: Maker) -> list[Row]:
    exact, out = _in_float64(make), []
    # Event methods are trained in fp32.
    only_fp32 = name.startswith("ave") or (options.quick and name != "avc")
    for precision in ("fp32",) if only_fp32 else BARS:
        mine = _outputs(make(options.device, f"precision={precision}"))
        cpu = _outputs(make(CPU, f"precision={precision}")) if options.on_gpu else mine
        for kind, bar, *found, truth in zip(("terms", "gradients"), BARS[precision], mine, cpu, exact, strict=True):
            error, on_cpu = (difference(each, truth) for each in found)
            out.append(_error(f"{name}: error of {kind}, {precision}", error, on_cpu, bar))
    return out


def _error(name: str, error: float, on_cpu: float, bar: float) -> Row:
    """The error on the device; without a bar where the CPU is too inexact for one."""
    if _SLACK * on_cpu > 0.5:
        return Row(name=name, value=error, reason=f"no bar, {on_cpu:.2g} on the CPU")
    return at_most(name, error, max(bar, _SLACK * on_cpu))


def _in_float64(make: Maker) -> tuple[Tensor, Tensor]:
    step = make(CPU, "precision=fp32")
    step.model.double()
    with patch.object(Tensor, "float", Tensor.double):
        return _outputs(step)


def _outputs(step: Step) -> tuple[Tensor, Tensor]:
    """All loss terms, and all gradients of their weighted sum.

    In eval mode: batch statistics of a few random clips magnify rounding by thousands, and layers that draw differ.
    cuDNN has gradients of recurrent layers in training mode only.
    """
    for part in step.model.eval().modules():
        part.train(isinstance(part, nn.RNNBase))
    terms = step.terms()
    weighted_total(terms, step.config.loss).backward()
    gradients = [weight.grad.flatten() for weight in step.model.parameters() if weight.grad is not None]
    return torch.stack([*terms.values()]), torch.cat(gradients)


def waits(options: Options) -> Iterator[Row]:
    """Whole steps, optimiser included, in which an operation that waits for the device is an error."""
    for name, make in _cases(options).items():
        yield from attempted(name, partial(_waits, options, name, make))


def _waits(options: Options, name: str, make: Maker) -> Iterator[Row]:
    step = make(options.device).whole()
    step()  # computes and copies constants
    try:
        with _waiting_is_an_error(options):
            for _ in range(options.size(3, 1)):
                step()
    except RuntimeError as error:
        yield equal(f"{name}: waits of a step", "some", "none", str(error))
    else:
        yield equal(f"{name}: waits of a step", "none", "none")


@contextmanager
def _waiting_is_an_error(options: Options) -> Iterator[None]:
    if not options.on_gpu:
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
