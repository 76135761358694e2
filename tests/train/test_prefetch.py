"""Copies of batches beside the step: the same batches in the same order, one in advance, on a stream of their own."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from avloc.config import parse_settings, resolve_config
from avloc.dataset import Batch
from avloc.engine import Engine
from avloc.errors import Refused
from avloc.methods import HintBatch
from avloc.train import prefetch
from avloc.train.prefetch import prefetched
from tests.fake_gpu import fake_gpu, on_gpu
from tests.small_models import TINY_METHODS, narrowed

GPU = torch.device("cuda")


def batch_of(number: int) -> Batch:
    return Batch(
        ids=[f"{number}"],
        frames=torch.full((1, 3, 4, 4), number, dtype=torch.uint8),
        sizes=torch.tensor([[4, 4]]),
        sound=torch.full((1, 9), number, dtype=torch.int16),
        rate=16_000,
        segments=torch.full((1, 256, 256), number, dtype=torch.uint8),
        hints=HintBatch(audio=torch.full((1, 2), 0.5), visual=torch.ones(1, 5, 5), visual_present=torch.tensor([True])),
        boxes=[np.zeros((0, 4))],
        labels=[""],
        masks=[b""],
        failures=[],
        failed_at=[],
    )


@dataclass
class Streams:
    """A stand-in for the streams of CUDA; `log` lists what happens, each with the name of its stream."""

    log: list[tuple[str, str]] = field(default_factory=list)
    current: str = "computing"

    def wait_stream(self, other: Streams) -> None:
        assert other is self
        self.log.append((self.current, "waits"))

    @contextmanager
    def copying(self, stream: Streams):
        assert stream is self
        self.current = "copying"
        yield
        self.current = "computing"


@pytest.fixture
def streams(monkeypatch):
    """Streams with which `prefetched` runs without a GPU."""
    stand_in = Streams()
    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: stand_in)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: stand_in)
    monkeypatch.setattr(torch.cuda, "stream", stand_in.copying)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _tensor, _stream: stand_in.log.append(("kept", "")))
    return stand_in


@pytest.fixture
def copied(streams, monkeypatch):
    """Tensors that were "copied": real ones, cloned."""
    sources = []

    def on_device(tensor, device):
        assert device == GPU
        streams.log.append((streams.current, "copies"))
        sources.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(prefetch, "on_device", on_device)
    return sources


def loader(streams, count, failing=None):
    for number in range(count):
        streams.log.append(("loader", f"{number}"))
        if number == failing:
            raise Refused("the clip is damaged")
        yield batch_of(number)


def test_batches_are_equal_and_one_is_in_advance(streams, copied):
    for number, batch in enumerate(prefetched(loader(streams, 3), GPU)):
        streams.log.append(("step", f"{number}"))
        expected = batch_of(number)
        for part, other in ((batch, expected), (batch.hints, expected.hints)):
            for each in fields(part):
                ours, theirs = getattr(part, each.name), getattr(other, each.name)
                if isinstance(theirs, torch.Tensor):
                    assert torch.equal(ours, theirs), each.name
                elif each.name not in ("hints", "boxes"):
                    assert ours == theirs, each.name
        assert not {id(batch.sizes), id(batch.hints.visual_present)} & {id(source) for source in copied}
    once = [("copying", "copies"), ("kept", "")]
    for number in range(3):
        start, end = streams.log.index(("loader", f"{number}")), streams.log.index(("step", f"{number}"))
        assert streams.log[start + 1 : end] == [*(once * 5), ("computing", "waits")]
    order = [what for what in streams.log if what[0] in ("loader", "step")]
    assert order == [(who, f"{number}") for number in range(3) for who in ("loader", "step")]


def test_an_error_of_the_loader_comes_in_place_of_its_batch(streams, copied):
    done = []
    with pytest.raises(Refused, match="damaged"):
        done += (batch.ids for batch in prefetched(loader(streams, 5, failing=2), GPU))
    assert done == [["0"], ["1"]]


def test_a_stop_ends_the_loader(streams, copied):
    """As the loop stops: by leaving it. The loader's processes end with its iterator."""
    ended = []

    def endless():
        try:
            while True:
                yield batch_of(0)
        finally:
            ended.append(True)

    for _ in prefetched(endless(), GPU):
        assert not ended
        break
    assert ended == [True]


def test_a_pinned_batch_is_copied_without_waiting(streams):
    batch = batch_of(1)
    with fake_gpu() as copies, patch.object(torch.Tensor, "record_stream", lambda *_: None):
        (there,) = prefetched([batch.pin_memory()], GPU)
    assert there.frames.is_cuda
    assert there.hints.visual.is_cuda
    assert (there.sizes.device.type, there.hints.visual_present.device.type) == ("cpu", "cpu")
    assert (copies.blocking, copies.pageable, len(copies.pinned)) == ([], [], 5)


def test_a_step_on_a_prefetched_batch_waits_for_nothing(streams):
    config = resolve_config(parse_settings(TINY_METHODS["avc"]), "avc")
    with narrowed():
        engine = Engine(config.model, torch.device("cpu"))
    sound = torch.zeros(1, int(config.model.seconds * config.model.rate), dtype=torch.int16)
    hints = replace(batch_of(1).hints, audio=torch.rand(1, config.model.dim))
    batch = replace(batch_of(1), sound=sound, rate=config.model.rate, hints=hints)
    with fake_gpu() as copies, patch.object(torch.Tensor, "record_stream", lambda *_: None):
        on_gpu(engine.model)
        engine.device = GPU
        for there in prefetched([batch.pin_memory()] * 2, GPU):
            copies.clear()  # constants of the first step
            terms = engine.training_step(there, config, torch.Generator())
    assert set(terms) == {"contrastive", "audio_hint", "visual_hint"}
    assert (copies.blocking, copies.pageable) == ([], [])
    assert sorted(copies.pinned) == [(1, 2), (5, 1)], "sizes and crops"
