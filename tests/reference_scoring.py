"""Reference implementation of `avloc.engine.scoring` with plain loops in double precision.

Follows the rules of the published systems, not avloc's code, and has its own table of rules. Does not import avloc.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

Grid = list[list[float]]
NAN = float("nan")
ALL, FIRST = "all", "first"
THIRDS = {"av": 1 / 3, "object": 1 / 3, "detr": 1 / 3}


@dataclass(frozen=True)
class Rule:
    """How one published system scores."""

    resize: str
    flat_is_nan: bool
    half: bool
    """Threshold at 0.5; else at the median of the map."""
    strictly: bool
    """Whether a pixel must exceed the threshold."""
    boxes: str
    weights: dict[str, float]
    weights_detr: dict[str, float]
    unsure_is_nan: bool
    """Whether DETR's map is NaN if no query is confident; else zero."""
    fixed: bool
    """Fuse maps scaled by `(c + 1) / 2` and `x / 2.5`; else min-max normalise each map."""
    more_than_half: bool
    """Whether cIoU@0.5 counts only pictures above 0.5, not at 0.5."""


def _rule(resize, **changes) -> Rule:
    values = {
        "flat_is_nan": False,
        "half": False,
        "strictly": False,
        "boxes": ALL,
        "weights": {"av": 0.6, "object": 0.4},
    }
    values |= {"weights_detr": THIRDS, "unsure_is_nan": False, "fixed": False, "more_than_half": False}
    return Rule(resize=resize, **values | changes)


RULES = {
    "avloc": _rule("corners"),
    "ezvsl": _rule("corners", weights={"av": 0.4, "object": 0.6}),
    "lvs": _rule("areas", flat_is_nan=True, strictly=True),
    "sspl": _rule("areas", flat_is_nan=True, half=True),
    "sacl": _rule("areas", flat_is_nan=True, half=True),
    "slavc": _rule("cubic", weights={"av": 0.9, "object": 0.1}, fixed=True, more_than_half=True),
    "sslalign": _rule("areas", flat_is_nan=True, strictly=True, weights={"av": 0.4, "object": 0.6}),
    "avc-code": _rule("corners", boxes=FIRST, weights={"av": 1.0, "object": 0.4}, unsure_is_nan=True),
}
EXACT_SIZES = {
    "corners": (17, ((17, 17), (9, 5), (5, 5), (3, 2), (1, 3), (1, 1))),
    "areas": (16, ((16, 16), (8, 4), (4, 4), (2, 2), (1, 4), (1, 1))),
    "cubic": (17, ((17, 17), (9, 5), (5, 5), (1, 5), (1, 1))),
}
"""Side of the map and grid sizes whose interpolation weights are short binary fractions: maps of small integers stay
exact in single precision, so that equal values stay equal."""


def resized(cells: Sequence[Sequence[float]], side: int, how: str) -> Grid:
    """Resize to `side` x `side`. `corners` and `cubic` align corners; `areas` is OpenCV's half-pixel rule."""
    rows = [_taps(y, len(cells), side, how) for y in range(side)]
    columns = [_taps(x, len(cells[0]), side, how) for x in range(side)]
    return [
        [sum(a * b * cells[i][j] for i, a in taps_y for j, b in taps_x if a and b) for taps_x in columns]
        for taps_y in rows
    ]


def _taps(pixel: int, cells: int, side: int, how: str) -> list[tuple[int, float]]:
    """Indices and weights of the cells that a pixel is interpolated from; indices are clamped to the border."""
    if how == "areas":
        place = min(max((pixel + Fraction(1, 2)) * cells / side - Fraction(1, 2), Fraction(0)), Fraction(cells - 1))
    else:
        place = Fraction(pixel * (cells - 1), max(side - 1, 1))
    first = math.floor(place)
    t = float(place - first)
    if how == "cubic":
        offsets = range(-1, 3)
        weights = [_cubic(abs(t - offset)) for offset in offsets]
    else:
        offsets, weights = range(2), [1 - t, t]
    return [(min(max(first + offset, 0), cells - 1), weight) for offset, weight in zip(offsets, weights, strict=True)]


def _cubic(x: float) -> float:
    """Keys' kernel with a = -0.75."""
    a = -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def stretched(grid: Grid, flat_is_nan: bool) -> Grid:
    """Min-max normalise to [0, 1]. A map with a value that is not finite becomes NaN."""
    values = [value for row in grid for value in row]
    if not all(map(math.isfinite, values)):
        return _filled(len(grid), NAN)
    low, high = min(values), max(values)
    if low == high:
        return _filled(len(grid), NAN if flat_is_nan else 0.0)
    return [[(value - low) / (high - low) for value in row] for row in grid]


def _filled(side: int, value: float) -> Grid:
    return [[value] * side for _ in range(side)]


def heat(maps: Mapping[str, Sequence[Sequence[float]]], weights: Mapping[str, float], rule: Rule, side: int) -> Grid:
    """One normalised map, or the normalised weighted sum of several."""
    if rule.fixed and set(weights) == {"av", "object"}:
        return _fixed(maps, weights, rule, side)
    heats = []
    for name in weights:
        if name not in maps:
            heats.append(_filled(side, NAN if rule.unsure_is_nan else 0.0))
        elif len({value for row in maps[name] for value in row}) == 1 and math.isfinite(maps[name][0][0]):
            heats.append(_filled(side, NAN if rule.flat_is_nan else 0.0))
        elif not all(math.isfinite(value) for row in maps[name] for value in row):
            heats.append(_filled(side, NAN))
        else:
            heats.append(stretched(resized(maps[name], side, rule.resize), rule.flat_is_nan))
    if len(heats) == 1:
        return heats[0]
    total = _filled(side, 0.0)
    for one, weight in zip(heats, weights.values(), strict=True):
        for y in range(side):
            for x in range(side):
                total[y][x] += weight * one[y][x]
    return stretched(total, rule.flat_is_nan)


def _fixed(maps, weights: Mapping[str, float], rule: Rule, side: int) -> Grid:
    av, prior = (resized(maps[name], side, rule.resize) for name in ("av", "object"))
    total = _filled(side, 0.0)
    for y in range(side):
        for x in range(side):
            total[y][x] = weights["av"] * (av[y][x] + 1) / 2 + weights["object"] * prior[y][x] / 2.5
    return stretched(total, rule.flat_is_nan)


def truth(boxes: Sequence[Sequence[float]], rule: Rule, box_rule: str, side: int) -> Grid:
    """Ground truth of boxes (relative coordinates) with values 0, 0.5 and 1."""
    counted = boxes[:1] if rule.boxes == FIRST else boxes
    corners = [[int(side * min(max(float(value), 0.0), 1.0)) for value in box] for box in counted]
    out = _filled(side, 0.0)
    for y in range(side):
        for x in range(side):
            votes = sum(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in corners)
            out[y][x] = min(votes / 2, 1.0) if box_rule == "consensus" else float(votes > 0)
    return out


def drawn_truth(mask: Sequence[Sequence[bool]], side: int) -> Grid:
    """Ground truth of a mask of any size, sampled at pixel centres."""
    out = _filled(side, 0.0)
    for y in range(side):
        for x in range(side):
            row = math.floor((y + Fraction(1, 2)) * len(mask) / side)
            column = math.floor((x + Fraction(1, 2)) * len(mask[0]) / side)
            out[y][x] = float(mask[row][column])
    return out


@dataclass(frozen=True)
class ReferenceScore:
    """Scores of one map against one ground truth."""

    mask: list[list[bool]]
    ciou: float
    area_ciou: float
    hit: bool
    iou: float
    gap: float
    """Distance of the nearest other value from a threshold or the peak; below 1e-5 single precision may differ."""
    ties: int
    """Pixels beyond the first that tie with a threshold or the peak; sums need not tie in single precision."""


def score(grid: Grid, truth_map: Grid, rule: Rule) -> ReferenceScore:
    """Threshold a heat map by a rule and compare it with the ground truth."""
    side = len(grid)
    values = [value for row in grid for value in row]
    wanted = sum(value != 0 for row in truth_map for value in row)
    middle = 0.5 if rule.half else threshold(values, len(values) // 2)
    at_area = threshold(values, len(values) - wanted if wanted else len(values) // 2)
    mask = marked(grid, middle, rule.strictly)
    peak_y, peak_x, best = 0, 0, 0.0
    for y in range(side):
        for x in range(side):
            if grid[y][x] > best:
                peak_y, peak_x, best = y, x, grid[y][x]
    gaps = [abs(value - at) for value in values for at in (middle, at_area, best) if value != at and not math.isnan(at)]
    ties = sum(values.count(at) - 1 for at in (middle, at_area, best) if at in values)
    return ReferenceScore(
        ties=ties,
        mask=mask,
        ciou=ciou(mask, truth_map),
        area_ciou=ciou(marked(grid, at_area, rule.strictly), truth_map),
        hit=best > 0 and truth_map[peak_y][peak_x] != 0,
        iou=iou(mask, truth_map),
        gap=min(gaps, default=1.0),
    )


def threshold(values: Sequence[float], rank: int) -> float:
    """The value at a 0-based rank in ascending order."""
    return NAN if any(math.isnan(value) for value in values) else sorted(values)[rank]


def marked(grid: Grid, at: float, strictly: bool) -> list[list[bool]]:
    """Mask of the pixels above the threshold; no comparison with NaN is true."""
    return [[value > at if strictly else value >= at for value in row] for row in grid]


def ciou(mask: Sequence[Sequence[bool]], truth_map: Grid) -> float:
    """sum(mask * truth) / (sum(truth) + sum(mask where truth is 0)); 0 if the denominator is 0."""
    hit = whole = 0.0
    for mask_row, truth_row in zip(mask, truth_map, strict=True):
        for inside, value in zip(mask_row, truth_row, strict=True):
            hit += value if inside else 0.0
            whole += value + (1.0 if inside and value == 0 else 0.0)
    return hit / whole if whole else 0.0


def iou(mask: Sequence[Sequence[bool]], truth_map: Grid) -> float:
    """Pixels in both over pixels in either; 1 where both are empty."""
    both = either = 0
    for mask_row, truth_row in zip(mask, truth_map, strict=True):
        for inside, value in zip(mask_row, truth_row, strict=True):
            both += bool(inside and value)
            either += bool(inside or value)
    return both / either if either else 1.0
