"""Maps of cells to scores under several protocols; heat maps are kept for one block of clips at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from avloc.engine import SILENCE, ClipCells, HeatMaps, Truths, blocks, map_weights, score_heats, truth_map
from avloc.evaluate.baselines import CEILING, RANDOM, SOUND_IGNORED, ceiling, fixed_baselines, random_cells
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

    def add(self, name: str, curves: NDArray[np.float64]) -> None:
        """Add the curves [B, 255] of clips; the NaN curves of empty truths are left out."""
        for curve in curves:
            if not np.isnan(curve).any():
                self._sums[name] = self._sums.get(name, 0.0) + curve
                self._counts[name] = self._counts.get(name, 0) + 1

    def max_f(self, name: str) -> float:
        """`avloc.metrics.max_f` of the clips added; NaN without any."""
        return max_f(self._sums[name][None] / self._counts[name]) if name in self._sums else float("nan")


def sweep_kinds() -> dict[str, Mapping[str, float]]:
    """Fused maps by their weights, such as `0.7 av + 0.3 object`."""
    return {f"{av} av + {round(1 - av, 1)} object": {"av": av, "object": round(1 - av, 1)} for av in SWEEP}


class _DrawnTruths:
    """Ground truths of all clips for protocols with the same side and boxes, each drawn once and kept as bits."""

    def __init__(self, clips: Sequence[LabelledCells], protocol: Protocol, box_rule: str) -> None:
        self.total: NDArray[np.float64] = np.zeros((protocol.side, protocol.side))
        self._levels = (0.5, 1.0) if box_rule == "consensus" else (1.0,)
        self._bits = []
        for clip in clips:
            truth = truth_map(clip.cells, protocol, box_rule)
            self.total += truth
            self._bits.append(np.packbits([truth >= level for level in self._levels]))

    def take(self, part: slice, device: torch.device | str) -> Truths:
        """Those of some clips."""
        count = len(self._levels) * self.total.size
        bits = torch.from_numpy(np.unpackbits(np.stack(self._bits[part]), axis=1, count=count)).to(device)
        planes = bits.view(len(bits), len(self._levels), -1)
        return Truths((planes[:, 0] + planes[:, -1]).float() / 2)


def score_protocols(
    clips: Sequence[LabelledCells],
    protocols: Sequence[Protocol],
    box_rule: str,
    kinds: Sequence[str],
    *,
    sweep: bool = False,
    device: torch.device | str = "cpu",
) -> list[Scored]:
    """Score the same maps under several protocols.

    Args:
        clips: with boxes or a mask each; the order does not matter.
        protocols: the rules.
        box_rule: see `avloc.metrics.ground_truth`.
        kinds: of map, see `avloc.engine.map_weights`; empty for baselines alone.
        sweep: also fuse `av` and `object` with eleven weights.
        device: computes heat maps and masks.
    """
    ordered = sorted(clips, key=lambda clip: clip.cells.id)
    drawn: dict[tuple[int, str], _DrawnTruths] = {}
    for protocol in protocols:
        key = (protocol.side, protocol.boxes)
        drawn[key] = drawn.get(key) or _DrawnTruths(ordered, protocol, box_rule)
    tables = [_Table(protocol, drawn[protocol.side, protocol.boxes], device) for protocol in protocols]
    sweeps = sweep_kinds() if sweep else {}
    done = 0
    for block in blocks((_with_baselines(clip.cells) for clip in ordered), device):
        part = slice(done, done + len(block))
        heats = HeatMaps([cells.maps for cells in block], block[0].shipped_resize, device)
        names = [*kinds, *(name for name in (RANDOM, SOUND_IGNORED) if name in heats.maps)]
        truths = {key: each.take(part, device) for key, each in drawn.items()}
        for table in tables:
            rule = table.protocol
            weights = {**map_weights(rule, names), **sweeps}
            table.add(ordered[part], heats, weights, truths[rule.side, rule.boxes])
        done = part.stop
    return [table.collect(kinds, sweeps) for table in tables]


def _with_baselines(cells: ClipCells) -> ClipCells:
    maps = {**cells.maps, RANDOM: random_cells(cells.id)}
    if SILENCE in cells.wrong:
        maps[SOUND_IGNORED] = cells.wrong[SILENCE][0]
    return replace(cells, maps=maps)


class _Table:
    """The scores under one protocol, filled block by block."""

    def __init__(self, protocol: Protocol, drawn: _DrawnTruths, device: torch.device | str) -> None:
        self.protocol, self._baselines = protocol, fixed_baselines(drawn.total, device)
        self._rows: list[ClipRow] = []
        self._curves = _FCurves()

    def add(
        self,
        clips: Sequence[LabelledCells],
        heats: HeatMaps,
        weights: Mapping[str, Mapping[str, float]],
        truths: Truths,
    ) -> None:
        """Add clips and, if their truths are masks, the F-score curves of their maps."""
        are_masks = bool(clips[0].cells.mask)
        scores = {}
        for name, parts in weights.items():
            heat = heats.heat(parts, self.protocol)
            scores[name] = score_heats(heat, truths, self.protocol, are_masks=are_masks)
            if are_masks:
                self._curves.add(name, f_curves(heat.flatten(1).cpu().numpy(), (truths.maps > 0).cpu().numpy()))
        for name, baseline in self._baselines.items():
            scores[name] = baseline.score(truths, self.protocol.comparison)
        scores[CEILING] = ceiling(truths)
        areas, means = (truths.pixels / truths.size).tolist(), (truths.total / truths.size).tolist()
        for place, (clip, area, mean) in enumerate(zip(clips, areas, means, strict=True)):
            own = {name: of_map[place] for name, of_map in scores.items()}
            row = ClipRow(
                id=clip.cells.id, label=clip.label, flags=clip.flags, area=area, size=size_of(mean), scores=own
            )
            self._rows.append(row)

    def collect(self, kinds: Sequence[str], sweeps: Collection[str]) -> Scored:
        """Summaries of the clips added."""
        rows, success = self._rows, self.protocol.success
        every = list(rows[0].scores) if rows else []
        summaries = {name: _summary(name, rows, self._curves.max_f(name), success) for name in every}
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
