"""PyTorch files from untrusted sources."""

from __future__ import annotations

import zipfile

import pytest
import torch

from avloc.checkpoint import load_model
from avloc.errors import WeightsError


def test_a_decompression_bomb_is_refused(tmp_path):
    torch.save({"model": {"img_proj.weight": torch.zeros(1 << 20)}}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 1 << 16
    with pytest.raises(WeightsError, match=r"bomb\.pth .* claims"):
        load_model(tmp_path / "bomb.pth")
