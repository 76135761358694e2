"""Numbers and names in the pages are those of the shipped model, of the published lists and of the program."""

from __future__ import annotations

import re
from typing import Any

import pytest

import avloc
from avloc.annotations import testsets
from avloc.annotations.testsets import published_list
from avloc.localize.verdict import VerdictRule
from tests import pages
from tests.program import ROOT

README = pages.README.read_text(encoding="utf-8")


def numbers(cell: str) -> list[int]:
    """Integers of a cell, with a space between thousands."""
    return [int(each.replace(" ", "")) for each in re.findall(r"\d+(?: \d{3})*", cell)]


def names(cell: str) -> list[str]:
    return re.findall(r"`([\w-]+)`", cell)


# --- the shipped model

CARD: dict[str, Any] = dict(avloc.load().card)
MODEL = pages.text("models")
MAPS = {
    "shipped": "shipped",
    "similarity map alone": "av",
    "shipped map without its similarity map": "deaf",
    "object prior alone": "own",
    "centred disc": "disc",
}
"""Row of the table of scores -> key of the card."""
SOUNDS = {"of the object": "right", "of another class": "wrong", "silence": "silent"}
"""Row of the table of verdicts -> key of the card."""


def percent(text: str) -> Any:
    """A number in percent with one decimal, as a share; it equals what rounds to it."""
    return pytest.approx(float(text) / 100, abs=0.00051)


def test_scores_of_scenes_and_pictures_are_those_of_the_card() -> None:
    score = CARD["score"]
    rows = {name: cells for name, *cells in pages.rows(MODEL, "| map | side by side |") if cells[0]}
    assert rows.keys() == MAPS.keys()
    for name, (*scenes, pictures) in rows.items():
        key = MAPS[name]
        assert [score["scenes"][layout][key] for layout in ("side", "on", "crowded")] == [*map(percent, scenes)]
        assert score["boxed"][key] == [*map(percent, pictures.split(" / "))]
    assert {layout["n"] for layout in score["scenes"].values()} == {320}
    assert "320 of each layout" in MODEL
    assert f"*Pictures* are {score['boxed']['n']} pairs" in MODEL


VERDICTS = ("matches", "unsure", "no_match", "silent")


def test_verdicts_are_those_of_the_card() -> None:
    rows = pages.rows(MODEL, "| sound | `matches` | `unsure` | `no_match` | `silent` |")
    verdicts = {key: [found.get(name, 0) for name in VERDICTS] for key, found in CARD["score"]["verdicts"].items()}
    assert {SOUNDS[name]: [*map(int, cells)] for name, *cells in rows} == verdicts
    assert f"Verdicts for {sum(verdicts['right'])} of these pictures" in MODEL


def test_results_on_recorded_clips_are_those_of_the_card() -> None:
    real = CARD["real"]
    found = dict(pages.rows(MODEL, "| five folds | |"))
    shares = {
        side: " / ".join(f"{100 * one[name]:.1f}" for name in VERDICTS[:3]) for side, one in real["verdicts"].items()
    }
    assert found["of right sounds: `matches` / `unsure` / `no_match`"] == shares["right"]
    assert found["of wrong sounds: `matches` / `unsure` / `no_match`"] == shares["wrong"]
    assert found["right against wrong sound: ROC AUC; of the peak cosine alone"] == (
        f"{real['auc']:.3f}; {real['peak_auc']:.3f}"
    )
    *folds, last = (f"{auc:.3f}" for auc in real["auc_by_fold"])
    assert f"The ROC AUC of the folds is {', '.join(folds)} and {last}." in MODEL
    assert found["expected calibration error of `match`"] == f"{real['ece']:.3f}"
    assert found["the same if wrong sounds are twice as likely as right ones"] == f"{real['ece_wrong_twice']:.3f}"
    bins = [[f"{one['match']:.2f}", f"{one['right']:.2f}", f"{100 * one['weight']:.1f}"] for one in real["reliability"]]
    assert pages.rows(MODEL, "| mean `match` | share of right sounds |") == bins
    kinds = ", ".join(f"{kind} {auc:.2f}" for kind, auc in real["auc_by_kind"].items())
    assert f"ROC AUC by kind of picture: {kinds}." in MODEL
    people = real["people"]
    assert f"in {100 * people['share']:.0f} % of {people['clips']} clips of speech" in MODEL
    assert f"{real['clips']} recorded clips ({real['moments']} moments)" in MODEL


def test_scores_of_two_sounds_are_those_of_the_card() -> None:
    mixed = CARD["score"]["mixed"]
    share = r"([\d.]+)"
    words = (
        rf"\*\*Two sounds at once\*\*, (\d+) scenes .+ things in {share} %, .+ in {share} %\. .+ {share} and {share} %:"
    )
    text = re.search(words, MODEL)
    assert text
    assert text.groups() == (
        str(mixed["n"]),
        *(f"{100 * mixed[key]:.1f}" for key in ("known_any", "known_own", "image_any", "image_own")),
    )


def test_the_areas_under_the_curve_are_those_of_the_card() -> None:
    auc = CARD["score"]["auc"]
    text = re.search(r"on (\d+) pictures: ROC AUC ([\d.]+) by the match, ([\d.]+) by the peak cosine alone", MODEL)
    assert text
    assert text.groups() == (str(auc["n"]), *(f"{auc[kind]:.3f}" for kind in ("match", "peak")))


def test_thresholds_fusion_and_settings_are_those_of_the_card() -> None:
    verdict, fusion, config = CARD["verdict"], CARD["fusion"], CARD["config"]
    model = config["model"]
    for text in (
        f"function of {verdict['slope']} times the peak cosine above the cohort's, plus {verdict['offset']}.",
        f"`matches` from {verdict['matches']}, and `no_match` below {verdict['no_match']}.",
        f"`least_effect` is {verdict['least_effect']},",
        f"{1 - fusion['centre']} of the similarity map and the object prior",
        f"a Gaussian of {fusion['smooth']} cells, and {fusion['centre']} of a map that falls from the centre",
        f"a weight of {fusion['least']} where its peak cosine is {fusion['unsure']} or less",
        f"{fusion['most']:g} where it is {fusion['sure']} or more",
        f"(`{CARD['resize']}`)",
        f"{model['frame']}×{model['frame']} pixels; {model['seconds']:.0f} s of mono",
        f"sound at {model['rate'] // 1000} kHz",
        f"into {len(CARD['concepts']) + CARD['unnamed']} dimensions",
        f"{CARD['clips']} clips were composed",
        f"(`loss.visual_hint` {config['loss']['visual_hint']:.0f} at {model['dim']} dimensions)",
        f"weights {config['loss']['peak']:.0f} and {config['loss']['box']:.0f} |",
        f"{config['epochs']} epochs |",
    ):
        assert text in MODEL, text


def test_the_default_of_the_least_effect_is_that_of_the_rule() -> None:
    assert f"less than `least_effect`, by default {VerdictRule().least_effect}," in pages.text("localize")


def test_the_share_of_scenes_in_the_readme_is_that_of_the_card() -> None:
    scenes = CARD["score"]["scenes"].values()
    stated = re.search(r"(\d+) % of held-out scenes, and a centred disc's in half of them", README)
    assert stated
    assert int(stated[1]) == round(100 * sum(each["shipped"] for each in scenes) / len(scenes))
    assert 0.45 < sum(each["disc"] for each in scenes) / len(scenes) < 0.55


# --- published lists and test sets


def test_sizes_of_the_lists() -> None:
    stated = {
        name: size
        for lists, sizes, _ in pages.rows(pages.text("prepare"), "| list | clips |")
        for name, size in zip(names(lists), numbers(sizes), strict=True)
    }
    assert stated == {name: len(published_list(name)) for name in testsets.list_names()}
    silent = len(published_list("vggss_ext")) - len(published_list("vggss_test"))
    assert f"`vggss_test` and {silent} clips of the silent pairs" in pages.text("prepare")


def test_sizes_of_the_test_sets() -> None:
    rows = pages.rows(pages.text("evaluate"), "| `--testset` | clips |")
    assert sorted(name for sets, *_ in rows for name in names(sets)) == sorted(testsets.TESTSETS)
    for sets, sizes, _ in rows:
        expected = [len(testsets.testset_ids(name)) for name in names(sets)]
        for name in {*names(sets)} & {*testsets.EXTENDED}:
            more = len(published_list(testsets.TESTSETS[name])) - len(testsets.testset_ids(name))
            expected += [len(testsets.silent_pairs(name))] + [more] * (more > 0)
        assert numbers(sizes) == expected


# --- names of formats, and a score that is in two pages


def test_the_schemas_of_the_pages_are_those_of_the_program() -> None:
    found = {
        name
        for path in (ROOT / "avloc").rglob("*.py")
        for name in re.findall(r'SCHEMA = "(avloc\.[\w-]+/\d+)"', path.read_text(encoding="utf-8"))
    }
    described = {name for page in pages.REFERENCE for name in re.findall(r"`(avloc\.[\w-]+/\d+)`", page.read_text())}
    assert described == found


def test_the_disc_of_the_readme_has_the_score_of_the_table() -> None:
    table = pages.shown(pages.text("evaluate"))["eval --testset vggss --maps baselines"]
    row = re.search(r"^centre disc +([\d.]+) ", table, re.MULTILINE)
    stated = re.search(r"centred disc, [^.]+ cIoU@0\.5 ([\d.]+) on VGG-SS", README)
    assert row
    assert stated
    assert stated[1] == f"{float(row[1]):.1f}"
