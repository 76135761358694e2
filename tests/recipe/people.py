"""People who speak in real clips: whether the peak of the map is on the head or the upper body of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from avloc.files import read_json_object
from avloc.localize.model import Model, load
from avloc.localize.result import peak_of
from tests.recipe.boxes import PERSON, Box, corners, head_and_shoulders, upper_half
from tests.recipe.features import picture
from tests.recipe.folds import fold_model, read_results
from tests.recipe.real import FOLDS, RealClip, detected_in, faces_in, read_clips

SPEECH = "speech"
RESULTS = "people.json"
CHEST = 1.2
"""How far the upper body reaches below a face, in heights of the face."""
PERSON_SCORE = 0.5
"""Score of automatic boxes above which they are persons."""
_TILE, _CAPTION, _ACROSS = 240, 26, 6
_MARK = 6
_COLOURS = {True: "lime", False: "red", None: "orange"}
"""Of the peak: on a person, beside all of them, nobody found."""

Heat = NDArray[np.float32]


@dataclass(frozen=True)
class SpeechMoment:
    """Where the map of one moment has its peak."""

    clip: RealClip
    peak: tuple[float, float]
    """x, y in fractions of the picture."""
    boxes: Sequence[Box]
    """Heads and upper bodies; none if nobody was found."""

    @property
    def on_person(self) -> bool | None:
        """Whether the peak is in a box; None without boxes."""
        return self.has(*self.peak) if self.boxes else None

    def has(self, x: float, y: float) -> bool:
        """Whether a point is in a box."""
        return any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in self.boxes)


def upper_bodies(faces: Sequence[Box], objects: Sequence[Sequence]) -> list[Box]:
    """Around the faces; without any, the upper halves of detected persons.

    Args:
        faces: boxes of faces.
        objects: rows of automatic boxes: corners, score, name.
    """
    persons = [corners(row) for row in objects if row[5] == PERSON and row[4] > PERSON_SCORE]
    return [head_and_shoulders(face, CHEST) for face in faces] or [upper_half(person) for person in persons]


def localized(models: Sequence[Model], data: Path) -> Callable[[RealClip], Heat]:
    """Heat maps as `localize` shows them, each by the model of the clip's fold.

    Args:
        models: one for each fold, fitted without its clips.
        data: the folder with `real`.
    """

    def heat(clip: RealClip) -> Heat:
        waveform, rate = soundfile.read(data / clip.audio, dtype="float32")
        return models[clip.fold].localize(picture(data / clip.frame), waveform, rate).heatmap

    return heat


def speech_moments(
    clips: Sequence[RealClip],
    faces: Mapping[str, Sequence[Box]],
    detected: Mapping[str, Sequence[Sequence]],
    heat: Callable[[RealClip], Heat],
) -> list[SpeechMoment]:
    """All moments of speech with their original sound.

    Args:
        clips: `tests.recipe.real.read_clips`.
        faces: picture -> boxes of faces (`tests.recipe.real.faces_in`).
        detected: picture -> rows of automatic boxes (`tests.recipe.real.detected_in`).
        heat: heat map [H, W] of a moment, such as `localized`.
    """
    return [
        SpeechMoment(clip, _peak(heat(clip)), upper_bodies(faces.get(clip.frame, ()), detected.get(clip.frame, ())))
        for clip in clips
        if clip.kind == SPEECH and clip.calibrates
    ]


def _peak(heat_HW: Heat) -> tuple[float, float]:
    (x, y), (height, width) = peak_of(heat_HW), heat_HW.shape
    return (x + 0.5) / width, (y + 0.5) / height


def people_results(moments: Sequence[SpeechMoment]) -> dict[str, Any]:
    """Share of the peaks on a person, each clip with a weight of 1; the same of the centre; and which clips to look at.

    Moments in which nobody was found are left out of the share.
    """
    by_clip: dict[str, list[SpeechMoment]] = {}
    for one in moments:
        if one.boxes:
            by_clip.setdefault(one.clip.clip, []).append(one)

    def share(hit: Callable[[SpeechMoment], bool | None]) -> float | None:
        means = [np.mean([bool(hit(one)) for one in several]) for several in by_clip.values()]
        return round(float(np.mean(means)), 4) if means else None

    return {
        "clips": len(by_clip),
        "moments": sum(map(len, by_clip.values())),
        "share": share(lambda one: one.on_person),
        "centre": share(lambda one: one.has(0.5, 0.5)),
        "beside": [one.clip.id for one in moments if one.on_person is False],
        "nobody_found": [one.clip.id for one in moments if one.on_person is None],
    }


def score_people(data: Path, weights: Path, out: Path) -> dict[str, Any]:
    """`people_results` of the models of `tests.recipe.folds.five_folds`; OUT/people.json, and the sheet OUT/people.png.

    Args:
        data: folder with `real/`.
        weights: folder with the face detector's files.
        out: the folder of `five_folds`.
    """
    clips = read_clips(data)
    heat = localized([load(fold_model(out, fold)) for fold in range(FOLDS)], data)
    moments = speech_moments(clips, faces_in(clips, data, out, weights), detected_in(data), heat)
    results = {**people_results(moments), "fit": read_results(out)["fit"]}
    (out / RESULTS).write_text(json.dumps(results, indent=1), encoding="utf-8")
    contact_sheet(data, moments, out / "people.png")
    return results


def read_people(out: Path) -> dict[str, Any]:
    """What `score_people` wrote to OUT/people.json."""
    return read_json_object(out / RESULTS)


def contact_sheet(data: Path, moments: Sequence[SpeechMoment], path: Path) -> None:
    """A PNG of all pictures with boxes and peak; in green on a person, in red beside, in orange with nobody found."""
    rows = -(-len(moments) // _ACROSS)
    sheet = Image.new("RGB", (_ACROSS * _TILE, rows * (_TILE + _CAPTION)), "black")
    for place, one in enumerate(moments):
        row, column = divmod(place, _ACROSS)
        sheet.paste(_tile(data, one), (column * _TILE, row * (_TILE + _CAPTION)))
    sheet.save(path)


def _tile(data: Path, one: SpeechMoment) -> Image.Image:
    tile = Image.new("RGB", (_TILE, _TILE + _CAPTION), "black")
    shown = Image.fromarray(picture(data / one.clip.frame))
    shown.thumbnail((_TILE, _TILE))
    draw, (wide, high) = ImageDraw.Draw(shown), shown.size
    for x0, y0, x1, y1 in one.boxes:
        draw.rectangle((x0 * wide, y0 * high, x1 * wide, y1 * high), outline="white")
    x, y = one.peak[0] * wide, one.peak[1] * high
    colour = _COLOURS[one.on_person]
    draw.ellipse((x - _MARK, y - _MARK, x + _MARK, y + _MARK), fill=colour, outline="black")
    tile.paste(shown, (0, _CAPTION))
    ImageDraw.Draw(tile).text((2, 0), f"{one.clip.id}\n{one.clip.title}", fill=colour, spacing=1)
    return tile
