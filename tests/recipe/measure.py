"""The scores of a model on clips whose files were not trained on: the numbers of its card."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avloc.annotations.labels import parse_label
from avloc.checkpoint import ModelFile
from avloc.dataset import ClipSet, clip_loader
from avloc.engine import ClipCells, Cohort, Engine, Fusion, HeatMaps, card_fusion, predict_cells, score_heats, truths_of
from avloc.engine.fusion import CENTRE, OWN, centre_map, fuse_cells
from avloc.localize.model import Model, load
from avloc.localize.result import peak_of
from avloc.media.pictures import decode_picture
from avloc.metrics import ClipScore, summarise
from avloc.protocols import Protocol
from avloc.store import Store
from tests.recipe.calibration import Scores, fit_rule, medians, roc_auc
from tests.recipe.clips import SILENCE
from tests.recipe.concept_maps import LEAST_SHARE, ConceptMap, concept_maps
from tests.recipe.scored import ALONE, MIXED_FILE, RIGHT, SILENT, WRONG

RESIZE = "bilinear-halfpixel"
"""Cells are areas, as in training."""
PROTOCOL = replace(Protocol(), resize=RESIZE)
SMOOTH = 0.85  # cells
CENTRE_SHARE = 0.2


@dataclass(frozen=True)
class ClipMaps:
    """Maps of one clip."""

    id: str
    label: str
    cells: ClipCells

    @property
    def peak(self) -> float:
        """Largest cosine."""
        return float(self.cells.maps["av"].max())


def predict_clips(
    engine: Engine, folder: Path, fusion: Fusion | None = None, first: int | None = None
) -> list[ClipMaps]:
    """Maps of every clip of a store, or of the first ones."""
    store = Store(folder)
    labels = dict(zip(store.ids, store.column("label"), strict=True))
    batches = clip_loader(ClipSet(store, store.ids[:first], engine.config), batch=16, workers=1)
    seen = [ClipMaps(cells.id, labels[cells.id], cells) for cells in predict_cells(engine, batches, fusion=fusion)]
    assert not any(clip.cells.reason for clip in seen)
    return seen


def heats_of(clip: ClipMaps, fusion: Fusion) -> dict[str, np.ndarray]:
    """Heat maps of one clip: the similarity alone, as shipped, the model's own activation, and a centred disc.

    `deaf` is the shipped map without the similarity map: the own activation and the centre have their mean weights.
    """
    maps = dict(clip.cells.maps)
    activation = maps[OWN]
    own = (1 - fusion.own.centre) * (1 - (fusion.own.least + fusion.own.most) / 2)
    parts = {OWN: fusion.own.smoothed(activation), CENTRE: centre_map(activation.shape)}
    maps["deaf"] = fuse_cells(parts, {OWN: own, CENTRE: fusion.own.centre})
    heats = HeatMaps([maps], clip.cells.shipped_resize)
    disc = centre_map((PROTOCOL.side,) * 2)
    names = ("av", "shipped", OWN, "deaf")
    return {name: heats.heat({name: 1.0}, PROTOCOL)[0].numpy() for name in names} | {"disc": disc}


def score_of(heat: np.ndarray, cells: ClipCells) -> ClipScore:
    """The scores of `eval`, but `hit` is for the peak that `localize` reports.

    The half-pixel resize makes borders constant; of equal pixels `localize` takes the one nearest to the centre.
    """
    truths = truths_of([cells], PROTOCOL, "union")
    x, y = peak_of(heat)
    (score,) = score_heats(torch.from_numpy(heat)[None], truths, PROTOCOL)
    return replace(score, hit=bool(truths.hold(torch.tensor([y * PROTOCOL.side + x]))[0]))


def shares(scores: list[ClipScore]) -> list[float]:
    """cIoU@0.5 with half of the picture, and with as many pixels as the truth; share of peaks in a box."""
    half, area = (summarise([getattr(score, name) for score in scores]) for name in ("ciou", "area_ciou"))
    return [half.ciou_50, area.ciou_50, float(np.mean([score.hit for score in scores]))]


def picture_class(clip_id: str) -> str:
    """Class in the name of a clip of `boxed`: boxed-NUMBER-CLASS-LETTER."""
    return clip_id.split("-", 2)[2].rpartition("-")[0]


def class_means(clips: list[ClipMaps], fusion: Fusion) -> dict[str, list[float]]:
    """Kind of map -> `shares`, averaged over the classes of the pictures, which their names have."""
    table: dict[str, dict[str, list[ClipScore]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        for kind, heat in heats_of(clip, fusion).items():
            table[kind][picture_class(clip.id)].append(score_of(heat, clip.cells))
    return {
        kind: np.mean([shares(scores) for scores in classes.values()], 0).round(4).tolist()
        for kind, classes in table.items()
    }


def scenes(clips: list[ClipMaps], fusion: Fusion) -> dict[str, dict[str, float]]:
    """Two-object scenes by layout, the end of their names: the share whose peak lies on the object that sounds."""
    hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        layout = clip.id.rpartition("-")[2]
        for kind, heat in heats_of(clip, fusion).items():
            hits[layout][kind].append(score_of(heat, clip.cells).hit)
    return {
        name: {"n": len(kinds["av"]), **{kind: round(float(np.mean(values)), 4) for kind, values in kinds.items()}}
        for name, kinds in hits.items()
    }


@dataclass(frozen=True)
class Mixture:
    """A scene of two things that both sound."""

    id: str
    image: Tensor
    """[D, h, w] unit vectors of the cells."""
    audio: Tensor
    """[D] unit vector of both sounds at once."""
    alone: Tensor
    """[2, D] of each of the two sounds."""
    boxes: Sequence[NDArray[np.float64]]
    """Of each of the two things."""

    def on_own_things(self, maps: Sequence[ConceptMap]) -> bool:
        """Whether both things are found: each by a map of a concept of its own sound, with the peak in its boxes."""
        things = [self._thing_of(one.dimension) for one in maps]
        return sorted(things) == [0, 1] and all(map(self._peak_on, maps, things))

    def on_two_things(self, maps: Sequence[ConceptMap]) -> bool:
        """Whether the two maps have their peaks in the boxes of different things, whatever their concepts."""
        hits = [[self._peak_on(one, thing) for thing in (0, 1)] for one in maps]
        return len(hits) == 2 and any(hits[0][thing] and hits[1][1 - thing] for thing in (0, 1))

    def _thing_of(self, concept: int) -> int:
        """The thing whose sound is stronger in a concept; -1 if neither has it."""
        strengths = self.alone[:, concept]
        return int(strengths.argmax()) if strengths.max() > 0 else -1

    def _peak_on(self, found: ConceptMap, thing: int) -> bool:
        cells = ClipCells(id=self.id, boxes=self.boxes[thing], maps={"av": found.cells_hw.numpy()})
        return score_of(HeatMaps([cells.maps]).heat({"av": 1.0}, PROTOCOL)[0].numpy(), cells).hit


def predict_mixtures(engine: Engine, store_folder: Path, record: Path) -> list[Mixture]:
    """Embeddings of the mixtures of `tests.recipe.scored.write_mixed`, and of their sounds alone.

    Args:
        engine: the model.
        store_folder: the prepared clips.
        record: their `MIXED_FILE`.
    """
    store, rows = Store(store_folder), {}
    for batch in clip_loader(ClipSet(store, store.ids, engine.config), batch=16, workers=1):
        embeddings = engine.embed(batch.frames, batch.sound, batch.rate)
        rows |= {name: (embeddings.image[k], embeddings.audio[k]) for k, name in enumerate(batch.ids)}
    found = []
    for path, things in json.loads(record.read_text(encoding="utf-8")).items():
        name = Path(path).stem
        alone = torch.stack([rows[f"{name}-{letter}"][1] for letter in ALONE])
        found.append(Mixture(name, *rows[name], alone, [np.array(thing["boxes"]) for thing in things]))
    return found


def mixture_scores(mixtures: Sequence[Mixture], usual_C: Tensor) -> dict[str, float]:
    """Shares of the mixtures in which both things are found: `own` by concepts of their own sounds, `any` by any.

    `known` asks for two maps, `peaks` for as many as `concept_maps` finds. `image` takes the concepts that are
    strongest in the picture, whatever sounds. `one_sound_one_map` is the share of sounds alone with a single map.
    """

    def maps(one: Mixture, audio_D: Tensor, least_share: float = 0.0) -> list[ConceptMap]:
        return concept_maps(one.image, audio_D, 2, usual_C=usual_C, least_share=least_share)

    found = {
        "known": [maps(one, one.audio) for one in mixtures],
        "peaks": [maps(one, one.audio, LEAST_SHARE) for one in mixtures],
        "image": [maps(one, torch.ones_like(one.audio)) for one in mixtures],
    }
    rules = {"own": Mixture.on_own_things, "any": Mixture.on_two_things}
    shares = {
        f"{name}_{rule}": [holds(*pair) for pair in zip(mixtures, those, strict=True)]
        for name, those in found.items()
        for rule, holds in rules.items()
    }
    shares["one_sound_one_map"] = [len(maps(one, audio, LEAST_SHARE)) == 1 for one in mixtures for audio in one.alone]
    return {"n": len(mixtures), **{name: round(float(np.mean(flags)), 4) for name, flags in shares.items()}}


def wrong_sounds(engine: Engine, cohort: Cohort | None, folder: Path) -> dict[str, float]:
    """ROC AUC of the match on the clips of `tests.recipe.scored.wrong_pairs`: right sounds against other classes.

    `peak` is that of the peak cosine alone. Silence, which has a verdict of its own, is left out.
    """
    store = Store(folder)
    chosen = [name for name in store.ids if not name.endswith(f"-{SILENT}")]
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for batch in clip_loader(ClipSet(store, chosen, engine.config), batch=16, workers=1):
        embeddings = engine.embed(batch.frames, batch.sound, batch.rate)
        peaks = engine.similarity(embeddings).amax((1, 2)).tolist()
        for name, peak, image, audio in zip(batch.ids, peaks, embeddings.image, embeddings.audio, strict=True):
            reached = cohort.similarity(image, audio) if cohort is not None else 0.0
            found[name.rpartition("-")[2]].append((peak - reached, peak))
    right, wrong = (np.array(found[kind]).T for kind in (RIGHT, WRONG))
    match, peak = (roc_auc(Scores.equal(*pair)) for pair in zip(right, wrong, strict=True))
    return {"n": len(found[RIGHT]), "match": match, "peak": peak}


def peaks_of(clips: list[ClipMaps]) -> Scores:
    """The peak cosines of training clips: with their own sound, and with one of nothing in the picture.

    Digital silence has a verdict of its own and is left out.
    """
    peaks: dict[bool, list[float]] = {True: [], False: []}
    for clip in clips:
        label = parse_label(clip.label)
        if label.sounding == SILENCE:
            continue
        peaks[label.sounding in label.visible].append(clip.peak)
    return Scores.equal(peaks[True], peaks[False])


def calibrated(peaks: Scores, above_cohort: Scores | None = None) -> dict[str, dict[str, float]]:
    """`fusion` and `verdict` of the card, from the peak cosines of right and wrong sounds.

    The verdict is from `above_cohort`, the same above the model's cohort, if it has one.

    The similarity map counts least where its peak is what wrong sounds usually reach, most where it is what right ones
    usually reach. The least weight and that of the centre were chosen on files that were kept out of a training of
    their own, among forms of which one was left out by what is scored, the largest weight on half of what is scored
    (README.md); the smoothing is set by hand. The centre's share of a map cannot move, so that much less effect is
    asked for.
    """
    sure, unsure = (round(median, 3) for median in medians(peaks))
    rule = replace(fit_rule(above_cohort or peaks), cohort=above_cohort is not None)
    return {
        "fusion": {
            "least": 0.6,
            "most": 0.85,
            "unsure": unsure,
            "sure": sure,
            "smooth": SMOOTH,
            "centre": CENTRE_SHARE,
        },
        "verdict": {**asdict(rule), "least_effect": round(rule.least_effect * (1 - CENTRE_SHARE), 3)},
    }


def verdicts(model: Model, folder: Path, count: int = 150) -> dict[str, object]:
    """How often each verdict is given on unseen pictures, by kind of sound."""
    store, found = Store(folder), defaultdict(list)
    for clip_id in store.ids[: 3 * count]:
        clip = store.read(clip_id)
        waveform = (clip.sound / np.float32(32_767)).clip(-1, 1)
        result = model.localize(decode_picture(clip.picture), waveform, store.spec.rate)
        found[clip_id.rpartition("-")[2]].append(str(result.verdict))
    return {kind: {word: words.count(word) for word in sorted(set(words))} for kind, words in found.items()}


def measured(file: ModelFile, out: Path) -> dict[str, object]:
    """The scores; the stores are those that `tests.recipe train` prepares."""
    engine, fusion = Engine.from_file(file, torch.device("cpu")), card_fusion(file.card)
    two, everyday, boxed = (
        predict_clips(engine, out / f"store-{name}", fusion) for name in ("scenes", "scenes-everyday", "boxed")
    )
    mixtures = predict_mixtures(engine, out / "store-mixed", out / "test" / "mixed" / MIXED_FILE)
    return {
        "scenes": scenes(two, fusion),
        "scenes_everyday": scenes(everyday, fusion),
        "mixed": mixture_scores(mixtures, torch.tensor(file.card["usual"])),
        "boxed": {
            "n": len(boxed),
            "rules": "half image, truth area, peak; mean over classes",
            **class_means(boxed, fusion),
        },
        "auc": wrong_sounds(engine, Cohort.of(file), out / "store-wrong"),
        "verdicts": verdicts(load(file.path), out / "store-wrong"),
    }
