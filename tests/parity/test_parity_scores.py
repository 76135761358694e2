"""cIoU of every picture, cIoU@0.5, AUC and the mean against numbers from the published scoring code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from avloc.heatmap import FUSED_WEIGHTS, fuse, heat_maps, median_masks
from avloc.metrics import ciou, ground_truth, summarise
from tests.parity import drawing

SIDE = 224
RULES = {"flickr": "consensus", "vggss": "union"}


def scores(heat: torch.Tensor, boxes: list[np.ndarray], rule: str) -> np.ndarray:
    truths = np.stack([ground_truth(these / 256, rule, SIDE) for these in boxes])
    return ciou(median_masks(heat).numpy(), truths)


def check(heat: torch.Tensor, boxes: list[np.ndarray], rule: str, reference, prefix: str) -> None:
    ours = scores(heat, boxes, rule)
    theirs = reference[f"{prefix}/ciou"]
    deviation = np.abs(ours - theirs)
    assert deviation.max() <= 1e-3  # one pixel may flip where two values are equal up to rounding
    assert np.mean(deviation > 1e-6) <= 0.1
    result = summarise(ours)
    assert abs(result.ciou_50 - reference[f"{prefix}/ap50"]) <= 1 / len(ours) * np.any(deviation > 1e-6) + 1e-12
    assert result.auc == pytest.approx(reference[f"{prefix}/auc"].item(), abs=1e-6 if deviation.max() < 1e-6 else 3e-3)
    assert result.mean_ciou == pytest.approx(reference[f"{prefix}/mean"].item(), abs=1e-4)


def heat(maps: np.ndarray) -> torch.Tensor:
    return heat_maps(torch.from_numpy(maps), (SIDE, SIDE))


@pytest.mark.parametrize("truth", RULES)
@pytest.mark.parametrize("kind", ["av", "obj", "og_0.4", "og_detr"])
def test_parity_avc_scores(truth, kind):
    reference = drawing.vectors("avc")
    listed = json.loads((drawing.folder() / "avc_boxes_256px.json").read_text())
    boxes = [np.array(these, np.float64).reshape(-1, 4) for these in listed]
    av, prior, detr = (heat(reference[f"low_{name}"]) for name in ("av", "obj", "detr"))
    maps = {
        "av": av,
        "obj": prior,
        "og_0.4": fuse([av, prior], [FUSED_WEIGHTS["av"], FUSED_WEIGHTS["object"]]),
        "og_detr": fuse([av, prior, detr], [1 / 3, 1 / 3, 1 / 3]),
    }
    check(maps[kind], boxes, RULES[truth], reference, f"{truth}/{kind}")


@pytest.mark.parametrize("truth", RULES)
@pytest.mark.parametrize("kind", ["av", "obj", "av_obj"])
def test_parity_ezvsl_scores(truth, kind):
    reference = drawing.vectors("ezvsl")
    rows = reference["scoring/boxes_256px"]
    boxes = [rows[rows[:, 0] == image, 1:].astype(np.float64) for image in range(len(reference["scoring/map"]))]
    av, prior = heat(reference["scoring/map"]), heat(reference["scoring/prior"])
    maps = {"av": av, "obj": prior, "av_obj": fuse([av, prior], [0.4, 0.6])}  # EZ-VSL's alpha weighs its own map
    check(maps[kind], boxes, RULES[truth], reference, f"scoring/{truth}/{kind}")
