"""What a model does on clips whose files it never saw: the numbers of its card."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from avloc.checkpoint import ModelFile, load_model
from avloc.dataset import ClipSet, load
from avloc.engine import Engine
from avloc.heatmap import area_rank, cut, heat_maps, median_rank, ranked
from avloc.localize.fusion import OWN, Fusion
from avloc.metrics import ground_truth
from avloc.store import Store

SIDE = 224
KINDS = ("av", "shipped", "own", "disc")


@dataclass(frozen=True)
class Seen:
    """One clip through the networks."""

    id: str
    label: str
    boxes: np.ndarray
    similarity: np.ndarray
    activation: np.ndarray


def see(engine: Engine, folder: Path) -> list[Seen]:
    """Every clip of a store."""
    store, seen = Store(folder), []
    for batch in load(ClipSet(store, store.ids, engine.config), batch=16, workers=1):
        assert not batch.failures
        embeddings = engine.embed(batch.frames, batch.sound, batch.rate)
        grids, activation = engine.similarity(embeddings).numpy(), embeddings.activation.numpy()
        seen += map(Seen, batch.ids, batch.labels, batch.boxes, grids, activation)
    return seen


def heats_of(clip: Seen, fusion: Fusion) -> dict[str, np.ndarray]:
    """Heat maps of one clip: the similarity alone, as shipped, the sound-blind prior, and a centred disc."""
    steps = np.linspace(-1, 1, SIDE)
    cells = {
        "av": clip.similarity,
        "shipped": fusion.cells(clip.similarity, {OWN: clip.activation} if fusion.own else {}),
        "own": clip.activation,
    }
    heats = {name: heat_maps(torch.from_numpy(one)[None], (SIDE, SIDE))[0].numpy() for name, one in cells.items()}
    return heats | {"disc": -np.hypot(steps[:, None], steps)}


def rules(heat: np.ndarray, boxes: np.ndarray) -> list[float]:
    """Success (cIoU of 0.5 or more) with half of the picture, the same with as many pixels as the truth, and the peak inside a box."""
    truth = ground_truth(boxes, "union", SIDE) > 0
    hits = []
    for rank in (median_rank(heat.size), area_rank(heat.size, int(truth.sum()))):
        mask = cut(heat, ranked(heat, [rank])[0])
        hits.append(float((mask & truth).sum() >= 0.5 * (mask | truth).sum()))
    return [*hits, float(truth.ravel()[heat.argmax()])]


def by_class(clips: list[Seen], fusion: Fusion) -> dict[str, list[float]]:
    """Kind of map -> the three rules, averaged over classes."""
    table: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        for kind, heat in heats_of(clip, fusion).items():
            table[kind][clip.label.split(" | ")[0]].append(rules(heat, clip.boxes))
    return {
        kind: np.mean([np.mean(rows, 0) for rows in classes.values()], 0).round(4).tolist()
        for kind, classes in table.items()
    }


def auc(right: list[float], wrong: list[float]) -> float:
    """How often a right sound beats a wrong one; ties count half."""
    difference = np.subtract.outer(np.array(right), np.array(wrong))
    return round(float((difference > 0).mean() + (difference == 0).mean() / 2), 4)


def scenes(clips: list[Seen], fusion: Fusion) -> dict[str, float]:
    """Share of two-object scenes whose peak lies in the region of the one that sounds."""
    hits: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        for kind, heat in heats_of(clip, fusion).items():
            hits[kind].append(rules(heat, clip.boxes)[2])
    return {kind: round(float(np.mean(values)), 4) for kind, values in hits.items()}


def wrong_sounds(clips: list[Seen]) -> dict[str, float]:
    """ROC AUC of the peak cosine: right sound against wrong class, against silence, against both."""
    peaks: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        peaks[clip.id.rpartition("-")[2]].append(float(clip.similarity.max()))
    right, wrong, silent = (peaks[kind] for kind in ("right", "wrong", "silent"))
    return {"wrong": auc(right, wrong), "silent": auc(right, silent), "both": auc(right, wrong + silent)}


def peaks(clips: list[Seen]) -> dict[str, list[float]]:
    """Quantiles (5, 25, 50, 75, 95 %) of the peak cosine by kind of sound."""
    found: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        found[clip.id.rpartition("-")[2]].append(float(clip.similarity.max()))
    return {
        kind: np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]).round(3).tolist() for kind, values in found.items()
    }


def measure(model: ModelFile | Path, out: Path, fusion: Fusion) -> dict[str, object]:
    """All numbers; the stores are those of `tests.recipe train`."""
    file = load_model(model) if isinstance(model, Path) else model
    engine = Engine.from_file(file, torch.device("cpu"))
    boxed, pairs = see(engine, out / "store-boxed"), see(engine, out / "store-wrong")
    two = see(engine, out / "store-scenes")
    return {
        "scenes": {"n": len(two), **scenes(two, fusion)},
        "boxed": {"n": len(boxed), "rules": "half image, truth area, peak", **by_class(boxed, fusion)},
        "auc": {"n": len(pairs) // 3, **wrong_sounds(pairs)},
        "peaks": peaks(pairs),
    }
