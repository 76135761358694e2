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
from torch import Tensor, nn

from avloc import losses
from avloc.checkpoint import MODEL_NAME, ModelFile, load_model, save_model
from avloc.engine.core import pick_precision
from avloc.networks import lite0, yamnet
from avloc.networks.concepts import CONCEPTS, DIM, IMAGE_BIAS, concept_projections, concepts_hash
from tests.recipe.batches import Batches, BoxedBatch, PairBatch
from tests.recipe.features import AUDIO_WIDTH, GRID, IMAGE_WIDTH, POOLED
from tests.recipe.material import Material, load_material
from tests.recipe.real import trained_on
from tests.recipe.settings import FitSettings, read_settings
from tests.recipe.split import tables_hash

IMAGE_SCALE = 3.0
"""Outputs of the image backbone are divided by it; features are in [0, 6]."""
LEAST_SD = (0.05, 0.25)
"""Added to the deviations of audio features and class scores, many of which are almost always 0."""
AUDIO_START = 4.0
"""The start of sounds is divided by it, that of images by `IMAGE_BIAS`, so that both are near 1."""
UNNAMED_SHARE = 0.5
"""The unnamed dimensions start with this share of the usual random weights."""
UNNAMED_NORM = 0.08
"""Mean norm of the unnamed dimensions at the start from a run, whose own have a mean norm of 1."""
SCALED_ON = 20
"""The scale of images is measured on one picture of so many."""
FITTED = "fit"
_AT_ONCE = 64


class Projections(nn.Module):
    """Linear maps of both backbones' outputs into the common space.

    Args:
        unnamed: dimensions beside those of the concepts.
        sounds: [S, 1545] outputs of the audio backbone, from which its inputs are standardised.
    """

    audio_mean: Tensor
    audio_sd: Tensor

    def __init__(self, unnamed: int, sounds: Tensor) -> None:
        super().__init__()
        self.unnamed = unnamed
        least = torch.tensor(LEAST_SD).repeat_interleave(torch.tensor([yamnet.WIDTH, yamnet.CLASSES]))
        self.register_buffer("audio_mean", sounds.float().mean(0))
        self.register_buffer("audio_sd", sounds.float().std(0) + least)
        self.image, self.audio = nn.Linear(IMAGE_WIDTH, DIM + unnamed), nn.Linear(AUDIO_WIDTH, DIM + unnamed)
        image, image_bias, audio, audio_bias = concept_projections()
        with torch.no_grad():
            for layer in (self.image, self.audio):
                layer.weight[DIM:] *= UNNAMED_SHARE
            self.image.weight[:DIM] = image.flatten(1) * IMAGE_SCALE / IMAGE_BIAS
            self.image.bias[:DIM] = image_bias / IMAGE_BIAS
            self.audio.weight[:DIM] = audio * self.audio_sd / AUDIO_START
            self.audio.bias[:DIM] = (audio_bias + audio @ self.audio_mean) / AUDIO_START

    @torch.no_grad()
    def start_at(self, run: Mapping[str, Tensor], pictures: Tensor, sounds: Tensor) -> None:
        """Take the named dimensions of a run.

        Args:
            run: its projections (`folded`), of the concepts alone.
            pictures: [n, cells, 2280] outputs of the image backbone, for the scale.
            sounds: [m, 1545] outputs of the audio backbone, for the scale.
        """
        self.take(run)
        inputs = self.image_inputs(pictures.float()), self.audio_inputs(sounds.float())
        for layer, values in zip((self.image, self.audio), inputs, strict=True):
            vectors = layer(values)
            for rows, norm in ((slice(DIM), 1.0), (slice(DIM, None), UNNAMED_NORM)):
                scale = norm / vectors[..., rows].norm(dim=-1).mean()
                layer.weight[rows] *= scale
                layer.bias[rows] *= scale

    @torch.no_grad()
    def take(self, state: Mapping[str, Tensor]) -> None:
        """Take the first dimensions, or all, from projections as in `folded`."""
        image, audio = state["img_proj.weight"].float().flatten(1), state["aud_proj.weight"].float()
        rows = slice(len(audio))
        self.image.weight[rows] = image * IMAGE_SCALE
        self.image.bias[rows] = state["img_proj.bias"].float()
        self.audio.weight[rows] = audio * self.audio_sd
        self.audio.bias[rows] = state["aud_proj.bias"].float() + audio @ self.audio_mean

    @torch.no_grad()
    def average_with(self, other: Projections, share: float) -> None:
        """Move every weight to its weighted mean with that of other projections, whose weight is `share`."""
        for own, their in zip(self.parameters(), other.parameters(), strict=True):
            own.lerp_(their, share)

    def image_inputs(self, pictures: Tensor) -> Tensor:
        """Scaled outputs of the image backbone, [n, cells, 2280]."""
        return pictures / IMAGE_SCALE

    def audio_inputs(self, sounds: Tensor) -> Tensor:
        """Standardised outputs of the audio backbone, [m, 1545]."""
        return (sounds - self.audio_mean) / self.audio_sd

    @torch.inference_mode()
    def peaks(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        """Largest cosine of any cell of each picture with each sound.

        Args:
            pictures: [n, cells, 2280] outputs of the image backbone, of any precision.
            sounds: [m, 1545] outputs of the audio backbone.

        Returns:
            [n, m] float32.
        """
        audio = F.normalize(self.audio(self.audio_inputs(sounds.float())), dim=1)
        found = [self.cosines(some, audio).amax(2) for some in pictures.split(_AT_ONCE)]
        return torch.cat(found)

    @torch.inference_mode()
    def cosines(self, pictures: Tensor, audio: Tensor) -> Tensor:
        """Cosine [n, m, cells] of every cell of pictures [n, cells, 2280] with unit vectors [m, D]."""
        image = F.normalize(self.image(self.image_inputs(pictures.float())), dim=2)
        return torch.einsum("ncd,md->nmc", image, audio)

    def usual_peaks(self, pictures: Tensor) -> list[float]:
        """Root mean square over pictures [n, cells, 2280] of the largest value of each concept, of unit vectors."""
        concepts = torch.eye(DIM + self.unnamed)[: len(CONCEPTS)]
        peaks = torch.cat([self.cosines(some, concepts).amax(2) for some in pictures.split(_AT_ONCE)])
        return [round(float(value), 4) for value in peaks.clamp(min=0).square().mean(0).sqrt()]

    def folded(self) -> dict[str, Tensor]:
        """Weights and biases of a model's projections, which take the backbones' outputs as they are."""
        image, audio = self.image.weight.detach() / IMAGE_SCALE, self.audio.weight.detach() / self.audio_sd
        return {
            "img_proj.weight": image[:, :, None, None],
            "img_proj.bias": self.image.bias.detach(),
            "aud_proj.weight": audio,
            "aud_proj.bias": self.audio.bias.detach() - audio @ self.audio_mean,
        }


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


def write_model(run_file: ModelFile, projections: Projections, path: Path, card: Mapping[str, Any]) -> None:
    """The model of a run with fitted projections in the place of its own.

    Its card is the run's with `card`, `concepts` (the names of the first dimensions, in order) and `unnamed` (the
    number of all further ones, the two constants included).
    """
    width = DIM + projections.unnamed
    named = [concept.name for concept in CONCEPTS]
    about = {**run_file.card, **card, "concepts": named, "unnamed": width - len(named)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, replace(run_file.config, dim=width), {**run_file.state, **projections.folded()}, about)


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
    write_model(run, projections, path, {"fit": about, "usual": projections.usual_peaks(material.pictures.features)})
    return path.parent
