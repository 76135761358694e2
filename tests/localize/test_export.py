"""Models as ONNX files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import avloc
from avloc.errors import UsageError
from tests.small_models import SMALL, save_small

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter, under several modules


@pytest.mark.slow
@pytest.mark.parametrize("rate", [16_000, 0])
def test_onnxruntime_gives_the_same_cells_for_any_batch(rate: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra dev is from before avloc[onnx]")
    onnxruntime = pytest.importorskip("onnxruntime")
    config = replace(SMALL, seconds=1.0, rate=rate, **({} if rate else {"method": "ezvsl"}))
    model = avloc.load(save_small(tmp_path / "small.safetensors", config), device="cpu", prior="none")
    path = avloc.export(model, tmp_path / "small.onnx", rate=None if rate else 22_050)
    assert [each.name for each in tmp_path.iterdir() if "onnx" in each.name] == ["small.onnx"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["rate"], facts["side"]) == (str(rate or 22_050), "64")
    assert (facts["model_sha256"], facts["licence"]) == (model.sha256, "")
    random = np.random.default_rng(0)
    for batch in (1, 3):
        frames = random.integers(0, 256, (batch, 64, 64, 3), np.uint8)
        sounds = random.normal(0, 0.1, (batch, int(facts["rate"]))).astype(np.float32)
        (cells,) = session.run(None, {"frames": frames.transpose(0, 3, 1, 2), "sound": sounds})
        results = [model.localize(*pair, int(facts["rate"])) for pair in zip(frames, sounds, strict=True)]
        expected = np.stack([result.similarity for result in results])
        np.testing.assert_allclose(cells, expected, rtol=0, atol=1e-4)
        assert np.ptp(expected) > 1e-3


def test_what_cannot_be_exported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avloc.localize.export.find_spec", lambda _name: object())
    path = save_small(tmp_path / "small.safetensors", replace(SMALL, rate=16_000))
    own_rate = save_small(tmp_path / "own.safetensors", replace(SMALL, method="ezvsl", rate=0))
    model, half = avloc.load(path), avloc.load(path, precision="bf16")
    for refused, rate, words in (
        (half, None, "bf16"),
        (model, 8_000, "16000 Hz"),
        (avloc.load(own_rate), None, "rate="),
        (avloc.load(own_rate), -1, "rate="),
    ):
        with pytest.raises(UsageError, match=words):
            avloc.export(refused, tmp_path / "new.onnx", rate=rate)
    monkeypatch.setattr("avloc.localize.export.find_spec", lambda _name: None)
    with pytest.raises(UsageError) as caught:
        avloc.export(model, tmp_path / "new.onnx")
    assert "avloc[onnx]" in caught.value.hint
    assert not (tmp_path / "new.onnx").exists()
