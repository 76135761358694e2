"""One training step on a batch shared by all processes: `python -m tests.distributed_job OUT [DEVICE]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from avloc.config import AugmentConfig, LossWeights, TrainConfig
from avloc.dataset import Batch
from avloc.distributed import Peers, joined
from avloc.engine import Engine, weighted_total
from avloc.methods import HintBatch
from tests.small_models import SMALL

CLIPS = 7
CPU = torch.device("cpu")
LOSS = LossWeights(audio_hint=3.0, visual_hint=50.0, box=1.0, peak=0.5, same_class="masked")


def part_of_batch(rows: slice, *, vectors: bool) -> Batch:
    """Rows of a fixed batch of seven clips: labels repeat, some clips have no box, some no visual hint."""
    draws = torch.Generator().manual_seed(5)
    kinds = ["dog", "cat", "dog", "siren | dog", "", "cat", "bird"]
    boxes = [np.array([[0.1, 0.1, 0.2 + 0.1 * row, 0.9]] if row % 3 else []).reshape(-1, 4) for row in range(CLIPS)]
    visual = torch.rand(CLIPS, 16, 7, 7, generator=draws) if vectors else torch.rand(CLIPS, 25, 25, generator=draws)
    return Batch(
        ids=[f"c{row}" for row in range(CLIPS)][rows],
        frames=torch.randint(0, 256, (CLIPS, 3, 80, 96), dtype=torch.uint8, generator=draws)[rows],
        sizes=torch.tensor([[80, 96 - row] for row in range(CLIPS)])[rows],
        sound=torch.randint(-9000, 9000, (CLIPS, 12_000), dtype=torch.int16, generator=draws)[rows],
        rate=22_050,
        hints=HintBatch(
            audio=torch.randn(CLIPS, 16, generator=draws)[rows],
            visual=visual[rows],
            visual_present=torch.tensor([False, False, False, True, False, True, True])[rows],
        ),
        boxes=boxes[rows],
        labels=kinds[rows],
        masks=[b""] * len(kinds[rows]),
        failures=[],
        failed_at=[],
    )


def step(
    peers: Peers,
    *,
    vectors: bool,
    device: torch.device = CPU,
    share: Callable[[Engine], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Loss terms, gradients and statistics after one step, in the first process; `share` replaces `Engine.share`."""
    torch.manual_seed(0)
    engine = Engine(SMALL, device)
    engine.model.train()
    # In double precision, so that rounding does not hide errors.
    for trunk in (engine.model.double().imgnet, engine.model.audnet):
        trunk.register_forward_pre_hook(lambda _trunk, given: given[0].double())
    share(engine) if share else engine.share(peers)
    config = TrainConfig(model=SMALL, loss=LOSS, augment=AugmentConfig(scale=1.2))
    batch = part_of_batch(peers.share(CLIPS), vectors=vectors)
    terms = engine.training_step(batch, config, torch.Generator().manual_seed(1))
    weighted_total(terms, LOSS).backward()
    found = {f"term {name}": peers.total(term.detach()) / peers.size for name, term in terms.items()}
    found |= {f"gradient {name}": weight.grad for name, weight in engine.model.named_parameters()}
    found |= {f"statistic {name}": value for name, value in engine.model.named_buffers()}
    return {name: value.cpu() for name, value in found.items()}


def main() -> None:
    device = torch.device(sys.argv[2]) if len(sys.argv) > 2 else CPU
    with joined() as peers:
        found = [step(peers, vectors=vectors, device=device) for vectors in (False, True)]
        if peers.is_first:
            torch.save(found, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
