"""Verdicts: calibration, thresholds, sentences, and the match of a clip with several times."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import avloc
from avloc.errors import UsageError, WeightsError
from avloc.localize.verdict import Judgement, Verdict, VerdictRule, clip_match, summary
from tests import pages
from tests.media_makers import disc, tone
from tests.responsive_model import RATE, save_responsive

FRAME = disc((64, 48), (0.3, 0.5))
LINEAR = {"slope": 4.0, "offset": -1.0}
SHARES = st.floats(0, 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
HARDLY = "the map hardly depends on the sound"


def judged(
    peak: float = 0.5,
    cohort: float = 0.0,
    *,
    effects: tuple[float, float] = (0.2, 0.2),
    silent: bool = False,
    **rule: float,
):
    measured = {"peak_similarity": peak, "cohort_similarity": cohort}
    effect, noise = effects
    return VerdictRule(**rule).judge(silent=silent, sound_effect=effect, sound_effect_noise=noise, **measured)


def judged_clip(*matches: float | None, depends: bool = True, **rule: float) -> Judgement:
    times = [Judgement(match=match, verdict=None, depends_on_sound=depends) for match in matches]
    return VerdictRule(**rule).judge_clip(times)


SILENT = judged(silent=True)


@pytest.mark.parametrize("page", [pages.README, *(path for path in pages.REFERENCE if path.parent.name == "localize")])
def test_the_tables_of_the_pages_have_exactly_the_verdicts_and_their_sentences(page):
    rows = pages.rows(page.read_text(encoding="utf-8"), "| verdict |")
    assert {name: sentence for name, sentence, _ in rows} == {f"`{verdict}`": verdict.sentence for verdict in Verdict}


# --- the match of one time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("peak", "logit"), [(0.25, 0), (0.75, 2), (-1.0, -5)])
def test_the_match_is_the_logistic_function_of_the_peak(peak, logit):
    assert VerdictRule(**LINEAR).match(peak) == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-12)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_the_match_is_that_of_the_peak_above_the_cohort(peak, cohort):
    rule = VerdictRule(**LINEAR)
    assert rule.match(peak, cohort) == pytest.approx(rule.match(peak - cohort), rel=1e-9)
    judgement = judged(peak, cohort, **LINEAR)
    assert judgement.match == rule.match(peak, cohort)


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False), FINITE, st.lists(st.floats(-1, 1), min_size=2))
def test_a_higher_peak_never_has_a_lower_match(slope, offset, peaks):
    rule = VerdictRule(slope=slope, offset=offset)
    matches = [rule.match(peak) for peak in sorted(peaks)]
    assert all(0 <= lower <= higher <= 1 for lower, higher in pairwise(matches))


@pytest.mark.parametrize(
    ("slope", "offset", "matches"),
    [(1e308, 0.0, (0, 0.5, 1)), (1e308, 1e308, (0.5, 1, 1)), (1e308, -1e308, (0, 0, 0.5)), (1.0, -1e308, (0, 0, 0))],
)
def test_an_extreme_calibration_does_not_overflow(slope, offset, matches):
    rule = VerdictRule(slope=slope, offset=offset)
    assert [rule.match(peak) for peak in (-1.0, 0.0, 1.0)] == pytest.approx(matches, abs=1e-300)


@pytest.mark.parametrize("peak", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", [{}, LINEAR])
def test_a_peak_that_is_not_finite_is_refused(peak, rule):
    with pytest.raises(UsageError, match=f"peak_similarity = {peak}"):
        judged(peak, **rule)
    with pytest.raises(UsageError, match=f"cohort_similarity = {peak}"):
        judged(0.5, peak, **rule)


def test_without_calibration_there_is_neither_match_nor_verdict():
    for peak in (-1.0, 0.0, 1.0):
        assert (judged(peak).match, judged(peak).verdict) == (None, None)


def test_silence_has_a_verdict_but_no_match():
    for rule in ({}, LINEAR):
        silent = judged(1.0, silent=True, **rule)
        assert (silent.match, silent.verdict) == (None, "silent")


# --- thresholds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "verdict"), [(1, "matches"), (0.75, "matches"), (0.74, "unsure"), (0.25, "unsure"), (0.24, "no_match")]
)
def test_the_thresholds(match, verdict):
    assert judged_clip(match, matches=0.75, no_match=0.25).verdict == verdict


@given(st.floats(-1, 1), st.lists(SHARES, min_size=4, max_size=4))
def test_stricter_thresholds_never_give_a_better_verdict(peak, thresholds):
    worst_first = [Verdict.NO_MATCH, Verdict.UNSURE, Verdict.MATCHES]
    lax_no_match, strict_no_match, lax, strict = sorted(thresholds)
    by_matches = [judged(peak, **LINEAR, no_match=lax_no_match, matches=value).verdict for value in (strict, lax)]
    by_no_match = [
        judged(peak, **LINEAR, no_match=value, matches=strict).verdict for value in (strict_no_match, lax_no_match)
    ]
    for verdicts in (by_matches, by_no_match):
        assert verdicts == sorted(verdicts, key=worst_first.index)


@given(st.floats(-1, 1), st.tuples(SHARES, SHARES), SHARES)
def test_the_effect_of_the_sound_never_changes_the_verdict(peak, effects, least):
    found = judged(peak, effects=effects, least_effect=least, **LINEAR)
    assert found.verdict == judged(peak, **LINEAR).verdict
    assert found.depends_on_sound == (min(effects) >= least)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"slope": 0.0, "offset": 1.0}, "slope"),
        ({"slope": -1.0, "offset": 1.0}, "slope"),
        ({"slope": math.nan, "offset": 1.0}, "slope"),
        ({"slope": math.inf, "offset": 1.0}, "slope"),
        ({"slope": 1.0, "offset": math.nan}, "offset"),
        ({"slope": 1.0, "offset": -math.inf}, "offset"),
        ({"matches": 1.1}, "matches"),
        ({"matches": math.nan}, "matches"),
        ({"no_match": -0.1}, "no_match"),
        ({"no_match": 0.8, "matches": 0.7}, "no_match"),
        ({"no_match": math.nan}, "no_match"),
        ({"least_effect": -0.1}, "least_effect"),
        ({"least_effect": math.nan}, "least_effect"),
    ],
)
def test_an_invalid_value_is_named(values, name):
    with pytest.raises(UsageError, match=rf"verdict.{name} = {values[name]} is impossible; valid: "):
        VerdictRule(**values)


@pytest.mark.parametrize("name", ["slope", "offset"])
def test_slope_and_offset_need_each_other(name):
    with pytest.raises(UsageError, match="both or neither"):
        VerdictRule(**{name: 1.0})


# --- sentences --------------------------------------------------------------------------------------------------


def test_the_sentences():
    assert [judged_clip(match).sentence for match in (0.871, 0.5, 0.2)] == [
        "match 0.87: the source is in the picture",
        "match 0.50: unsure whether the source is in the picture",
        "match 0.20: no source of this sound in the picture",
    ]
    assert SILENT.sentence == "silent: no source"
    assert judged_clip(0.9, depends=False).sentence == f"match 0.90: the source is in the picture; {HARDLY}"
    assert judged().sentence == "the map depends on the sound"
    assert judged(effects=(0.2, 0.01)).sentence == judged(effects=(0.01, 0.2)).sentence == HARDLY


def test_a_caption_states_doubt_about_the_map():
    assert [judged_clip(match).caption for match in (0.9, 0.5, 0.2)] == [
        "",
        "unsure whether the source is in the picture",
        "no source of this sound in the picture",
    ]
    assert judged_clip(0.9, depends=False).caption == ""
    assert (judged().caption, judged(effects=(0.0, 0.2)).caption) == ("", HARDLY)
    assert SILENT.caption == "", "only maps with heat have it"


# --- several times of one clip ----------------------------------------------------------------------------------


def test_the_match_of_a_clip_is_the_mean_over_the_times_that_have_one():
    assert avloc.clip_match is clip_match
    assert clip_match([0.25, None, 0.75]) == 0.5
    assert clip_match(iter([0.9])) == 0.9
    assert clip_match([]) is clip_match([None, None]) is None


@given(st.lists(SHARES, min_size=1), SHARES)
def test_the_match_of_a_clip_is_monotone_and_between_those_of_its_times(matches, more):
    found = clip_match(matches)
    assert min(matches) - 1e-12 <= found <= max(matches) + 1e-12
    assert clip_match([max(matches[0], more), *matches[1:]]) >= found - 1e-12


@pytest.mark.parametrize("match", [math.nan, -0.1, 1.1, math.inf])
def test_an_impossible_match_is_refused(match):
    with pytest.raises(UsageError, match=f"match = {match} is impossible"):
        clip_match([0.5, match])


def test_the_verdict_on_a_clip_has_the_same_thresholds():
    rule = VerdictRule(**LINEAR)
    times = [rule.judge(silent=False, sound_effect=0.2, sound_effect_noise=0.2, peak_similarity=p) for p in (0.9, 0.4)]
    clip = rule.judge_clip([*times, SILENT])
    assert clip.match == clip_match([times[0].match, times[1].match])
    assert (times[1].verdict, clip.verdict) == ("matches", "matches")
    assert rule.judge_clip([SILENT, SILENT]) == SILENT
    assert VerdictRule().judge_clip([judged(), SILENT]) == judged()


def test_the_map_of_a_clip_depends_on_its_sound_if_one_of_its_times_does():
    constant = judged(effects=(0.0, 0.0))
    assert VerdictRule().judge_clip([constant, judged()]).depends_on_sound
    assert not VerdictRule().judge_clip([constant, SILENT, constant]).depends_on_sound


def test_a_summary_has_the_number_of_silent_times():
    clip = judged_clip(0.9)
    sounding = judged(**LINEAR)
    assert summary(clip, [sounding] * 3) == clip.sentence
    assert summary(clip, [SILENT, sounding, sounding]) == f"{clip.sentence}; silent at 1 of 3 times"
    assert summary(SILENT, [SILENT] * 3) == "silent: no source"


# --- model files ------------------------------------------------------------------------------------------------


def test_a_rule_from_a_model_file(tmp_path):
    assert VerdictRule.from_card({}) == VerdictRule()
    plain = avloc.load(save_responsive(tmp_path / "plain.safetensors"))
    result = plain.localize(FRAME, tone(3, RATE), RATE)
    assert (result.match, result.verdict, result.judgement.depends_on_sound) == (None, None, True)
    effect = min(result.sound_effect, result.sound_effect_noise)
    for offset, verdict in ((1.0, "matches"), (0.0, "unsure"), (-1.0, "no_match")):
        card = {"slope": 2.0, "offset": offset - 2 * result.peak_similarity, "least_effect": effect + 0.01}
        model = avloc.load(save_responsive(tmp_path / "calibrated.safetensors", verdict=card))
        found = model.localize(FRAME, tone(3, RATE), RATE)
        assert found.match == pytest.approx(1 / (1 + math.exp(-offset)), abs=1e-6)
        assert (found.verdict, found.judgement.depends_on_sound) == (verdict, False)
        assert (found.as_json()["match"], found.as_json()["verdict"]) == (found.match, verdict)


def test_a_card_of_avloc_0_2_is_read_without_calibration():
    assert VerdictRule.from_card({"verdict": {"least_effect": 0.04, "least_similarity": 0.415}}) == VerdictRule(
        least_effect=0.04
    )


@pytest.mark.parametrize(
    "entry",
    [
        "strict",
        {"least": 1.0},
        {"least_effect": "much"},
        {"least_effect": 7.0},
        {"slope": 1.0},
        {"slope": None, "offset": None},
        {"slope": 1.0, "offset": "none"},
        {"slope": math.nan, "offset": 0.0},
    ],
)
def test_errors_name_an_invalid_rule_in_a_model_file(entry):
    with pytest.raises(WeightsError, match=r"the model's card .*verdict"):
        VerdictRule.from_card({"verdict": entry})


def test_a_model_that_ignores_sound_is_detected(tmp_path):
    constant = avloc.load(save_responsive(tmp_path / "constant.safetensors", constant_audio=True))
    result = constant.localize(FRAME, tone(3, RATE), RATE)
    assert (result.sound_effect, result.sound_effect_noise, result.judgement.sentence) == (0.0, 0.0, HARDLY)
    assert constant.localize(FRAME, 0 * tone(3, RATE), RATE).verdict == "silent"
