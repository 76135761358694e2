"""Whether a heat map has to do with the sound, in words that anybody understands. Pure functions of a few numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from avloc.config import from_dict
from avloc.errors import UsageError, WeightsError

CARD_KEY = "verdict"
"""Where a model file keeps the thresholds that were calibrated for it."""


class Verdict(StrEnum):
    """What the map of one picture and one sound is worth."""

    FOLLOWS = "follows"
    UNMATCHED = "unmatched"
    IGNORES = "ignores"
    SILENT = "silent"

    @property
    def sentence(self) -> str:
        """The verdict for a person."""
        return _SENTENCES[self]


_SENTENCES = {
    Verdict.FOLLOWS: "the map follows the sound",
    Verdict.UNMATCHED: "nothing in this picture fits the sound",
    Verdict.IGNORES: "this picture would light up the same with any sound",
    Verdict.SILENT: "silent: no source",
}


@dataclass(frozen=True, kw_only=True)
class VerdictRule:
    """Thresholds of the verdict; a model file may carry its own."""

    least_effect: float = 0.05
    """A map depends on the sound if silence and noise each move it at least this far: mean absolute difference of heat
    maps, 0 to 1."""
    least_similarity: float = -1.0
    """And something in the picture fits the sound if the largest cosine reaches this; -1 asks for nothing."""

    def __post_init__(self) -> None:
        if not 0 <= self.least_effect <= 1:
            raise UsageError(f"verdict.least_effect = {self.least_effect} is impossible; valid: 0 to 1")
        if not -1 <= self.least_similarity <= 1:
            raise UsageError(f"verdict.least_similarity = {self.least_similarity} is impossible; valid: -1 to 1")

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> VerdictRule:
        """The rule that a model's card holds under `verdict`, else the defaults.

        Raises:
            WeightsError: the card's entry is no such rule.
        """
        entry = card.get(CARD_KEY, {})
        if not isinstance(entry, Mapping):
            raise WeightsError(f"the model's card holds no table under {CARD_KEY!r}")
        try:
            return from_dict(cls, entry, f"{CARD_KEY}.")
        except UsageError as error:
            raise WeightsError(f"the model's card has an unusable verdict: {error}") from error


def judge(
    rule: VerdictRule, *, silent: bool, sound_effect: float, sound_effect_noise: float, peak_similarity: float
) -> Verdict:
    """The verdict on one map.

    Args:
        rule: thresholds.
        silent: there is nothing to hear.
        sound_effect: how far silence in place of the sound moves the heat map, 0 to 1.
        sound_effect_noise: how far noise of the same loudness moves it.
        peak_similarity: largest cosine of the picture's cells with the sound.
    """
    if silent:
        return Verdict.SILENT
    if min(sound_effect, sound_effect_noise) < rule.least_effect:
        return Verdict.IGNORES
    return Verdict.FOLLOWS if peak_similarity >= rule.least_similarity else Verdict.UNMATCHED


def warning(verdicts: Sequence[Verdict]) -> str:
    """What has to stand on a video none of whose maps with sound follows it: their most frequent sentence; else ''."""
    heard = [verdict for verdict in verdicts if verdict is not Verdict.SILENT]
    if not heard or Verdict.FOLLOWS in heard:
        return ""
    return max(heard, key=heard.count).sentence


def summary(verdicts: Sequence[Verdict]) -> str:
    """One sentence about several moments of a clip, the commonest verdict first."""
    counts = Counter(verdicts).most_common()
    if len(counts) <= 1:
        return counts[0][0].sentence if counts else ""
    return "; ".join(f"{verdict.sentence} (at {count} of {len(verdicts)} times)" for verdict, count in counts)
