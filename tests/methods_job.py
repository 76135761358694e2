"""Losses of LVS, SSPL and SACL on features shared by all processes: `python -m tests.methods_job OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from avloc.config import LossWeights, resolve_config
from avloc.distributed import Peers, joined, share_statistics
from avloc.methods import Embeddings, HintBatch, Supervision, build

CLIPS, GRID, DIM, AUDIO_DIM = 7, 14, 512, 128
METHODS = ("lvs", "sspl", "sacl")


def step(method: str, peers: Peers) -> dict[str, torch.Tensor]:
    """Loss terms and gradients in the first process, in double precision to exclude rounding."""
    torch.manual_seed(0)
    model = build(resolve_config({}, method).model).train()
    model = share_statistics(model.double(), peers)
    draws = torch.Generator().manual_seed(3)
    cells = [F.normalize(torch.randn(CLIPS, DIM, GRID, GRID, generator=draws).double(), dim=1) for _ in range(2)]
    transformed = F.normalize(torch.randn(CLIPS, DIM, generator=draws).double(), dim=1)
    embedded = F.normalize(torch.rand(CLIPS, AUDIO_DIM, generator=draws).double(), dim=1)
    audio = transformed if method == "lvs" else torch.cat((transformed, embedded), 1)
    labels = [torch.randint(0, 3, (CLIPS, 224, 224), generator=draws) for _ in range(2)]
    rows = peers.share(CLIPS)
    leaves = [tensor[rows].requires_grad_() for tensor in (*cells, audio)]
    here = peers.with_rows(len(leaves[0]))
    truth = Supervision(segments=[label[rows] for label in labels])
    embeddings = Embeddings(leaves[0], leaves[2], second=leaves[1])
    terms = model.losses(embeddings, HintBatch(), LossWeights(), truth, here)
    sum(terms.values()).backward()
    found = {f"term {name}": here.total(term.detach()) / here.size for name, term in terms.items()}
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    found |= {f"gradient {name}": here.total(grad) / here.size for name, grad in gradients.items()}
    leaf_grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return found | {
        f"gradient of input {place}": here.gather(grad) / here.size for place, grad in enumerate(leaf_grads)
    }


def main() -> None:
    with joined() as peers:
        found = [step(method, peers) for method in METHODS]
        if peers.is_first:
            torch.save(found, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
