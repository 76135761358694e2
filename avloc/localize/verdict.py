"""Verdict: whether a heat map depends on the sound. Pure functions of a few numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from avloc.config import from_dict
from avloc.errors import UsageError, WeightsError

VERDICT_KEY = "verdict"
"""Key of a model's calibrated thresholds in its card."""


class Verdict(StrEnum):
    """Whether the map of one frame and one sound depends on that sound."""

    FOLLOWS = "follows"
    UNMATCHED = "unmatched"
    IGNORES = "ignores"
    SILENT = "silent"

    @property
    def sentence(self) -> str:
        """The verdict as printed and drawn."""
        return _SENTENCES[self]


_SENTENCES = {
    Verdict.FOLLOWS: "the map follows the sound",
    Verdict.UNMATCHED: "no visible source for this sound",
    Verdict.IGNORES: "the map does not depend on the sound",
    Verdict.SILENT: "silent: no source",
}


@dataclass(frozen=True, kw_only=True)
class VerdictRule:
    """Thresholds of the verdict, by default or from a model's card."""

    least_effect: float = 0.05
    """A map depends on the sound if silence and noise each change it by this mean absolute difference, 0 to 1."""
    least_similarity: float = -1.0
    """The source is visible if the largest cosine reaches this; -1 always passes."""

    def __post_init__(self) -> None:
        if not 0 <= self.least_effect <= 1:
            raise UsageError(f"verdict.least_effect = {self.least_effect} is impossible; valid: 0 to 1")
        if not -1 <= self.least_similarity <= 1:
            raise UsageError(f"verdict.least_similarity = {self.least_similarity} is impossible; valid: -1 to 1")

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> VerdictRule:
        """The rule under `verdict` in a model's card, or the defaults.

        Raises:
            WeightsError: an invalid entry.
        """
        entry = card.get(VERDICT_KEY, {})
        if not isinstance(entry, Mapping):
            raise WeightsError(f"the model's card has no table under {VERDICT_KEY!r}")
        try:
            return from_dict(cls, entry, f"{VERDICT_KEY}.")
        except UsageError as error:
            raise WeightsError(f"the model's card has an invalid verdict: {error}") from error


def judge(
    rule: VerdictRule, *, silent: bool, sound_effect: float, sound_effect_noise: float, peak_similarity: float
) -> Verdict:
    """The verdict on a map with these measurements, see `avloc.Result`."""
    if silent:
        return Verdict.SILENT
    if min(sound_effect, sound_effect_noise) < rule.least_effect:
        return Verdict.IGNORES
    return Verdict.FOLLOWS if peak_similarity >= rule.least_similarity else Verdict.UNMATCHED


def warning(verdicts: Sequence[Verdict]) -> str:
    """Caption of a video without any map that follows its sound: the most frequent sentence; otherwise ''."""
    sounding = [verdict for verdict in verdicts if verdict is not Verdict.SILENT]
    if not sounding or Verdict.FOLLOWS in sounding:
        return ""
    return max(sounding, key=sounding.count).sentence


def summary(verdicts: Sequence[Verdict]) -> str:
    """One sentence for several times of an input, the most frequent verdict first."""
    counts = Counter(verdicts).most_common()
    if len(counts) <= 1:
        return counts[0][0].sentence if counts else ""
    return "; ".join(f"{verdict.sentence} (at {count} of {len(verdicts)} times)" for verdict, count in counts)
