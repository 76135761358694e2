"""The benchmark's reference agrees with avloc, and the benchmark runs. No test here measures time."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avloc.config import LossWeights, ModelConfig
from avloc.engine import ClipCells, score_clips
from avloc.heatmap import heat_maps
from avloc.losses import audio_hint, contrastive, visual_hint
from avloc.media.video_frames import read_moment
from avloc.methods import Embeddings, build
from avloc.metrics import ground_truth
from avloc.protocols import Protocol
from avloc.transforms import log_spectrogram
from tests.bench import material, reference, reference_scoring, rows_data
from tests.bench.run import ROWS, format_row, format_table
from tests.bench.timing import Lap, alone, compared, interleaved, python


@pytest.fixture
def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(5, 12, 7, 7, generator=draws), dim=1)
    return image, F.normalize(torch.randn(5, 12, generator=draws), dim=1)


def test_spectrograms_agree():
    sound = material.sound(3)
    ours = log_spectrogram(torch.from_numpy(sound)[None], material.RATE)[0]
    theirs = reference.log_spectrogram(sound, material.RATE)
    assert theirs.shape == (1, 257, 276)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_losses_agree(vectors):
    image, audio = vectors
    torch.testing.assert_close(reference.contrastive(image, audio), contrastive(image, audio, reference.TAU))
    audio_hints, visual_hints = F.normalize(torch.rand(5, 12), dim=1), torch.rand(5, 25, 25)
    visual_hints[2, 0, 0] = torch.nan
    present = torch.tensor([True, True, False, True, True])
    weights = LossWeights()
    ours = weights.audio_hint * audio_hint(audio, audio_hints) + weights.visual_hint * visual_hint(
        image, visual_hints, present
    )
    torch.testing.assert_close(reference.distillation(image, audio, audio_hints, visual_hints), ours)


def test_networks_agree():
    torch.manual_seed(0)
    config = ModelConfig(dim=16)
    ours = build(config).eval()
    theirs = reference.ReferenceNet(config.dim).eval()
    theirs.load_state_dict(ours.state_dict())
    frames, spectrograms = torch.randn(2, 3, 64, 64), torch.randn(2, 1, 257, 60)
    with torch.inference_mode():
        cells = ours.similarity(Embeddings(ours.encode_image(frames)[0], ours.encode_audio(spectrograms)))
        expected = reference_scoring.similarity_maps(theirs, frames, spectrograms) * reference.TAU
    torch.testing.assert_close(cells, expected)


def test_scores_agree():
    draws = np.random.default_rng(0)
    cells = torch.from_numpy(draws.random((1, 7, 7), np.float32))
    boxes = [[0.1, 0.2, 0.7, 0.9], [0.5, 0.0, 1.2, 0.4]]
    heat = heat_maps(cells, (224, 224))[0].numpy()
    theirs = reference_scoring.min_max(reference_scoring.upsampled(cells)[0])
    np.testing.assert_allclose(theirs, heat, atol=1e-6)
    truth = ground_truth(np.array(boxes), "union", 224)
    np.testing.assert_array_equal(reference_scoring.ground_truth(boxes), truth)
    clip = ClipCells(id="a", boxes=np.array(boxes), maps={"av": cells[0].numpy()})
    (score,) = score_clips([clip], {"av": 1.0}, Protocol(), "union")
    assert reference_scoring.ciou(heat, truth) == pytest.approx(score.ciou)


def test_middle_frames_agree(tmp_path):
    (path,) = material.videos(tmp_path / "videos", 1, seconds=3.5)
    moment = read_moment(path, seconds=3.0)
    frame = rows_data.decode_needed(path, 3.0)
    assert frame.time == moment.time_s
    np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), moment.picture)


def test_contenders_are_called_alternately():
    calls = []
    spent = interleaved(2, {"reference": lambda: calls.append("a"), "avloc": lambda: calls.append("b")}, warm=False)
    assert calls == ["a", "b", "a", "b"]
    assert {name: len(values) for name, values in spent.items()} == {"reference": 2, "avloc": 2}


def test_a_ratio_above_one_means_avloc_is_faster():
    walls = {"reference": [2.0, 6.0, 4.0], "avloc": [1.0, 2.0, 3.0]}
    spent = {name: [Lap(wall, 2 * wall) for wall in own] for name, own in walls.items()}
    less = compared("name", "what", spent)
    assert (less["reference"]["median"], less["avloc"]["median"], less["ratio"]) == (4.0, 2.0, 2.0)
    assert less["processor_s"] == {"reference": 8.0, "avloc": 4.0}
    more = compared("name", "what", spent, work=12, unit="clips/s")
    assert (more["reference"]["median"], more["avloc"]["median"], more["ratio"]) == (3.0, 6.0, 2.0)
    assert "reference 3 [2 .. 6], avloc 6 [4 .. 12] clips/s  x 2.00" in format_row(more)
    assert "| name | 3 [2 .. 6] | 6 [4 .. 12] | clips/s | 2.00 |" in format_table([more])
    assert "ratio" not in format_row(alone("name", "what", [1.0]))


def test_the_benchmark_runs(tmp_path):
    rows = ("scoring", "loading")
    arguments = [part for name in rows for part in ("--row", name)]
    out = python("-m", "tests.bench", "--quick", "--repeats", 2, *arguments, "--json", tmp_path / "out.json").stdout
    written = json.loads((tmp_path / "out.json").read_text())
    assert {"python", "torch", "processor", "cores", "threads", "ratio"} <= written["header"].keys()
    names = [row["row"] for row in written["rows"]]
    assert names[:2] == ["scoring", "loading"]
    for row in written["rows"]:
        assert {"row", "what", "unit", "reference", "avloc", "ratio"} <= row.keys()
        assert row["row"] in out
        assert len(row["avloc"]["all"]) == 2
    assert all(row["reference"] and row["ratio"] > 0 for row in written["rows"][1:])
    assert written["rows"][-1]["bytes_of_hints"].keys() == {"reference", "avloc"}


def test_rows_can_be_selected_by_name():
    assert {"machine", "prepare", "distill-cache", "loading", "training step", "evaluation"} <= ROWS.keys()
