"""What the projections are fitted on: features of labelled pictures and sounds, of composed scenes, of real clips."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avloc.annotations.labels import parse_label
from avloc.checkpoint import ModelFile
from avloc.engine.targets import box_cover
from avloc.errors import Refused
from avloc.networks.concepts import DIM
from tests.recipe.boxes import Box, TrainingBoxes, faces_of
from tests.recipe.compose import check_composed, is_plain
from tests.recipe.features import (
    AUDIO_WIDTH,
    CELLS,
    GRID,
    IMAGE_WIDTH,
    POOLED_CELLS,
    Cache,
    Networks,
    picture,
    pooled,
    probabilities,
)
from tests.recipe.real import RealClips, detected_in, faces_in, read_clips, sources_in
from tests.recipe.settings import FitSettings, read_settings
from tests.recipe.sounds import Sounds, in_a_room, read_sound
from tests.recipe.split import MACHINE_MADE, Classes, by_class, class_of, sound_class_of, source_of

FEATURES = "features"
PROJECTIONS = tuple(f"{side}_proj.{part}" for side in ("img", "aud") for part in ("weight", "bias"))
"""Names of the projections in a model file."""


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures; those with boxes come first."""

    classes: Sequence[str]
    shown: Sequence[Sequence[str]]
    """Sound classes that each may show."""
    features: Tensor
    """[P, 49, 2280], averaged to 7x7 cells."""
    cells: Tensor
    """[b, 196, 2280] of the first b."""
    covers: Tensor
    """[b, 14, 14] share of each cell under boxes of what makes the sounds of the picture's class."""


@dataclass(frozen=True)
class SoundFiles:
    """Labelled sounds."""

    classes: Sequence[str]
    features: Tensor
    """[S, 1 + K, 1545]: of the middle 3 s, then of K variants of it."""


@dataclass(frozen=True)
class Scenes:
    """Composed clips with boxes."""

    classes: Sequence[str]
    """Class of the sound of each."""
    shown: Sequence[Sequence[str]]
    cells: Tensor
    """[C, 196, 2280]."""
    sounds: Tensor
    """[C, 1545]."""
    covers: Tensor
    """[C, 14, 14] share of each cell under boxes of what sounds."""


@dataclass(frozen=True)
class Material:
    """Everything to fit on and, of `real`, to measure with."""

    pictures: Pictures
    sounds: SoundFiles
    scenes: Scenes
    real: RealClips
    start: Mapping[str, Tensor] | None = None
    """The run's own projections, from which the named dimensions start; without, they start as the concepts."""


def load_material(data: Path, weights: Path, out: Path, run: ModelFile, *, open_only: bool = False) -> Material:
    """The material with the features of a run, from OUT/features; computed first, which takes minutes.

    Args:
        data: folder with `classes/`, `everyday/` and `real/`.
        weights: folder with `pnet.pt`, `rnet.pt` and `onet.pt`.
        out: folder with `train`.
        run: the model whose backbones are used.
        open_only: only files that may be used for any purpose; real clips are to measure with.

    Raises:
        Refused: `out` was composed for the other model or by other tables.
    """
    check_composed(out, open_only=open_only)
    maker = _Maker(Classes(data, open_only=open_only), weights, out, run, read_settings())
    return Material(maker.pictures(), maker.sound_files(), maker.scenes(), maker.real(), start_of(run))


def start_of(run: ModelFile) -> dict[str, Tensor]:
    """The projections of a run into the concepts.

    Raises:
        Refused: its common space is another one.
    """
    if run.config.dim != DIM:
        raise Refused(f"the run has {run.config.dim} dimensions, the concepts {DIM}", hint="train it with their hints")
    return {name: run.state[name] for name in PROJECTIONS}


def covers_of(boxes: Sequence[Sequence[Box]]) -> Tensor:
    """[n, 14, 14] share of each cell under the boxes of each picture."""
    whole = (0.0, 0.0, 1.0, 1.0)
    found = [box_cover(np.array(some, float).reshape(-1, 4), whole, (GRID, GRID)) for some in boxes]
    return torch.from_numpy(np.stack(found)) if found else torch.zeros(0, GRID, GRID)


@dataclass(frozen=True)
class _Maker:
    classes: Classes
    weights: Path
    out: Path
    run: ModelFile
    settings: FitSettings
    cache: Cache = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cache", Cache(self.out / FEATURES, self.run.sha256))

    @cached_property
    def networks(self) -> Networks:
        return Networks(self.run)

    @cached_property
    def sounds(self) -> Sounds:
        return Sounds(self.classes, by_class(self.classes.sounds["train"], sound_class_of))

    def pictures(self) -> Pictures:
        found = [path for path in self.classes.pictures["train"] if self._is_paired(path)]
        boxes = TrainingBoxes(self.classes, faces_of(self.classes.data, self.out, self.weights))
        places = {path: sources for path in found if (sources := boxes.sources(path))}
        paths = [*places, *(path for path in found if path not in places)]
        shapes = {
            "features": (len(paths), POOLED_CELLS, IMAGE_WIDTH),
            "cells": (len(places), CELLS, IMAGE_WIDTH),
        }
        read = self.cache.read("pictures", paths, shapes, lambda rows: self._images(paths, rows))
        shown = [self.classes.shown(path) for path in paths]
        return Pictures([class_of(path) for path in paths], shown, **read, covers=covers_of(list(places.values())))

    def sound_files(self) -> SoundFiles:
        paths = self.classes.sounds["train"]
        shapes = {"features": (len(paths), 1 + self.settings.variants, AUDIO_WIDTH)}
        read = self.cache.read("sounds", paths, shapes, lambda rows: {"features": self._audio(paths, rows)})
        return SoundFiles([sound_class_of(path) for path in paths], **read)

    def scenes(self) -> Scenes:
        folder = self.out / "train"
        entries = dict(list(_boxed_scenes(folder))[: self.settings.scenes])
        names = list(entries)
        shapes = {"cells": (len(names), CELLS, IMAGE_WIDTH), "sounds": (len(names), AUDIO_WIDTH)}

        def compute(rows: range) -> dict[str, Tensor]:
            some = [names[row] for row in rows]
            frames = [picture(folder / "frames" / f"{name}.jpg") for name in some]
            waveforms = [read_sound(folder / "audio" / f"{name}.wav") for name in some]
            return {"cells": self.networks.image(frames), "sounds": self.networks.audio(waveforms)}

        read = self.cache.read("scenes", names, shapes, compute)
        labels = [parse_label(entry["label"]) for entry in entries.values()]
        covers = covers_of([entry["boxes"] for entry in entries.values()])
        sounding, shown = [label.sounding for label in labels], [sorted(label.visible) for label in labels]
        return Scenes(sounding, shown, **read, covers=covers)

    def real(self) -> RealClips:
        data = self.classes.data
        clips = read_clips(data)
        frames, audio, count = [clip.frame for clip in clips], [clip.audio for clip in clips], len(clips)
        shapes = {
            "features": (count, POOLED_CELLS, IMAGE_WIDTH),
            "cells": (count, CELLS, IMAGE_WIDTH),
            "sounds": (count, 1 + self.settings.variants, AUDIO_WIDTH),
        }
        read = self.cache.read(
            "real", frames, shapes, lambda rows: {**self._images(frames, rows), "sounds": self._audio(audio, rows)}
        )
        sounds = read["sounds"]
        faces, detected = faces_in(clips, data, self.out, self.weights), detected_in(data)
        heard = probabilities(sounds[:, 0])
        places = [sources_in(one, faces[path], detected.get(path, ())) for one, path in zip(heard, frames, strict=True)]
        return RealClips(clips, read["features"], read["cells"], sounds[:, 0], sounds[:, 1:], covers_of(places))

    def _is_paired(self, path: str) -> bool:
        """Whether a picture is drawn; machine-made ones are not."""
        return source_of(path) != MACHINE_MADE and bool(self.sounds.fitting(class_of(path)))

    def _images(self, paths: Sequence[str], rows: range) -> dict[str, Tensor]:
        cells = self.networks.image([picture(self.classes.data / paths[row]) for row in rows])
        return {"features": pooled(cells), "cells": cells}

    def _audio(self, paths: Sequence[str], rows: range) -> Tensor:
        """[rows, 1 + K, 1545]. The variants depend on the row alone."""
        waveforms = []
        for row in rows:
            waveforms.append(self.sounds.whole(paths[row]))
            rng = np.random.default_rng(row)
            for _ in range(self.settings.variants):
                waveforms.append(in_a_room(self.sounds.part_of(paths[row], rng), self.sounds, rng))
        return self.networks.audio(waveforms).unflatten(0, (len(rows), -1))


def _boxed_scenes(folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and annotation of the composed training clips that are scenes and have boxes."""
    for path, entry in json.loads((folder / "boxes.json").read_text(encoding="utf-8")).items():
        name = Path(path).stem
        if entry["boxes"] and not is_plain(int(name.rpartition("-")[2])):
            yield name, entry
