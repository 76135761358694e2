"""Verdict: whether the source of a sound is in the picture. Pure functions of a few numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import Any

from avloc.config import from_dict
from avloc.errors import UsageError, WeightsError

VERDICT_KEY = "verdict"
"""Key of a model's calibration and thresholds in its card."""
_UNCALIBRATED_KEY = "least_similarity"
"""Threshold of the peak cosine in cards of avloc 0.2 and earlier; it gives no probability and is not used."""
_STEEPEST = 700.0
"""Largest exponent, in double precision `exp` overflows above 709."""


class Verdict(StrEnum):
    """Whether the source of the sound is in the picture, by the calibrated probability."""

    MATCHES = "matches"
    UNSURE = "unsure"
    NO_MATCH = "no_match"
    SILENT = "silent"

    @property
    def sentence(self) -> str:
        """The verdict as printed and drawn."""
        return _SENTENCES[self]


_SENTENCES = {
    Verdict.MATCHES: "the source is in the picture",
    Verdict.UNSURE: "unsure whether the source is in the picture",
    Verdict.NO_MATCH: "no source of this sound in the picture",
    Verdict.SILENT: "silent: no source",
}
_DEPENDS = "the map depends on the sound"
_HARDLY_DEPENDS = "the map hardly depends on the sound"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Verdict and its reasons, for one time or for a clip."""

    match: float | None
    """Probability that the source of the sound is in the picture; None without calibration, and for silence."""
    verdict: Verdict | None
    """None for a sound without `match`."""
    depends_on_sound: bool
    """Whether silence and noise each change the map by `VerdictRule.least_effect`; of a clip, at any time."""

    @property
    def sentence(self) -> str:
        """The judgement as printed."""
        if self.verdict is Verdict.SILENT:
            return self.verdict.sentence
        if self.match is None or self.verdict is None:
            return _DEPENDS if self.depends_on_sound else _HARDLY_DEPENDS
        text = f"match {self.match:.2f}: {self.verdict.sentence}"
        return text if self.depends_on_sound else f"{text}; {_HARDLY_DEPENDS}"

    @property
    def caption(self) -> str:
        """Text drawn over a heat map: doubt about the source, or without calibration about the map; else ''."""
        if self.verdict is None:
            return "" if self.depends_on_sound else _HARDLY_DEPENDS
        return self.verdict.sentence if self.verdict in (Verdict.UNSURE, Verdict.NO_MATCH) else ""


_SILENT = Judgement(match=None, verdict=Verdict.SILENT, depends_on_sound=False)


@dataclass(frozen=True, kw_only=True)
class VerdictRule:
    """Calibration and thresholds of the verdict, from a model's card.

    The match is the logistic function of `slope * (peak cosine - cohort's cosine) + offset` (Platt scaling, 1999).
    Without slope and offset the model has no calibration.
    """

    slope: float | None = None
    offset: float | None = None
    matches: float = 0.6
    """The source is in the picture if the match reaches this."""
    no_match: float = 0.3
    """It is not in the picture if the match is below this."""
    least_effect: float = 0.05
    """A map depends on the sound if silence and noise each change it by this mean absolute difference, 0 to 1."""
    cohort: bool = False
    """Whether slope and offset are for peaks above the model's cohort (`avloc.engine.Cohort`), or for peaks alone."""

    def __post_init__(self) -> None:
        if (self.slope is None) != (self.offset is None):
            raise UsageError(f"{VERDICT_KEY}.slope and {VERDICT_KEY}.offset need each other; valid: both or neither")
        if self.slope is not None and not 0 < self.slope < math.inf:
            raise _impossible("slope", self.slope, "a finite number above 0")
        if self.offset is not None and not math.isfinite(self.offset):
            raise _impossible("offset", self.offset, "a finite number")
        if not 0 <= self.matches <= 1:
            raise _impossible("matches", self.matches, "0 to 1")
        if not 0 <= self.no_match <= self.matches:
            raise _impossible("no_match", self.no_match, f"0 to {VERDICT_KEY}.matches = {self.matches}")
        if not 0 <= self.least_effect <= 1:
            raise _impossible("least_effect", self.least_effect, "0 to 1")

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> VerdictRule:
        """The rule under `verdict` in a model's card, or the defaults.

        Raises:
            WeightsError: an invalid entry.
        """
        entry = card.get(VERDICT_KEY, {})
        if not isinstance(entry, Mapping):
            raise WeightsError(f"the model's card has no table under {VERDICT_KEY!r}")
        known = {name: value for name, value in entry.items() if name != _UNCALIBRATED_KEY}
        try:
            return from_dict(cls, known, f"{VERDICT_KEY}.")
        except UsageError as error:
            raise WeightsError(f"the model's card has an invalid verdict: {error}") from error

    def match(self, peak_similarity: float, cohort_similarity: float = 0.0) -> float | None:
        """Probability that the source of a sound is in the picture; None without calibration.

        Args:
            peak_similarity: largest cosine.
            cohort_similarity: of the model's cohort (`avloc.engine.Cohort`); 0 for a model without.

        Raises:
            UsageError: a cosine is not finite.
        """
        cosines = {"peak_similarity": peak_similarity, "cohort_similarity": cohort_similarity}
        for name, value in cosines.items():
            if not math.isfinite(value):
                raise UsageError(f"{name} = {value} is impossible; valid: a finite number")
        if self.slope is None or self.offset is None:
            return None
        logit = self.slope * (peak_similarity - cohort_similarity) + self.offset
        return 1 / (1 + math.exp(min(-logit, _STEEPEST)))

    def judge(
        self,
        *,
        silent: bool,
        sound_effect: float,
        sound_effect_noise: float,
        peak_similarity: float,
        cohort_similarity: float = 0.0,
    ) -> Judgement:
        """The judgement on a map with these measurements, see `avloc.Result`."""
        if silent:
            return _SILENT
        depends = min(sound_effect, sound_effect_noise) >= self.least_effect
        return self._judgement(self.match(peak_similarity, cohort_similarity), depends_on_sound=depends)

    def judge_clip(self, times: Sequence[Judgement]) -> Judgement:
        """The judgement on a clip, by `clip_match` and the same thresholds; silent if all of its times are."""
        sounding = [one for one in times if one.verdict is not Verdict.SILENT]
        if not sounding:
            return _SILENT
        depends = any(one.depends_on_sound for one in sounding)
        return self._judgement(clip_match(one.match for one in sounding), depends_on_sound=depends)

    def _judgement(self, match: float | None, *, depends_on_sound: bool) -> Judgement:
        return Judgement(match=match, verdict=self._verdict(match), depends_on_sound=depends_on_sound)

    def _verdict(self, match: float | None) -> Verdict | None:
        if match is None:
            return None
        if match >= self.matches:
            return Verdict.MATCHES
        return Verdict.NO_MATCH if match < self.no_match else Verdict.UNSURE


def clip_match(matches: Iterable[float | None]) -> float | None:
    """Probability that the source of a clip's sound is in its pictures, from the `match` of several times: the mean.

    Times without `match`, such as silent ones, are left out; None if no time has one.

    Raises:
        UsageError: a number outside 0 to 1.
    """
    known = [match for match in matches if match is not None]
    for match in known:
        if not 0 <= match <= 1:
            raise UsageError(f"match = {match} is impossible; valid: 0 to 1")
    return fmean(known) if known else None


def summary(clip: Judgement, times: Sequence[Judgement]) -> str:
    """One line for a clip and its times, with the number of silent ones."""
    silent = sum(one.verdict is Verdict.SILENT for one in times)
    some = 0 < silent < len(times)
    return f"{clip.sentence}; silent at {silent} of {len(times)} times" if some else clip.sentence


def _impossible(name: str, value: float, valid: str) -> UsageError:
    return UsageError(f"{VERDICT_KEY}.{name} = {value} is impossible; valid: {valid}")
