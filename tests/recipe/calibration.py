"""How well scores tell right sounds from wrong ones, and the calibrated match that follows from peak cosines.

Pairs of a picture and a sound have weights, so that each clip counts as one however many moments of it there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avloc.localize.verdict import Verdict, VerdictRule

Numbers = NDArray[np.float64]
CONVERGED = 1e-9
"""Largest change of a logit in the last step of the calibration."""
BINS = 10
RIGHT_TO_WRONG = 0.5**0.5
"""Assumed ratio of right to wrong sounds, between one to one and one to two: the match is not far off at either."""
WRONG_MATCH, RIGHT_NO_MATCH = 0.09, 0.1
"""Largest shares of wrong sounds with verdict `matches`, and of right ones with `no_match`, to choose thresholds by.

On clips that had no part in the choice the first share is up to a point larger, and 0.1 is what it must not exceed."""
LEVELS = (Verdict.NO_MATCH, Verdict.UNSURE, Verdict.MATCHES)
"""Verdicts of sounds that are not silent, by rising match."""
DECIMALS = 3
"""Of the numbers in a card."""


@dataclass(frozen=True)
class Scores:
    """Peak cosines, or matches, of right and of wrong sounds; with their weights."""

    right: Numbers
    wrong: Numbers
    right_weights: Numbers
    wrong_weights: Numbers

    @classmethod
    def equal(cls, right: ArrayLike, wrong: ArrayLike) -> Scores:
        """All weigh the same."""
        scores = [np.asarray(values, np.float64) for values in (right, wrong)]
        return cls(*scores, *(np.ones(len(values)) for values in scores))

    @classmethod
    def joined(cls, parts: Iterable[Scores]) -> Scores:
        """All of several."""
        columns = zip(*((one.right, one.wrong, one.right_weights, one.wrong_weights) for one in parts), strict=True)
        return cls(*(np.concatenate(values) for values in columns))

    def mapped(self, function: Callable[[Numbers], Numbers]) -> Scores:
        """The same pairs with other scores."""
        return Scores(function(self.right), function(self.wrong), self.right_weights, self.wrong_weights)


def roc_auc(scores: Scores) -> float:
    """Share of pairs of a right and a wrong sound in which the right one has the higher score; ties count half."""
    order = np.argsort(scores.wrong)
    wrong, below = scores.wrong[order], np.append(0.0, np.cumsum(scores.wrong_weights[order]))
    lower = sum(below[np.searchsorted(wrong, scores.right, side)] for side in ("left", "right")) / 2
    return round(float(scores.right_weights @ lower / scores.right_weights.sum() / below[-1]), 4)


def medians(scores: Scores) -> tuple[float, float]:
    """The least scores that half of the right, and half of the wrong sounds do not exceed."""

    def median(values: Numbers, weights: Numbers) -> float:
        levels, shares = _shares(values, weights)
        return float(levels[shares >= 0.5 - 1e-12][0])

    return median(scores.right, scores.right_weights), median(scores.wrong, scores.wrong_weights)


def fit_calibration(scores: Scores) -> tuple[float, float]:
    """Slope and offset of the match over the peak cosine: logistic regression by Newton's method.

    Right and wrong sounds have equal total weight. The targets are those of Platt (1999), (n + 1) / (n + 2) and
    1 / (m + 2) for n right and m wrong sounds, so that separable peaks have a finite slope. Unequal weights stand for
    as many pairs as have the same variance of the mean (Kish 1965).
    """
    shares = [weights / weights.sum() for weights in (scores.right_weights, scores.wrong_weights)]
    n, m = (1 / float((share**2).sum()) for share in shares)
    inputs = np.stack([np.concatenate([scores.right, scores.wrong]), np.ones(sum(map(len, shares)))], 1)
    targets = np.repeat([(n + 1) / (n + 2), 1 / (m + 2)], [len(share) for share in shares])
    weights = np.concatenate(shares)
    fitted, step = np.zeros(2), np.ones(2)
    while np.abs(inputs @ step).max() > CONVERGED:
        match = 1 / (1 + np.exp(-inputs @ fitted))
        curvature = inputs.T @ (inputs * (weights * match * (1 - match))[:, None])
        step = np.linalg.solve(curvature, inputs.T @ (weights * (targets - match)))
        step /= max(1, np.abs(inputs @ step).max())  # no logit moves by more than 1, so that it cannot overshoot
        fitted += step
    return float(fitted[0]), float(fitted[1])


def thresholds(matches: Scores) -> tuple[float, float]:
    """`matches` and `no_match` of the verdict.

    `matches` is the smallest threshold that at most `WRONG_MATCH` of the wrong sounds reach, `no_match` the largest one
    below which at most `RIGHT_NO_MATCH` of the right ones are, and never above `matches`. Both are rounded to the safe
    side.
    """
    values, shares = _shares(-matches.wrong, matches.wrong_weights)
    above = -float(values[shares > WRONG_MATCH].min())  # the largest wrong one that must not reach it
    values, shares = _shares(matches.right, matches.right_weights)
    below = float(values[shares > RIGHT_NO_MATCH].min())
    scale = 10**DECIMALS
    upper = min(1.0, float(np.floor(above * scale) + 1) / scale)
    return upper, min(upper, float(np.floor(below * scale)) / scale)


def _shares(values: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Distinct values, rising, and the share of the weight that is at or below each."""
    levels, level = np.unique(values, return_inverse=True)
    return levels, np.bincount(level, weights).cumsum() / weights.sum()


def fit_rule(peaks: Scores) -> VerdictRule:
    """Calibration and thresholds from peak cosines, for right and wrong sounds in the ratio `RIGHT_TO_WRONG`."""
    slope, equal = fit_calibration(peaks)
    slope, offset = round(slope, DECIMALS), round(equal + math.log(RIGHT_TO_WRONG), DECIMALS)
    rule = VerdictRule(slope=slope, offset=offset)
    matches, no_match = thresholds(peaks.mapped(lambda values: match_of(rule, values)))
    return VerdictRule(slope=slope, offset=offset, matches=matches, no_match=no_match)


def match_of(rule: VerdictRule, peaks: Numbers) -> Numbers:
    """`VerdictRule.match` of many peaks."""
    assert rule.slope is not None
    assert rule.offset is not None
    return 1 / (1 + np.exp(-(rule.slope * peaks + rule.offset)))


def verdict_levels(rule: VerdictRule, matches: Scores) -> Scores:
    """Place of each pair's verdict in `LEVELS`."""
    return matches.mapped(lambda values: (values >= rule.no_match).astype(float) + (values >= rule.matches))


def verdict_shares(levels: Scores) -> dict[str, dict[str, float]]:
    """Share of each verdict among right and among wrong sounds, from what `verdict_levels` returns."""

    def shares(values: Numbers, weights: Numbers) -> dict[str, float]:
        share = np.bincount(values.astype(int), weights, len(LEVELS)) / weights.sum()
        return {str(name): round(float(one), 4) for name, one in zip(LEVELS, share, strict=True)}

    sides = {"right": (levels.right, levels.right_weights), "wrong": (levels.wrong, levels.wrong_weights)}
    return {name: shares(*side) for name, side in sides.items()}


def reliability(matches: Scores, wrong_weight: float = 1.0) -> list[dict[str, float]]:
    """Mean match, share of right sounds and share of the weight in each of ten equally wide bins; empty ones left out.

    Args:
        matches: of right and wrong sounds.
        wrong_weight: total weight of the wrong sounds; that of the right ones is 1.
    """
    right, wrong = matches.right_weights, matches.wrong_weights
    values, is_right = np.concatenate([matches.right, matches.wrong]), np.repeat([1.0, 0.0], [len(right), len(wrong)])
    weights = np.concatenate([right / right.sum(), wrong_weight * wrong / wrong.sum()]) / (1 + wrong_weight)
    at = np.minimum((values * BINS).astype(int), BINS - 1)
    total, mean, share = (np.bincount(at, weights * factor, BINS) for factor in (1, values, is_right))
    return [
        {"match": float(mean[k] / total[k]), "right": float(share[k] / total[k]), "weight": float(total[k])}
        for k in np.flatnonzero(total)
    ]


def calibration_error(bins: Iterable[dict[str, float]]) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015) of what `reliability` returns."""
    return sum(one["weight"] * abs(one["match"] - one["right"]) for one in bins)
