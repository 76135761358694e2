"""Projections fitted on the features of frozen backbones: the named dimensions of a common space, and unnamed ones.

The named dimensions start as those of the run, which are the concepts trained further; the concepts' own projections
stay a hint. Unnamed ones start random and small. The result is the mean of the fitted weights and of those at the
start, which keeps more of what the run learned of scenes (Wortsman et al., "Robust fine-tuning of zero-shot models",
CVPR 2022).

Shape letters: n pictures, m sounds, D common space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avloc import losses
from avloc.checkpoint import MODEL_NAME, ModelFile, load_model, save_model
from avloc.engine import Cohort
from avloc.engine.core import pick_precision
from avloc.networks import lite0
from avloc.networks.concepts import CONCEPTS, DIM, concept_projections, concepts_hash
from tests.recipe.batches import Batches, BoxedBatch, PairBatch
from tests.recipe.cohort import make_cohort
from tests.recipe.features import GRID, IMAGE_WIDTH, POOLED
from tests.recipe.material import Material, load_material
from tests.recipe.projections import Projections
from tests.recipe.real import trained_on
from tests.recipe.settings import FitSettings, read_settings
from tests.recipe.split import tables_hash

SCALED_ON = 20
"""The scale of images is measured on one picture of so many."""
FITTED = "fit"


class _Hints:
    """Mean cosine distance of the named dimensions to the concepts' own projections of the same inputs."""

    def __init__(self) -> None:
        image, self._image_bias, self._audio, self._audio_bias = concept_projections()
        self._image = image.flatten(1)[:, lite0.WIDTH :]  # the weights of the features are 0

    def distance(self, batch: PairBatch, image: Tensor, audio: Tensor) -> Tensor:
        """Of images [n, cells, D] plus that of sounds [n, D], neither normalised."""
        scores = batch.pictures[..., lite0.WIDTH :].float()
        parts = (
            (image, F.linear(scores, self._image, self._image_bias)),
            (audio, F.linear(batch.sounds, self._audio, self._audio_bias)),
        )
        return torch.stack(
            [(1 - F.cosine_similarity(out[..., :DIM], hint, dim=-1)).mean() for out, hint in parts]
        ).sum()


class _Step:
    """The loss of one batch."""

    def __init__(self, projections: Projections, settings: FitSettings) -> None:
        self._projections, self._settings, self._hints = projections, settings, _Hints()
        self._autocasts = pick_precision("auto", torch.device("cpu")) == "bf16"

    def pair_loss(self, batch: PairBatch) -> Tensor:
        image, audio = self._project(batch.pictures, batch.sounds)
        unit = _grid(F.normalize(image, dim=2), POOLED), F.normalize(audio, dim=1)
        contrast = losses.contrastive(*unit, self._settings.tau, batch.relation)
        return contrast + self._settings.hint * self._hints.distance(batch, image, audio)

    def boxed_loss(self, batch: BoxedBatch) -> Tensor:
        image, audio = self._project(batch.pictures, batch.sounds)
        unit = _grid(F.normalize(image, dim=2), GRID), F.normalize(audio, dim=1)
        given = batch.relation, batch.covers, torch.ones(len(audio), dtype=torch.bool)
        box, peak = losses.box(*unit, *given), losses.peak(*unit, *given, self._settings.tau)
        assert box is not None
        assert peak is not None
        return self._settings.box * box + self._settings.peak * peak

    def _project(self, pictures: Tensor, sounds: Tensor) -> tuple[Tensor, Tensor]:
        """[n, cells, D] and [n, D], not normalised, from inputs with dropout: of images, whole channels."""
        projections, rate = self._projections, self._settings.dropout
        dtype = torch.bfloat16 if self._autocasts else torch.float32
        kept = F.dropout(torch.ones(len(pictures), 1, IMAGE_WIDTH, dtype=dtype), rate)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocasts):
            image = projections.image(projections.image_inputs(pictures.to(dtype)) * kept)
        return image.float(), projections.audio(F.dropout(projections.audio_inputs(sounds), rate))


def _grid(unit: Tensor, side: int) -> Tensor:
    """[n, cells, D] -> [n, D, side, side]."""
    return unit.transpose(1, 2).unflatten(2, (side, side))


def fit(material: Material, clips: Sequence[int], seed: int, settings: FitSettings | None = None) -> Projections:
    """Projections fitted on all labelled material and on some real clips; the same seed gives the same.

    Args:
        material: features of the run's backbones.
        clips: real clips to train on, indices into `material.real`; may be empty.
        seed: of the random weights and all draws.
        settings: None is those of the recipe.
    """
    settings = settings or read_settings()
    batches, rng = Batches(material, clips, settings), np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = Projections(settings.unnamed, material.sounds.features[:, 0])
        if material.start is not None:
            start.start_at(material.start, material.pictures.features[::SCALED_ON], material.sounds.features[:, 0])
        fitted = _run(start, batches, rng, settings)
    fitted.average_with(start, settings.keep)
    return fitted.eval().requires_grad_(requires_grad=False)


def _run(start: Projections, batches: Batches, rng: np.random.Generator, settings: FitSettings) -> Projections:
    """All steps from a start, which stays as it is."""
    projections = deepcopy(start)
    step = _Step(projections, settings)
    optimizer = torch.optim.AdamW(
        projections.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for number in range(settings.steps):
        loss = step.pair_loss(batches.pairs(rng))
        if number % settings.boxed_every == 0:
            loss = loss + step.boxed_loss(batches.boxed(rng))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return projections


def write_model(
    run_file: ModelFile, projections: Projections, path: Path, card: Mapping[str, Any], cohort: Cohort | None = None
) -> None:
    """The model of a run with fitted projections in the place of its own.

    Its card is the run's with `card`, `concepts` (the names of the first dimensions, in order) and `unnamed` (the
    number of all further ones, the two constants included).
    """
    width = DIM + projections.unnamed
    named = [concept.name for concept in CONCEPTS]
    about = {**run_file.card, **card, "concepts": named, "unnamed": width - len(named)}
    path.parent.mkdir(parents=True, exist_ok=True)
    config, state = replace(run_file.config, dim=width), {**run_file.state, **projections.folded()}
    save_model(path, config, state, about, cohort and cohort.tensors)


def about_fit(run: ModelFile, seed: int, *, open_only: bool) -> dict[str, Any]:
    """What a fit depends on."""
    return {
        "run": run.sha256,
        "seed": seed,
        "open_only": open_only,
        "concepts": concepts_hash(),
        "tables": tables_hash(),
        "settings": asdict(read_settings()),
    }


def fitted(data: Path, weights: Path, out: Path, *, seed: int, open_only: bool = False) -> Path:
    """Fit projections on the features of OUT/run, unless the same are there; the folder of the model, OUT/fit.

    Args:
        data: folder with `classes/`, `everyday/` and `real/`.
        weights: folder with the face detector's files.
        out: the folder of `tests.recipe.train.train`.
        seed: of the fit.
        open_only: fit on files that may be used for any purpose, and on no real clips.
    """
    run, path = load_model(out / "run"), out / FITTED / MODEL_NAME
    about = about_fit(run, seed, open_only=open_only)
    if path.is_file() and load_model(path).card["fit"] == about:
        return path.parent
    material = load_material(data, weights, out, run, open_only=open_only)
    clips = [] if open_only else trained_on(material.real.clips)
    projections = fit(material, clips, seed)
    cohort = None if open_only else make_cohort(projections, material, clips, seed)
    card = {"fit": about, "usual": projections.usual_peaks(material.pictures.features)}
    write_model(run, projections, path, card, cohort)
    return path.parent
