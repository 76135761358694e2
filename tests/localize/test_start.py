"""Start-up: a single picture imports only what it needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from avloc.cli import exit_codes
from tests.program import ROOT, avloc

MEDIA = ROOT / "tests" / "data"
NEEDLESS = {"torchvision", "torch._dynamo", "transformers", "librosa", "panns_inference", "matplotlib", "scipy"}


def test_a_picture_imports_no_unneeded_packages(tmp_path: Path) -> None:
    """Each of these imports takes as long as inference, torchvision as long as torch."""
    inputs = (str(MEDIA / "frame.jpg"), "--audio", str(MEDIA / "sound.wav"))
    result = avloc("localize", *inputs, "--out", str(tmp_path / "heat.png"), loaded=tmp_path / "loaded.txt")
    assert result.returncode == 0, result.stderr
    assert "follows the sound" not in result.stderr, "a caption was drawn, which needs a font"
    loaded = set((tmp_path / "loaded.txt").read_text().split())
    assert "torch" in loaded
    assert not NEEDLESS & loaded


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"OMP_WAIT_POLICY": "active"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")],
)
def test_threads_spin_briefly_unless_configured(
    given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that what is set below is undone
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    exit_codes.run(lambda: None)
    assert os.environ.get("GOMP_SPINCOUNT") == spins
