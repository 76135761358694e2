"""Maps of cells to scores under several protocols; heat maps are kept for one clip at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from avloc.engine import SILENCE, ClipCells, HeatMaps, map_weights, score_heat, truth_of
from avloc.evaluate.baselines import CEILING, RANDOM, SOUND_IGNORED, Fixed, ceiling, fixed_baselines, random_cells
from avloc.evaluate.records import ClipRow, MapScores
from avloc.metrics import f_curves, interval, max_f, size_of, summarise
from avloc.protocols import Protocol

SWEEP = tuple(round(0.1 * step, 1) for step in range(11))
_PEAKLESS = ("whole frame", CEILING)


@dataclass(frozen=True, kw_only=True)
class LabelledCells:
    """One clip to score."""

    cells: ClipCells
    label: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scored:
    """All clips under one protocol."""

    maps: dict[str, MapScores]
    baselines: dict[str, MapScores]
    sweep: dict[str, MapScores]
    rows: list[ClipRow]
    """Sorted by id, without the scores of baselines and sweep."""


class _FCurves:
    """Sums of the F-score curves of each kind of map: the curves of all clips would take much memory."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def add(self, curves: Mapping[str, NDArray[np.float64]]) -> None:
        """Add a clip; the NaN curves of an empty truth are left out."""
        for name, curve in curves.items():
            if not np.isnan(curve).any():
                self._sums[name] = self._sums.get(name, 0.0) + curve
                self._counts[name] = self._counts.get(name, 0) + 1

    def max_f(self, name: str) -> float:
        """`avloc.metrics.max_f` of the clips added; NaN without any."""
        return max_f(self._sums[name][None] / self._counts[name]) if name in self._sums else float("nan")


def sweep_kinds() -> dict[str, Mapping[str, float]]:
    """Fused maps by their weights, such as `0.7 av + 0.3 object`."""
    return {f"{av} av + {round(1 - av, 1)} object": {"av": av, "object": round(1 - av, 1)} for av in SWEEP}


def score_protocols(
    clips: Sequence[LabelledCells],
    protocols: Sequence[Protocol],
    box_rule: str,
    kinds: Sequence[str],
    *,
    sweep: bool = False,
    threads: int = 2,
) -> list[Scored]:
    """Score the same maps under several protocols.

    Args:
        clips: with boxes or a mask each; the order does not matter.
        protocols: the rules.
        box_rule: see `avloc.metrics.ground_truth`.
        kinds: of map, see `avloc.engine.map_weights`; empty for baselines alone.
        sweep: also fuse `av` and `object` with eleven weights.
        threads: number of threads; the scores do not depend on it.
    """
    ordered = sorted(clips, key=lambda clip: clip.cells.id)
    fixed = [fixed_baselines(_prior(ordered, protocol, box_rule)) for protocol in protocols]

    sweeps = sweep_kinds() if sweep else {}

    def score(clip: LabelledCells) -> list[tuple[ClipRow, dict[str, NDArray[np.float64]]]]:
        cells = clip.cells
        baseline_maps = {RANDOM: random_cells(cells.id)}
        if SILENCE in cells.wrong:
            baseline_maps[SOUND_IGNORED] = cells.wrong[SILENCE][0]
        heats = HeatMaps({**cells.maps, **baseline_maps}, cells.shipped_resize)
        names = [*kinds, *baseline_maps]
        return [
            _score_clip(clip, heats, protocol, box_rule, {**map_weights(protocol, names), **sweeps}, baselines)
            for protocol, baselines in zip(protocols, fixed, strict=True)
        ]

    rows: list[list[ClipRow]] = [[] for _ in protocols]
    curves = [_FCurves() for _ in protocols]
    with ThreadPoolExecutor(threads) as pool, _one_torch_thread():
        # `map` keeps the order of the clips, so that sums do not depend on the threads.
        for of_clip in pool.map(score, ordered):
            for (row, clip_curves), column, sums in zip(of_clip, rows, curves, strict=True):
                column.append(row)
                sums.add(clip_curves)
    return [
        _collect(column, sums, protocol, kinds, sweeps)
        for column, sums, protocol in zip(rows, curves, protocols, strict=True)
    ]


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Clips are distributed over threads; torch's own do not speed up maps this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prior(clips: Sequence[LabelledCells], protocol: Protocol, box_rule: str) -> NDArray[np.float64]:
    total = np.zeros((protocol.side, protocol.side))
    for clip in clips:
        total += truth_of(clip.cells, protocol, box_rule).map
    return total


def _score_clip(
    clip: LabelledCells,
    heats: HeatMaps,
    protocol: Protocol,
    box_rule: str,
    weights: Mapping[str, Mapping[str, float]],
    baselines: Mapping[str, Fixed],
) -> tuple[ClipRow, dict[str, NDArray[np.float64]]]:
    """Scores of one clip and, if its truth is a mask, the F-score curves of its maps."""
    truth = truth_of(clip.cells, protocol, box_rule)
    is_mask = bool(clip.cells.mask)
    scores, curves = {}, {}
    for name, parts in weights.items():
        heat = heats.heat(parts, protocol)
        scores[name] = score_heat(heat, truth, protocol, is_mask=is_mask).score
        if is_mask:
            curves[name] = f_curves(heat[None], (truth.map > 0)[None])[0]
    for name, baseline in baselines.items():
        scores[name] = baseline.score(truth, protocol.comparison)
    scores[CEILING] = ceiling(truth)
    size = size_of(truth.weight)
    row = ClipRow(id=clip.cells.id, label=clip.label, flags=clip.flags, area=truth.area, size=size, scores=scores)
    return row, curves


def _collect(
    rows: Sequence[ClipRow], curves: _FCurves, protocol: Protocol, kinds: Sequence[str], sweeps: Collection[str]
) -> Scored:
    every = list(rows[0].scores) if rows else []
    summaries = {name: _summary(name, rows, curves.max_f(name), protocol.success) for name in every}
    return Scored(
        maps={name: summaries[name] for name in kinds if name in summaries},
        baselines={name: scores for name, scores in summaries.items() if name not in {*kinds, *sweeps}},
        sweep={name: summaries[name] for name in sweeps if name in summaries},
        rows=[replace(row, scores={name: row.scores[name] for name in kinds}) for row in rows],
    )


def _summary(name: str, rows: Sequence[ClipRow], f_score: float, success: str) -> MapScores:
    scores = [row.scores[name] for row in rows]
    cious = np.array([score.ciou for score in scores])
    ious = [score.iou for score in scores if not np.isnan(score.iou)]
    sizes = np.array([row.size for row in rows])
    by_size = {size: cious[sizes == size] for size in ("small", "medium", "large", "huge")}
    return MapScores(
        overall=summarise(cious, success),
        interval=interval(cious, success),
        area=summarise([score.area_ciou for score in scores], success),
        pointing=float("nan") if name in _PEAKLESS else float(np.mean([score.hit for score in scores])),
        sizes={size: summarise(values, success) for size, values in by_size.items() if len(values)},
        miou=float(np.mean(ious)) if ious else float("nan"),
        max_f=f_score,
    )
