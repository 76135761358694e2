"""Cross-modal matching: the loss."""

from __future__ import annotations

import pytest
import torch

from avloc.ave.matching import AveMatch, distance, pool
from avloc.ave.networks import Features
from avloc.config import ModelConfig
from tests.synthetic_ave import features


def test_the_contrastive_loss_equals_a_loop():
    model = AveMatch(ModelConfig(method="ave-match", dim=512, own={"margin": 0.5}))
    batch = features(2, 3)
    labels = torch.tensor([[28, 1, 1], [28, 28, 7]])
    batch = Features(visual=batch.visual, audio=batch.audio, labels=labels)
    with torch.no_grad():
        apart = distance(model.visual(batch.visual.mean((2, 3))), model.audio(batch.audio))
    slow = [d**2 if c < 28 else max(0.5 - d, 0) ** 2 for d, c in zip(apart.flatten(), labels.flatten(), strict=True)]
    (loss,) = model.losses(batch).values()
    assert loss.item() == pytest.approx(float(sum(slow)) / 6)
    once = Features(visual=pool(batch.visual)[:, :, None, None], audio=batch.audio, labels=labels)
    torch.testing.assert_close(model.losses(once), {"contrastive": loss})
    same = torch.ones(4, requires_grad=True)
    distance(same, torch.ones(4)).backward()
    assert same.grad.isfinite().all()
