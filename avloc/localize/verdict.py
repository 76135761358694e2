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
    IGNORES = "ignores"
    SILENT = "silent"

    @property
    def sentence(self) -> str:
        """The verdict for a person."""
        return _SENTENCES[self]


_SENTENCES = {
    Verdict.FOLLOWS: "the map follows the sound",
    Verdict.IGNORES: "this picture would light up the same with any sound",
    Verdict.SILENT: "silent: no source",
}


@dataclass(frozen=True, kw_only=True)
class VerdictRule:
    """Thresholds of the verdict; a model file may carry its own."""

    least_effect: float = 0.05
    """A map follows the sound if silence and noise each move it at least this far: mean absolute difference of heat
    maps, 0 to 1."""
    least_gain: float = -2.0
    """And if its peak cosine exceeds that with silence and that with noise by at least this; -2 asks for nothing."""

    def __post_init__(self) -> None:
        if not 0 <= self.least_effect <= 1:
            raise UsageError(f"verdict.least_effect = {self.least_effect} is impossible; valid: 0 to 1")
        if not -2 <= self.least_gain <= 2:
            raise UsageError(f"verdict.least_gain = {self.least_gain} is impossible; valid: -2 to 2")

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
    rule: VerdictRule,
    *,
    silent: bool,
    sound_effect: float,
    sound_effect_noise: float,
    peak_similarity: float,
    peak_with_silence: float,
    peak_with_noise: float,
) -> Verdict:
    """The verdict on one map.

    Args:
        rule: thresholds.
        silent: there is nothing to hear.
        sound_effect: how far silence in place of the sound moves the heat map, 0 to 1.
        sound_effect_noise: how far noise of the same loudness moves it.
        peak_similarity: largest cosine of the picture's cells with the sound.
        peak_with_silence: the same with silence.
        peak_with_noise: the same with noise.
    """
    if silent:
        return Verdict.SILENT
    effect = min(sound_effect, sound_effect_noise)
    gain = peak_similarity - max(peak_with_silence, peak_with_noise)
    return Verdict.FOLLOWS if effect >= rule.least_effect and gain >= rule.least_gain else Verdict.IGNORES


def summary(verdicts: Sequence[Verdict]) -> str:
    """One sentence about several moments of a clip, the commonest verdict first."""
    counts = Counter(verdicts).most_common()
    if len(counts) <= 1:
        return counts[0][0].sentence if counts else ""
    return "; ".join(f"{verdict.sentence} (at {count} of {len(verdicts)} times)" for verdict, count in counts)
