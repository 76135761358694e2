"""Maps of cells to scores under many protocols, one clip at a time, so that memory does not grow with the set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from avloc.engine import SILENCE, ClipCells, HeatMaps, map_weights, score_heat, truth_of
from avloc.evaluate.baselines import CEILING, RANDOM, SOUND_IGNORED, Fixed, ceiling, fixed_baselines, random_cells
from avloc.evaluate.records import ClipRow, MapScores
from avloc.metrics import ClipScore, Summary, f_curves, interval, max_f, size_of, summarise
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
    """Sorted by id; `scores` holds the maps only."""


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """One clip under one protocol."""

    area: float
    size: str
    by_kind: dict[str, ClipScore]


class _FCurves:
    """Sums over clips of each kind's F-score curves; keeping the curves of all clips would take much memory."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def add(self, curves: Mapping[str, NDArray[np.float64]]) -> None:
        """Add a clip; curves of an empty truth are NaN and left out, as by `max_f`."""
        for name, curve in curves.items():
            if not np.isnan(curve).any():
                self._sums[name] = self._sums.get(name, 0.0) + curve
                self._counts[name] = self._counts.get(name, 0) + 1

    def max_f(self, name: str) -> float:
        """`max_f` of the clips so far; NaN without any."""
        return max_f(self._sums[name][None] / self._counts[name]) if name in self._sums else float("nan")


def sweep_kinds() -> dict[str, Mapping[str, float]]:
    """Fused maps by their weights: `0.7 av + 0.3 object`."""
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
        box_rule: how boxes become a map.
        kinds: of map, `avloc.engine.map_weights`; empty for baselines alone.
        sweep: also fuse `av` and `object` with eleven weights.
        threads: number of threads; the scores do not depend on it.
    """
    ordered = sorted(clips, key=lambda clip: clip.cells.id)
    fixed = [fixed_baselines(_prior(ordered, protocol, box_rule)) for protocol in protocols]

    def score(clip: LabelledCells) -> list[tuple[_Scores, dict[str, NDArray[np.float64]]]]:
        cells = clip.cells
        heats = HeatMaps(_with_baselines(cells), cells.shipped_resize)
        return [
            _score_clip(cells, heats, protocol, box_rule, _weights(protocol, kinds, cells, sweep=sweep), baselines)
            for protocol, baselines in zip(protocols, fixed, strict=True)
        ]

    table: list[list[_Scores]] = [[] for _ in protocols]
    curves = [_FCurves() for _ in protocols]
    with ThreadPoolExecutor(threads) as pool, _one_torch_thread():
        # `map` keeps the order of the clips, so that sums do not depend on the threads.
        for row in pool.map(score, ordered):
            for (scores, of_clip), column, of_all in zip(row, table, curves, strict=True):
                column.append(scores)
                of_all.add(of_clip)
    names = [*kinds, *(sweep_kinds() if sweep else ())]
    return [
        _collect(ordered, column, of_all, protocol, list(kinds), names)
        for column, of_all, protocol in zip(table, curves, protocols, strict=True)
    ]


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Clips are distributed over threads; torch's own would not speed up maps this small."""
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


def _with_baselines(cells: ClipCells) -> dict[str, NDArray[np.float32]]:
    """The clip's maps and those of the baselines that are scored like maps."""
    maps = {**cells.maps, RANDOM: random_cells(cells.id)}
    if SILENCE in cells.wrong:
        maps[SOUND_IGNORED] = cells.wrong[SILENCE][0]
    return maps


def _weights(
    protocol: Protocol, kinds: Sequence[str], cells: ClipCells, *, sweep: bool
) -> dict[str, Mapping[str, float]]:
    baselines = [RANDOM, *([SOUND_IGNORED] if SILENCE in cells.wrong else [])]
    return {**map_weights(protocol, [*kinds, *baselines]), **(sweep_kinds() if sweep else {})}


def _score_clip(
    cells: ClipCells,
    heats: HeatMaps,
    protocol: Protocol,
    box_rule: str,
    weights: Mapping[str, Mapping[str, float]],
    baselines: Mapping[str, Fixed],
) -> tuple[_Scores, dict[str, NDArray[np.float64]]]:
    """Scores of one clip and, where its truth is a mask, the F-score curves of its maps."""
    truth = truth_of(cells, protocol, box_rule)
    is_mask = bool(cells.mask)
    by_kind, curves = {}, {}
    for name, parts in weights.items():
        heat = heats.heat(parts, protocol)
        by_kind[name] = score_heat(heat, truth, protocol, is_mask=is_mask).score
        if is_mask:
            curves[name] = f_curves(heat[None], (truth.map > 0)[None])[0]
    for name, baseline in baselines.items():
        by_kind[name] = baseline.score(truth, protocol.comparison)
    by_kind[CEILING] = ceiling(truth)
    return _Scores(area=truth.area, size=size_of(truth.weight), by_kind=by_kind), curves


def _collect(
    clips: Sequence[LabelledCells],
    scores: Sequence[_Scores],
    curves: _FCurves,
    protocol: Protocol,
    kinds: list[str],
    names: list[str],
) -> Scored:
    sizes = [entry.size for entry in scores]
    every = list(scores[0].by_kind) if scores else []
    summaries = {name: _summary(name, scores, curves, sizes, protocol) for name in every}
    return Scored(
        maps={name: summaries[name] for name in kinds if name in summaries},
        baselines={name: scores for name, scores in summaries.items() if name not in names},
        sweep={name: summaries[name] for name in names if name not in kinds and name in summaries},
        rows=[
            ClipRow(
                id=clip.cells.id,
                label=clip.label,
                flags=clip.flags,
                area=entry.area,
                size=size,
                scores={name: entry.by_kind[name] for name in kinds},
            )
            for clip, entry, size in zip(clips, scores, sizes, strict=True)
        ],
    )


def _summary(
    name: str, scores: Sequence[_Scores], curves: _FCurves, sizes: Sequence[str], protocol: Protocol
) -> MapScores:
    of_map = [entry.by_kind[name] for entry in scores]
    cious = np.array([score.ciou for score in of_map])
    ious = [score.iou for score in of_map if not np.isnan(score.iou)]
    return MapScores(
        overall=summarise(cious, protocol.success),
        interval=interval(cious, protocol.success),
        area=summarise([score.area_ciou for score in of_map], protocol.success),
        pointing=float("nan") if name in _PEAKLESS else float(np.mean([score.hit for score in of_map])),
        sizes=_by_size(cious, sizes, protocol),
        miou=float(np.mean(ious)) if ious else float("nan"),
        max_f=curves.max_f(name),
    )


def _by_size(cious: NDArray[np.float64], sizes: Sequence[str], protocol: Protocol) -> dict[str, Summary]:
    places = np.array(sizes)
    present = (name for name in ("small", "medium", "large", "huge") if name in set(sizes))
    return {name: summarise(cious[places == name], protocol.success) for name in present}
