"""Training steps of every method on random data in memory: on the fake GPU, on a real one, and in the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count, repeat
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from avloc.config import ModelConfig, TrainConfig, parse_settings, resolve_config
from avloc.dataset import Batch
from avloc.distributed import ALONE
from avloc.engine import Engine, weighted_total
from avloc.methods import HintBatch
from avloc.methods.base import Group
from avloc.networks.base import fastest_convolutions
from avloc.train.loop import make_optimiser
from avloc.train.prefetch import prefetched
from avloc.train.step_losses import StepLosses
from avloc.transforms import on_device
from tests.small_models import TINY_METHODS, narrowed


class StepCase(NamedTuple):
    """A training step of a localizer."""

    method: str
    settings: tuple[str, ...]
    terms: tuple[str, ...]
    """Names of its loss terms."""
    inputs: Mapping[str, int]
    """What is copied to a GPU besides frames, their sizes, sound and crops."""

    def __str__(self) -> str:
        return " ".join((self.method, *self.settings))


_LABELLED = ("loss.same_class=masked", "loss.box=1", "loss.peak=1")
_CLASS_SCORES = (
    "model.vision_trunk=efficientnet_lite0+classes",
    "model.audio_trunk=yamnet+classes",
    "model.rate=16000",
)
STEPS = (
    StepCase(
        "avc",
        (),
        ("contrastive", "audio_hint", "visual_hint"),
        {"audio": 1, "visual": 1, "rows with a visual hint": 1},
    ),
    StepCase(
        "avc", ("loss.audio_hint=0",), ("contrastive", "visual_hint"), {"vectors": 1, "rows with a visual hint": 1}
    ),
    StepCase("avc", ("loss.audio_hint=0", "loss.visual_hint=0", "precision=bf16"), ("contrastive",), {}),
    *(
        StepCase(method, _LABELLED, ("contrastive", "box", "peak"), {"anchors and ignored": 2, "box": 2, "peak": 2})
        for method in ("avc", "ezvsl")
    ),
    StepCase("ezvsl", (), ("contrastive",), {}),
    StepCase("ezvsl", _CLASS_SCORES, ("contrastive",), {}),
    StepCase("lvs", (), ("contrastive",), {}),
    StepCase("lvs", ("loss.same_class=masked",), ("contrastive",), {"anchors and ignored": 2}),
    StepCase("sspl", (), ("agreement",), {"crops of the second view": 1}),
    StepCase("sspl", ("sspl.pcm=false",), ("agreement",), {"crops of the second view": 1}),
    StepCase("sacl", (), ("contrastive",), {"crops of the second view": 1, "segments": 1}),
)
"""Every method, with every loss term."""


@dataclass(frozen=True)
class Step:
    """A training step that can be repeated."""

    model: nn.Module
    groups: list[Group]
    config: TrainConfig
    device: torch.device
    terms: Callable[[], dict[str, Tensor]]
    """Unweighted loss terms, with the same random numbers at each call."""

    def whole(self) -> Callable[[], None]:
        """A function that makes the next step as `avloc.train.loop` does: loss, check, gradients, Adam."""
        optimiser = make_optimiser(self.groups, self.config.optim)
        losses, numbers = StepLosses(self.device, ALONE), count(1)

        @fastest_convolutions()
        def step() -> None:
            terms = self.terms()
            total = weighted_total(terms, self.config.loss)
            optimiser.found_inf = losses.send(next(numbers), {"loss": total, **terms})
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            optimiser.step()
            list(losses.read(wait=False))

        return step


def random_batch(clips: int = 3, *, side: int = 64, samples: int = 12_000, rate: int = 22_050, dim: int = 16) -> Batch:
    """A batch with both hints, labels and boxes; one clip has no visual hint, one no box."""
    generator = torch.Generator().manual_seed(0)
    boxes = [np.zeros((0, 4)), np.array([[0.0, 0.0, 0.5, 1.0]]), np.array([[0.25, 0.25, 0.75, 0.75]])]
    labels = ["dog", "dog | dog, cat", "siren | cat"]
    return Batch(
        ids=[f"clip{number}" for number in range(clips)],
        frames=torch.randint(0, 256, (clips, 3, side, side), dtype=torch.uint8, generator=generator),
        sizes=torch.full((clips, 2), side),
        sound=torch.randint(-9000, 9000, (clips, samples), dtype=torch.int16, generator=generator),
        rate=rate,
        hints=HintBatch(
            audio=torch.randn(clips, dim, generator=generator),
            visual=torch.rand(clips, 25, 25, generator=generator),
            visual_present=torch.arange(clips) != 1,
        ),
        boxes=[boxes[number % 3] for number in range(clips)],
        labels=[labels[number % 3] for number in range(clips)],
        masks=[b""] * clips,
        failures=[],
        failed_at=[],
    )


def inputs_of(case: StepCase, model: ModelConfig, clips: int = 3) -> Batch:
    """A random batch with the inputs of a case."""
    rate = model.rate or 22_050
    batch = random_batch(clips, samples=int(model.seconds * rate), rate=rate)
    generator = torch.Generator().manual_seed(1)
    vectors = torch.rand(clips, 16, 7, 7, generator=generator)
    hints = HintBatch(
        audio=batch.hints.audio if "audio" in case.inputs else None,
        visual=vectors if "vectors" in case.inputs else batch.hints.visual if "visual" in case.inputs else None,
        visual_present=batch.hints.visual_present,
    )
    regions = torch.randint(0, 4, (clips, 4, 4), dtype=torch.uint8, generator=generator)
    segments = regions.repeat_interleave(64, 1).repeat_interleave(64, 2) if "segments" in case.inputs else None
    return replace(batch, hints=hints, segments=segments)


def case_config(case: StepCase, *settings: str) -> TrainConfig:
    """The configuration of a case, with further settings."""
    return resolve_config(parse_settings([*TINY_METHODS[case.method], *case.settings, *settings]), case.method)


def small_engine(config: TrainConfig, device: torch.device = torch.device("cpu")) -> Engine:  # noqa: B008
    """A small engine in training mode; its weights are drawn on the CPU, so that they are the same on every device."""
    torch.manual_seed(0)
    with narrowed():
        engine = Engine(config.model, device, config.precision)
    engine.model.train()
    return engine


def engine_step(engine: Engine, batch: Batch, config: TrainConfig, *, prefetch: bool = False) -> Step:
    """Training steps of a localizer on one batch, from pinned memory if it is for a GPU.

    `prefetch` copies it as `avloc train` does; otherwise the step copies it.
    """
    batches = repeat(batch.pin_memory() if engine.device.type == "cuda" else batch)
    batches = prefetched(batches, engine.device) if prefetch else batches
    return Step(
        model=engine.model,
        groups=engine.model.groups(),
        config=config,
        device=engine.device,
        terms=lambda: engine.training_step(next(batches), config, torch.Generator().manual_seed(0)),
    )


def localizer_step(case: StepCase, clips: int, device: torch.device, *settings: str, prefetch: bool = False) -> Step:
    """A step of a case on a device, with some clips."""
    config = case_config(case, *settings)
    inputs = inputs_of(case, config.model, clips)
    return engine_step(small_engine(config, device), inputs, config, prefetch=prefetch)


EVENT_STEPS = (
    *(("ave", f"ave.{name}=true") for name in ("weak", "dmrn", "cross_entropy")),
    ("ave", "ave.classes=28"),
    ("ave-match", "ave_match.margin=1.0"),
)
"""Method and setting."""


def event_step(method: str, setting: str, clips: int, device: torch.device, *settings: str) -> Step:
    """A step of an event method on random features."""
    from avloc.ave.networks import Features, build_network
    from tests.synthetic_ave import features

    config = resolve_config(parse_settings([setting, *settings]), method)
    torch.manual_seed(0)
    network = build_network(config.model).to(device)
    made = features(clips, 10)
    named = ("visual", "audio", "labels", "clips")
    moved = {name: on_device(getattr(made, name), device) for name in named}

    def terms() -> dict[str, Tensor]:
        cast = {name: moved[name].to(next(network.parameters()).dtype) for name in ("visual", "audio")}
        return network(Features(**moved | cast, background=made.background))

    return Step(network, network.groups(), config, device, terms)
