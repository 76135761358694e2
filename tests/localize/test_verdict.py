"""Verdicts: the rule, its thresholds and its sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import avloc
from avloc.errors import UsageError, WeightsError
from avloc.localize.verdict import Verdict, VerdictRule, judge, summary, warning
from tests import pages
from tests.media_makers import disc, tone
from tests.responsive_model import RATE, save_responsive

NUMBERS = ("sound_effect", "sound_effect_noise", "peak_similarity")
FRAME = disc((64, 48), (0.3, 0.5))


@pytest.mark.parametrize("page", [pages.README, *(path for path in pages.REFERENCE if path.parent.name == "localize")])
def test_the_tables_of_the_pages_have_exactly_the_verdicts_and_their_sentences(page):
    rows = pages.rows(page.read_text(encoding="utf-8"), "| verdict |")
    assert {name: sentence for name, sentence, _ in rows} == {f"`{verdict}`": verdict.sentence for verdict in Verdict}


def judged(*values: float, silent: bool = False, **rule: float) -> str:
    return judge(VerdictRule(**rule), silent=silent, **dict(zip(NUMBERS, values, strict=True)))


@pytest.mark.parametrize(
    ("values", "rule", "verdict"),
    [
        ((0.2, 0.2, 0.5), {}, "follows"),
        ((0.2, 0.01, 0.5), {}, "ignores"),
        ((0.01, 0.2, 0.5), {}, "ignores"),
        ((0.05, 0.05, 0.5), {}, "follows"),
        ((0.2, 0.2, -1.0), {}, "follows"),
        ((0.2, 0.2, 0.25), {"least_similarity": 0.25}, "follows"),
        ((0.2, 0.2, 0.24), {"least_similarity": 0.25}, "unmatched"),
        ((0.2, 0.01, 0.24), {"least_similarity": 0.25}, "ignores"),
        ((0.2, 0.2, 0.5), {"least_effect": 0.3}, "ignores"),
    ],
)
def test_the_rule(values, rule, verdict):
    assert judged(*values, **rule) == verdict
    assert judged(*values, **rule, silent=True) == "silent"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2), st.floats(-1, 1))
def test_stricter_thresholds_never_give_follows_more_often(effects, peak):
    found = [judged(*effects, peak, least_effect=level) == "follows" for level in (0.0, 0.1, 0.5, 1.0)]
    by_peak = [judged(*effects, peak, least_similarity=level) == "follows" for level in (-1.0, 0.0, 0.5)]
    assert found == sorted(found, reverse=True)
    assert by_peak == sorted(by_peak, reverse=True)


def test_the_sentences():
    assert [verdict.sentence for verdict in Verdict] == [
        "the map follows the sound",
        "no visible source for this sound",
        "the map does not depend on the sound",
        "silent: no source",
    ]


def test_a_video_has_a_warning_if_no_map_follows_its_sound():
    follows, unmatched, ignores, silent = Verdict.FOLLOWS, Verdict.UNMATCHED, Verdict.IGNORES, Verdict.SILENT
    assert warning([]) == warning([silent] * 3) == warning([unmatched, unmatched, follows]) == ""
    assert warning([silent, unmatched, silent]) == warning([ignores, unmatched, unmatched]) == unmatched.sentence
    assert warning([ignores, ignores, unmatched, silent]) == ignores.sentence


def test_a_summary_of_several_times():
    follows, silent = Verdict.FOLLOWS, Verdict.SILENT
    assert summary([]) == ""
    assert summary([follows] * 3) == "the map follows the sound"
    assert summary([silent, follows, follows]) == (
        "the map follows the sound (at 2 of 3 times); silent: no source (at 1 of 3 times)"
    )


@pytest.mark.parametrize(("name", "value"), [("least_effect", -0.1), ("least_effect", 1.1), ("least_similarity", 1.5)])
def test_invalid_thresholds(name, value):
    with pytest.raises(UsageError, match=f"verdict.{name} = {value} is impossible"):
        VerdictRule(**{name: value})


def test_thresholds_from_a_model_file(tmp_path):
    assert VerdictRule.from_card({}) == VerdictRule()
    responsive = avloc.load(save_responsive(tmp_path / "plain.safetensors"))
    result = responsive.localize(FRAME, tone(3, RATE), RATE)
    effect = min(result.sound_effect, result.sound_effect_noise)
    assert (result.verdict, effect > 0.05) == ("follows", True)
    for name, value, verdict in (
        ("least_effect", effect + 0.01, "ignores"),
        ("least_similarity", result.peak_similarity + 0.01, "unmatched"),
    ):
        strict = avloc.load(save_responsive(tmp_path / "strict.safetensors", verdict={name: value}))
        assert strict.localize(FRAME, tone(3, RATE), RATE).verdict == verdict


@pytest.mark.parametrize("entry", ["strict", {"least": 1.0}, {"least_effect": "much"}, {"least_effect": 7.0}])
def test_errors_name_invalid_thresholds_in_a_model_file(entry):
    with pytest.raises(WeightsError, match=r"the model's card .*verdict"):
        VerdictRule.from_card({"verdict": entry})


def test_a_model_that_ignores_sound_is_detected(tmp_path):
    constant = avloc.load(save_responsive(tmp_path / "constant.safetensors", constant_audio=True))
    result = constant.localize(FRAME, tone(3, RATE), RATE)
    assert (result.sound_effect, result.sound_effect_noise, result.verdict) == (0.0, 0.0, "ignores")
    assert constant.localize(FRAME, 0 * tone(3, RATE), RATE).verdict == "silent"
