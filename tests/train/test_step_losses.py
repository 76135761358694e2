"""Loss terms between the device and the host: which are read when, and what stops the run."""

from __future__ import annotations

import pytest
import torch

from avloc.distributed import ALONE
from avloc.errors import Refused
from avloc.train.step_losses import StepLosses

CPU = torch.device("cpu")


def terms(value: float) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(2 * value), "contrastive": torch.tensor(value)}


def test_the_cpu_reads_every_step_at_once():
    losses = StepLosses(CPU, ALONE)
    for step in (1, 2):
        assert losses.send(step, terms(step)).item() == 0
        assert list(losses.read(wait=False)) == [(step, {"loss": 2.0 * step, "contrastive": float(step)})]
    assert list(losses.read(wait=True)) == []


def test_a_device_that_computes_on_its_own_is_read_one_step_late(monkeypatch):
    monkeypatch.setattr("avloc.train.step_losses.LATE_ON", ("cpu",))
    losses = StepLosses(CPU, ALONE)
    read = []
    for step in (1, 2, 3):
        losses.send(step, terms(step))
        read.append([number for number, _ in losses.read(wait=False)])
    assert read == [[], [1], [2]]
    assert [number for number, _ in losses.read(wait=True)] == [3]


@pytest.mark.parametrize("bad", ["inf", "-inf", "nan"])
def test_a_loss_that_is_not_finite_is_found_on_the_device_and_named_with_its_step(monkeypatch, bad):
    monkeypatch.setattr("avloc.train.step_losses.LATE_ON", ("cpu",))
    losses = StepLosses(CPU, ALONE)
    found = [losses.send(step, terms(float(bad) if step == 2 else step)).item() for step in (1, 2, 3)]
    assert found == [0, 1, 0]
    steps = losses.read(wait=False)
    assert next(steps)[0] == 1
    with pytest.raises(Refused, match=f"not finite at step 2: loss {bad}, contrastive {bad}"):
        next(steps)
