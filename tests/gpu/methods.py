"""Training steps of every method: the same numbers as on the CPU, and no wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from avloc.engine import weighted_total
from avloc.networks.base import full_float32
from tests.gpu.results import FAILED, Options, Row, at_most, attempted, difference, equal
from tests.training_steps import EVENT_STEPS, STEPS, Step, event_step, localizer_step

CPU = torch.device("cpu")
BARS = {"fp32": (1e-4, 1e-3), "bf16": (2e-2, 2e-2)}
"""Largest errors of loss terms and of gradients, relative to the length of the vector of all of them."""
_IN_FLOAT64 = 1e-6
"""Largest difference of either in float64."""
_SLACK, _MOST = 2.5, 0.1
"""An error may be this many times that of the CPU: gradients of random networks nearly cancel out. The largest bar."""

Maker = Callable[..., Step]
"""Makes the step of a case on a device, with further settings."""
Outputs = tuple[Tensor, Tensor]
"""Loss terms and gradients."""


def _cases(options: Options, *, prefetch: bool = False) -> dict[str, Maker]:
    """Every step by name; in a quick run one of each method."""
    clips = options.size(4, 2)
    cases = [(case.method, case.settings, partial(localizer_step, case, clips, prefetch=prefetch)) for case in STEPS]
    cases += [(method, (setting,), partial(event_step, method, setting, clips)) for method, setting in EVENT_STEPS]
    first = {method: (method, settings, make) for method, settings, make in reversed(cases)}
    chosen = first.values() if options.quick else cases
    return {" ".join((method, *settings)): make for method, settings, make in chosen}


def agreement(options: Options) -> Iterator[Row]:
    """Loss terms and gradients on the device and on the CPU, in float64, in fp32 without TF32, and in bf16."""
    for name, make in _cases(options).items():
        yield from attempted(name, partial(_agreement, options, name, make))


@full_float32()
def _agreement(options: Options, name: str, make: Maker) -> Iterator[Row]:
    exact = _in_float64(make, CPU)
    yield from _same_in_float64(options, name, make, exact)
    if any(isinstance(part, _BatchNorm) for part in make(CPU).model.modules()):
        yield from _same_in_float64(options, f"{name}, statistics of the batch", make, batch_statistics=True)
    # Event methods are trained in fp32.
    only_fp32 = name.startswith("ave") or (options.quick and name != "sspl")
    for precision in ("fp32",) if only_fp32 else BARS:
        mine = _outputs(make(options.device, f"precision={precision}"))
        cpu = _outputs(make(CPU, f"precision={precision}")) if options.on_gpu else mine
        for kind, bar, *found, truth in zip(("terms", "gradients"), BARS[precision], mine, cpu, exact, strict=True):
            if kind == "terms" or _has_exact_gradients(name, precision):
                error, on_cpu = (difference(each, truth) for each in found)
                yield _error(f"{name}: error of {kind}, {precision}", error, on_cpu, bar)


def _has_exact_gradients(name: str, precision: str) -> bool:
    """Whether gradients are more than rounding errors.

    Random networks give almost the same vector for every clip, so that gradients of contrastive terms nearly cancel
    out.
    """
    if precision == "fp32":
        return not ("+classes" in name or name.startswith("sacl"))
    hints = name.startswith("avc") and not {"loss.visual_hint=0", "loss.box=1"} & set(name.split())
    return hints or name.startswith("sspl")


def _error(name: str, error: float, on_cpu: float, bar: float) -> Row:
    """The error on the device, against the bar or the error of the CPU."""
    relative = _SLACK * on_cpu
    if relative > _MOST:
        reason = f"the CPU has an error of {on_cpu:.2g}, too large to compare with"
        return Row(name=name, value=error, outcome=FAILED, reason=reason)
    row = at_most(name, error, max(bar, relative))
    return replace(row, bar=f"{row.bar}, {f'{_SLACK} times that of the CPU' if relative > bar else 'fixed'}")


def _same_in_float64(
    options: Options, name: str, make: Maker, exact: Outputs | None = None, *, batch_statistics: bool = False
) -> Iterator[Row]:
    exact = exact or _in_float64(make, CPU, batch_statistics=batch_statistics)
    mine = _in_float64(make, options.device, batch_statistics=batch_statistics) if options.on_gpu else exact
    for kind, ours, theirs in zip(("terms", "gradients"), mine, exact, strict=True):
        yield at_most(f"{name}: difference of {kind}, float64", difference(ours, theirs), _IN_FLOAT64)


def _in_float64(make: Maker, device: torch.device, *, batch_statistics: bool = False) -> Outputs:
    step = make(device, "precision=fp32")
    step.model.double()
    with patch.object(Tensor, "float", Tensor.double):
        return _outputs(step, batch_statistics=batch_statistics)


def _outputs(step: Step, *, batch_statistics: bool = False) -> Outputs:
    """All loss terms, and all gradients of their weighted sum.

    In eval mode, since layers that draw would differ, but for recurrent layers, of which cuDNN has no gradients there.
    `batch_statistics` is for float64: those of a few random clips magnify rounding by thousands.
    """
    trains = (nn.RNNBase, _BatchNorm) if batch_statistics else (nn.RNNBase,)
    for part in step.model.eval().modules():
        part.train(isinstance(part, trains))
    terms = step.terms()
    weighted_total(terms, step.config.loss).backward()
    gradients = [weight.grad.flatten() for weight in step.model.parameters() if weight.grad is not None]
    return torch.stack([*terms.values()]), torch.cat(gradients)


def waits(options: Options) -> Iterator[Row]:
    """Whole steps, copies and optimiser included, in which an operation that waits for the device is an error."""
    for name, make in _cases(options, prefetch=options.on_gpu).items():
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
