"""Batches of cached features with what is known of their pairs: relations as in `avloc.losses`.

Shape letters: B batch, C sound classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tests.recipe.features import probabilities
from tests.recipe.material import Material
from tests.recipe.pairs import read_pairs
from tests.recipe.settings import FitSettings

VOICES, VOICE_SHARES = ("speech", "singing", "laugh"), (2 / 3, 1 / 6, 1 / 6)
"""Sound classes of boxed pictures of people: those that come from the head, and that boxes of heads fit."""
UNLABELLED = -1

Members = dict[str, NDArray[np.int64]]
Shown = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class PairBatch:
    """Pictures and sounds of equal index belong together."""

    pictures: Tensor
    """[B, 49, 2280] float16."""
    sounds: Tensor
    """[B, 1545]."""
    relation: Tensor
    """[B, B] int8, picture first: 1 positive pair, -1 negative pair, 0 ignored."""


@dataclass(frozen=True)
class BoxedBatch:
    """Pictures with a sound and the share of each cell under boxes of what makes it."""

    pictures: Tensor
    """[B, 196, 2280] float16."""
    sounds: Tensor
    """[B, 1545]."""
    relation: Tensor
    """[B, B] int8, as in `PairBatch`."""
    covers: Tensor
    """[B, 14, 14]."""


class Batches:
    """Draws batches of the labelled material and of some real clips.

    Args:
        material: everything.
        clips: real clips to draw from, indices into `material.real`; may be empty.
        settings: sizes and shares.
    """

    def __init__(self, material: Material, clips: Sequence[int], settings: FitSettings) -> None:
        self._material, self._clips, self._settings = material, np.array(clips, np.int64), settings
        pictures, sounds, scenes, real = material.pictures, material.sounds, material.scenes, material.real
        self._classes = sorted({*sounds.classes, *scenes.classes})
        self._files, pictured = _members(sounds.classes), _members(pictures.classes)
        self._pool = {kind: rows for kind, rows in pictured.items() if self._fitting(kind)}
        self._probabilities = torch.cat([probabilities(sounds.features[:, 0]), probabilities(real.sounds)])
        self._clip_numbers = _numbered([clip.clip for clip in real.clips])
        boxed = pictures.classes[: len(pictures.cells)]
        chances = np.array([self._chance(kind) for kind in boxed])
        self._chances = chances / max(1, chances.sum())
        self._boxed_clips = self._clips[(real.covers.flatten(1) > 0).any(1).numpy()[self._clips]]
        self._shown = self._table(pictures.shown)
        self._scenes_shown = self._table(scenes.shown)

    def pairs(self, rng: np.random.Generator) -> PairBatch:
        """Pairs by class and real clips; without real clips, by class alone."""
        settings, real = self._settings, self._material.real
        count = round(settings.batch * settings.real_share) if len(self._clips) else 0
        kinds = sorted(self._pool)
        drawn = [kinds[row] for row in rng.integers(len(kinds), size=settings.batch - count)]
        rows = np.array([rng.choice(self._pool[kind]) for kind in drawn])
        files = np.array([rng.choice(self._files[rng.choice(self._fitting(kind))]) for kind in drawn])
        clips = rng.choice(self._clips, count, replace=count > len(self._clips)) if count else self._clips[:0]
        features = self._material.sounds.features
        sounds = [self._variant(features[file], rng) for file in files]
        sounds += [self._clip_sound(clip, rng) for clip in clips]
        known = self._probabilities[np.append(files, len(features) + clips)]
        classes = self._numbers(self._material.sounds.classes[file] for file in files)
        none = np.full(count, UNLABELLED)
        relation = pair_relation(
            np.concatenate([self._shown[rows], np.zeros((count, len(self._classes)), bool)]),
            np.append(classes, none),
            np.append(np.full(len(files), UNLABELLED), self._clip_numbers[clips]),
            alike(known, settings.alike),
        )
        pictures = torch.cat([self._material.pictures.features[rows], real.features[clips]])
        return PairBatch(pictures, torch.stack(sounds).float(), relation)

    def boxed(self, rng: np.random.Generator) -> BoxedBatch:
        """Scenes, labelled pictures and real clips with boxes; what there is none of is left out."""
        settings, makers = self._settings, (self._scene, self._boxed_picture, self._boxed_clip)
        shares = np.array([settings.scene_share, settings.picture_share, 0.0])
        shares[2] = 1 - shares.sum()
        shares *= [len(self._material.scenes.cells) > 0, self._chances.sum() > 0, len(self._boxed_clips) > 0]
        chosen = rng.choice(len(makers), settings.boxed_batch, p=shares / shares.sum())
        pictures, sounds, covers, shown, classes = zip(*(makers[one](rng) for one in chosen), strict=True)
        relation = boxed_relation(np.stack(shown), np.array(classes))
        return BoxedBatch(torch.stack(pictures), torch.stack(sounds).float(), relation, torch.stack(covers))

    def _scene(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Shown, int]:
        scenes = self._material.scenes
        row = rng.integers(len(scenes.cells))
        number = self._classes.index(scenes.classes[row])
        return scenes.cells[row], scenes.sounds[row], scenes.covers[row], self._scenes_shown[row], number

    def _boxed_picture(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Shown, int]:
        pictures = self._material.pictures
        row = rng.choice(len(self._chances), p=self._chances)
        kind = pictures.classes[row]
        if kind in read_pairs().kinds["people"]:
            name = str(rng.choice(VOICES, p=VOICE_SHARES))
            name = name if name in self._files else self._fitting(kind)[0]
        else:
            name = str(rng.choice(self._fitting(kind)))
        sound = self._variant(self._material.sounds.features[rng.choice(self._files[name])], rng)
        return pictures.cells[row], sound, pictures.covers[row], self._shown[row], self._classes.index(name)

    def _boxed_clip(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Shown, int]:
        real = self._material.real
        row = rng.choice(self._boxed_clips)
        return real.cells[row], self._clip_sound(row, rng), real.covers[row], self._everything, UNLABELLED

    @property
    def _everything(self) -> Shown:
        return np.ones(len(self._classes), bool)

    def _variant(self, variants: Tensor, rng: np.random.Generator) -> Tensor:
        return variants[rng.integers(len(variants))]

    def _clip_sound(self, row: int, rng: np.random.Generator) -> Tensor:
        real = self._material.real
        return self._variant(torch.cat([real.sounds[row][None], real.variants[row]]), rng)

    def _fitting(self, kind: str) -> list[str]:
        return [name for name in read_pairs().fits[kind] if name in self._files]

    def _chance(self, kind: str) -> float:
        if kind not in self._pool:
            return 0.0
        return self._settings.people if kind in read_pairs().kinds["people"] else 1.0

    def _numbers(self, names: Iterable[str]) -> Numbers:
        return np.array([self._classes.index(name) for name in names], np.int64)

    def _table(self, shown: Sequence[Sequence[str]]) -> Shown:
        """[n, C]: which sound classes each picture may show."""
        table = np.zeros((len(shown), len(self._classes)), bool)
        for row, names in enumerate(shown):
            table[row, self._numbers(name for name in names if name in self._classes)] = True
        return table


def pair_relation(shown: Shown, classes: Numbers, clips: Numbers, alike_sounds: Shown) -> Tensor:
    """Relations [B, B] of labelled pairs and of real clips: what may be right is ignored.

    Ignored are sounds of a class that the picture may show, other moments of its clip, and sounds like its own.

    Args:
        shown: [B, C] classes that each picture may show; none for real clips.
        classes: [B] class of each sound; UNLABELLED for real clips.
        clips: [B] number of each real clip; UNLABELLED for labelled pairs.
        alike_sounds: [B, B].
    """
    same = (clips[:, None] == clips) & (clips != UNLABELLED)
    return _relation(alike_sounds | same | (_may_show(shown, classes) & (classes != UNLABELLED)))


def boxed_relation(shown: Shown, classes: Numbers) -> Tensor:
    """Relations [B, B] of pictures with boxes; real clips are no negatives, since a box fixes how low cosines must be.

    Args:
        shown: [B, C] classes that each picture may show; all for real clips.
        classes: [B] class of each sound; UNLABELLED for real clips.
    """
    return _relation(_may_show(shown, classes) | (classes == UNLABELLED))


def alike(sounds: Tensor, least: float) -> Shown:
    """[B, B] whether the class probabilities [B, 521] of two sounds have a cosine above `least`."""
    unit = F.normalize(sounds, dim=1)
    return (unit @ unit.T > least).numpy()


def _may_show(shown: Shown, classes: Numbers) -> Shown:
    """[B, B]: whether picture n may show the class of sound m; arbitrary for sounds without a class."""
    return shown[:, np.maximum(classes, 0)]


def _relation(ignored: Shown) -> Tensor:
    relation = np.where(ignored, 0, -1).astype(np.int8)
    np.fill_diagonal(relation, 1)
    return torch.from_numpy(relation)


def _members(classes: Sequence[str]) -> Members:
    """Class -> its rows."""
    return {name: np.flatnonzero([one == name for one in classes]) for name in dict.fromkeys(classes)}


def _numbered(names: Sequence[str]) -> Numbers:
    """Equal names have equal numbers."""
    return np.unique(np.array(names, str), return_inverse=True)[1].astype(np.int64)
