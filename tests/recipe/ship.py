"""The trained model becomes the one in the package: half precision, measured on unseen files, labelled."""

from __future__ import annotations

from pathlib import Path

import torch

from avloc.checkpoint import default_model, load_model, save_model
from avloc.engine import Engine
from avloc.engine.fusion import RESIZE_KEY
from tests.recipe.measure import RESIZE, calibrated, measured, peaks_of, predict_clips

CARD = {
    "name": "avloc-lite",
    "licence": "non-commercial research use; see avloc/models/LICENCE.md",
    RESIZE_KEY: RESIZE,
    "about": "AVC with EfficientNet-Lite0 and YAMNet, frozen but for the end of the first; that and the projections "
    "learned from concepts, hints and composed scenes of 32 kinds of things. Recipe: python -m tests.recipe",
}
CALIBRATED_ON = 600  # training clips


def ship(run_folder: Path, out: Path) -> dict[str, object]:
    """Write the shipped file and score it as it lies there, numbers rounded to half precision; its scores."""
    run, target = load_model(run_folder), default_model()
    trained = Engine.from_file(run, torch.device("cpu"))
    card = {**run.card, **CARD, **calibrated(*peaks_of(predict_clips(trained, out / "store", first=CALIBRATED_ON)))}
    half = {key: value.half() if value.is_floating_point() else value for key, value in run.state.items()}
    save_model(target, run.config, half, card)
    score = measured(load_model(target), out)
    save_model(target, run.config, half, {**card, "score": score})
    return score
