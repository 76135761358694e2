"""Loss terms of training steps on their way to the host, which reads those of a GPU one step late and never waits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from avloc.distributed import Peers
from avloc.errors import Refused

LATE_ON = ("cuda",)
"""Types of devices that compute while the host goes on."""


@dataclass(frozen=True)
class _Sent:
    step: int
    names: tuple[str, ...]
    values: Tensor
    copied: torch.cuda.Event | None


class StepLosses:
    """Terms that were sent and not yet read."""

    def __init__(self, device: torch.device, peers: Peers) -> None:
        self._device, self._peers = device, peers
        self._sent: list[_Sent] = []

    def send(self, step: int, losses: Mapping[str, Tensor]) -> Tensor:
        """Take the terms of a step; returns 1 if any of them is not finite in any process, else 0, on the device.

        As `found_inf` of a fused optimiser it leaves the weights as they are; that of mps ignores it, and the run stops
        before it saves them.
        """
        values = self._peers.total(torch.stack([*losses.values()]).detach()) / self._peers.size
        not_finite = (~values.isfinite()).any().float()
        copied = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)  # in pinned memory
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(self._device))
        self._sent.append(_Sent(step, tuple(losses), values, copied))
        return not_finite

    def read(self, *, wait: bool) -> Iterator[tuple[int, dict[str, float]]]:
        """Steps and terms since the last call; without `wait` not the newest step of a device in `LATE_ON`.

        Raises:
            Refused: a term is not finite.
        """
        late = 0 if wait or self._device.type not in LATE_ON else 1
        while len(self._sent) > late:
            sent = self._sent.pop(0)
            if sent.copied is not None:
                sent.copied.synchronize()
            values = dict(zip(sent.names, sent.values.tolist(), strict=True))
            if not all(math.isfinite(value) for value in values.values()):
                shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
                hint = "The weights are untouched by this step. Lower optim.lr, or try --set precision=fp32."
                raise Refused(f"the loss is not finite at step {sent.step}: {shown}", hint=hint)
            yield sent.step, values
