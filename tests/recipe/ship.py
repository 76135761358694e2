"""The fitted model becomes the one in the package: half precision, measured on unseen files, labelled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avloc.checkpoint import ModelFile, default_model, load_model, save_model
from avloc.engine import Engine
from avloc.engine.fusion import RESIZE_KEY
from avloc.errors import Refused
from avloc.files import read_json_object
from tests.recipe.compose import SPLIT, check_composed
from tests.recipe.folds import RESULTS as FOLDS_FILE
from tests.recipe.folds import read_results
from tests.recipe.measure import RESIZE, calibrated, measured, peaks_of, predict_clips
from tests.recipe.people import RESULTS as PEOPLE_FILE
from tests.recipe.people import read_people
from tests.recipe.split import credited

LITE, OPEN = "avloc-lite", "avloc-open"
LICENCES = {LITE: "non-commercial research use; see avloc/models/LICENCE.md", OPEN: "Apache-2.0"}
CARD = {
    RESIZE_KEY: RESIZE,
    "about": "AVC with EfficientNet-Lite0 and YAMNet, frozen but for their last blocks, which were trained on composed "
    "clips; projections fitted on {}. Recipe: python -m tests.recipe",
}
FITTED_ON = {
    LITE: "labelled pictures and sounds, scenes and recorded clips",
    OPEN: "labelled pictures and sounds and scenes",
}
CALIBRATED_ON = 600  # training clips of avloc-open
REAL = (
    *("clips", "moments", "auc", "auc_by_fold", "auc_by_kind", "peak_auc"),
    *("match_auc", "ece", "ece_wrong_twice", "verdicts", "reliability"),
)
"""Of the five-fold results, what the card has under `real`."""
RATED = ("match_auc", "ece", "ece_wrong_twice", "verdicts", "reliability")
"""Of these, what depends on a calibration on real clips."""
PEOPLE = ("clips", "moments", "share", "centre")
"""The same of people who speak, under `people`."""


def target_of(out: Path, model: str) -> Path:
    """Where a model is written: `avloc-lite` into the package, `avloc-open` into `out`."""
    return default_model() if model == LITE else out / f"{model}.safetensors"


def score_of_shipped(folder: Path, out: Path, model: str) -> dict[str, object] | None:
    """The scores of the shipped file if it was made of the fitted model in `folder`; else None."""
    target = target_of(out, model)
    card = load_model(target).card if target.is_file() else {}
    return card.get("score") if card.get("fit") == load_model(folder).card["fit"] else None


def ship(folder: Path, out: Path, model: str = LITE) -> dict[str, object]:
    """Write the shipped file and score it as it lies there, numbers rounded to half precision; its scores.

    Args:
        folder: of the fitted model.
        out: the folder of everything that was made.
        model: `avloc-lite` or `avloc-open`.

    Raises:
        Refused: what is in `out` was made for the other model, or its results are those of another fit.
    """
    check_composed(out, open_only=model == OPEN)
    fitted, target = load_model(folder), target_of(out, model)
    card = {**fitted.card, "name": model, "licence": LICENCES[model], **CARD}
    card["about"] = CARD["about"].format(FITTED_ON[model])
    card |= _calibration(fitted, out, model) | {"sources": _sources(out)}
    state, cohort = _half(fitted.state), _half(fitted.cohort)
    save_model(target, fitted.config, state, card, cohort)
    score = measured(load_model(target), out)
    save_model(target, fitted.config, state, {**card, "score": score}, cohort)
    return score


def _half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}


def _sources(out: Path) -> dict[str, dict[str, dict[str, object]]]:
    """Sources of the labelled files that OUT/train was composed of, with their licences."""
    split = read_json_object(out / SPLIT)
    return credited(split[name] for name in ("pictures", "sounds"))


def _calibration(fitted: ModelFile, out: Path, model: str) -> dict[str, Any]:
    """Entries of the card: from real clips, or for `avloc-open`, which these have no part in, from training clips.

    `real` is what was measured on real clips.
    """
    results = read_results(out)
    _check_fit(results, fitted, out / FOLDS_FILE)
    if model == OPEN:
        real = {name: results[name] for name in REAL if name not in RATED}
        engine = Engine.from_file(fitted, torch.device("cpu"))
        peaks = peaks_of(predict_clips(engine, out / "store", first=CALIBRATED_ON))
        return {**calibrated(peaks), "real": real}
    people = read_people(out)
    _check_fit(people, fitted, out / PEOPLE_FILE)
    real = {name: results[name] for name in REAL}
    return {**results["card"], "real": {**real, "people": {name: people[name] for name in PEOPLE}}}


def _check_fit(results: Mapping[str, Any], fitted: ModelFile, path: Path) -> None:
    if results.get("fit") != fitted.card["fit"]:
        raise Refused(f"{path} is of another fit than {fitted.path}", hint="run `fit` and `folds` again")
