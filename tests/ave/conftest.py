"""A store of synthetic events, and teachers without weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from avloc.networks.base import BackboneOutput
from avloc.networks.vggish import VGGish
from avloc.weights import VGGISH, Located
from tests.synthetic_ave import CLIPS, KINDS, write_ave


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_ave(tmp_path_factory.mktemp("ave") / "AVE", clips=CLIPS, events=KINDS)


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory) -> Path:
    from avloc.prepare import PrepareOptions, prepare

    out = tmp_path_factory.mktemp("store") / "ave"
    prepare([str(folder)], out, PrepareOptions(layout="ave"))
    return out


class TinyVgg19(nn.Module):
    """A picture's average colours in 49 cells, in place of twenty million weights."""

    def forward(self, frames_B3HW: torch.Tensor) -> BackboneOutput:
        cells = nn.functional.adaptive_avg_pool2d(frames_B3HW, 7).repeat(1, 171, 1, 1)[:, :512]
        return BackboneOutput(cells, prior_features=cells)


@pytest.fixture
def tiny_teachers(monkeypatch, tmp_path):
    """VGG19's file is named after a hash that no made-up weights can have, and the network takes minutes."""
    torch.manual_seed(0)
    weights = tmp_path / "weights" / VGGISH.files[0].name
    weights.parent.mkdir()
    torch.save(VGGish().state_dict(), weights)

    def locate(weight, **_):
        return Located(path=weights, hashes={weight.files[0].name: "0" * 64}, verified=False)

    monkeypatch.setattr("avloc.weights.locate", locate)
    monkeypatch.setattr("avloc.ave.localization.locate", locate)
    monkeypatch.setattr("avloc.ave.teachers.Vgg19Teacher.model", TinyVgg19())
