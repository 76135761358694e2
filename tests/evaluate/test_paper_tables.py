"""The paper's tables: published rows as published, our runs beside the row that their model files speak of."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from avloc.annotations.testsets import list_names, published_list
from avloc.errors import UsageError
from avloc.evaluate.paper_tables import TABLES, TRAINING_LISTS, fill, find_table, table_json
from avloc.protocols import PROTOCOLS
from tests.eval_makers import card, report

ROOT = Path(__file__).resolve().parents[2]
FLICKR = sorted(published_list("flickr_test")[:4])
SHORT = {"Flickr 10k": "F10k", "Flickr 144k": "F144k", "VGGSound 10k": "V10k", "VGGSound 144k": "V144k"}
LOW, HIGH = [0.2, 0.3, 0.6, 0.1], [0.9, 0.5, 0.6, 0.1]


def run(name: str, scores: list[float] = LOW, **more):
    """A run with both hints on the paper's Flickr 10k, scored on Flickr-SoundNet."""
    return report(name, {"av": scores, "fused": HIGH}, FLICKR, **more)


def ours(filled, label: str) -> list:
    (row,) = [entry for entry in filled if entry.row.label == label and not entry.row.context]
    return row.ours


@pytest.fixture(scope="module")
def pages() -> tuple[str, str]:
    """The facts that the rows were taken from."""
    paths = [ROOT.parent / "shared" / name for name in ("reference.md", "field.md")]
    if not all(path.is_file() for path in paths):
        pytest.skip("needs ../shared/reference.md and ../shared/field.md")
    reference, field = (path.read_text(encoding="utf-8") for path in paths)
    return reference, field


def way(row) -> str:
    return f"{SHORT[row.train_list]}->{ {'flickr': 'F', 'vggss': 'VGGSS'}[row.testset] }"


def test_the_papers_rows_are_as_quoted(pages):
    reference, _ = pages
    block = reference[reference.index("AVC paper numbers") : reference.index("EZ-VSL README")]
    lines = [line.strip("| ").split("|") for line in block.splitlines() if line.count("|") > 3]
    quoted = {cells[0].strip(): [cell.strip().split(" / ") for cell in cells[1:]] for cells in lines}
    own = [row for name in ("flickr", "vggss", "cross") for row in find_table(name).rows if not row.context]
    assert len(own) == 16
    for row in own:
        ways, scores, aucs = quoted[row.label]
        std = "" if row.ciou_50_std is None else f"+-{100 * row.ciou_50_std:.1f}"
        shown = (f"{100 * row.ciou_50:.1f}{std}", f"{100 * row.auc:.1f}")
        assert shown == (scores[ways.index(way(row))], aucs[ways.index(way(row))]), row.label
    ways, scores, aucs = quoted["ablation F10k->F"]
    assert [f"{100 * row.ciou_50:.1f}" for row in find_table("ablation").rows] == scores
    assert [f"{100 * row.auc:.1f}" for row in find_table("ablation").rows] == aucs
    assert [row.label.strip("+ ").removesuffix(" hint") for row in find_table("ablation").rows] == [
        w.strip("+") for w in ways
    ]


def test_rows_of_other_systems_are_as_quoted(pages):
    """Not one number comes from anywhere else, but for FNAC trained on Flickr, which only its README has."""
    everything = "\n".join(pages)
    numbers = set(re.findall(r"\d+\.\d+", everything)) | {"35.27", "38.00", "33.93", "37.29"}
    for row in (row for table in TABLES.values() for row in table.rows if row.context):
        pair = [f"{100 * value:.2f}" for value in (row.ciou_50, row.auc) if value is not None]
        assert all({value, value.removesuffix("0")} & numbers for value in pair), row
        if row.label == "EZ-VSL":
            assert f"{way(row)} {'/'.join(pair)}" in everything, row
        if row.label == "SACL":
            assert f"{SHORT[row.train_list]} {100 * row.ciou_50:.1f}/{100 * row.auc:.1f}" in everything, row


def test_every_row_is_sound():
    for table in TABLES.values():
        ways = [(row.label, row.train_list, row.testset, row.hints, row.kind) for row in table.rows]
        assert len(set(ways)) == len(ways)
        for row in table.rows:
            assert 0 < row.ciou_50 < 1
            assert row.auc is None or 0 < row.auc < 1
            assert row.source
            assert row.context or (
                row.train_list in TRAINING_LISTS and row.note == "mean of ten runs, each the best epoch on the test set"
            )
            assert row.comparable == (row.label not in ("SSPL", "SACL"))
    assert {name for lists in TRAINING_LISTS.values() for name in lists} <= set(list_names())


def test_a_table_goes_by_its_name_and_by_a_number_only_where_that_is_known():
    assert find_table("2").rows == find_table("ablation").rows
    for number in ("1", "3", "4", "5", "6", "7"):
        assert find_table(number).rows == (
            *find_table("flickr").rows,
            *find_table("vggss").rows,
            *find_table("cross").rows,
        )
        data = table_json(find_table(number), [])
        assert (data["number"], f"Table {number} of the paper prints is unknown" in data["title"]) == (None, True)
    for text in ("0", "8", "02", "", "ablation ", "²"):
        with pytest.raises(UsageError, match="is unknown; known: flickr"):
            find_table(text)


def test_without_runs_every_row_of_the_paper_is_marked():
    filled = fill(find_table("flickr"), [])
    assert {entry.status for entry in filled if entry.row.context} == {"context"}
    own = [entry for entry in filled if not entry.row.context]
    assert [(entry.status, entry.ours) for entry in own] == [("not run", [])] * 4
    assert (
        own[0].reason
        == "no model trained on flickr_10k_random or flickr_10k with audio and visual hints, scored on flickr"
    )
    assert fill(find_table("ablation"), [])[0].reason.endswith("with no hints, scored on flickr")


def test_seeds_are_averaged_beside_the_published_row():
    filled = fill(find_table("flickr"), [run("a", LOW), run("b", HIGH, model_card=card(20))])
    (entry,) = ours(filled, "AVC-10k")
    assert (entry.runs, entry.seeds) == (["a", "b"], [10, 20])
    assert entry.ciou_50 == {"mean": 0.5, "std": pytest.approx(math.sqrt(0.125))}
    assert (entry.selection, entry.protocol, entry.testset) == ("last epoch", "avloc", "flickr")
    assert entry.notes == []
    (fused,) = ours(filled, "OG-AVC-10k")
    assert fused.ciou_50 == {"mean": 0.75, "std": 0.0}
    assert [row.status for row in filled if not row.row.context] == ["run", "not run", "run", "not run"]


def test_a_run_fills_the_row_that_its_card_speaks_of():
    """Training list, hints, method, test set and mask decide; a name or a path does not."""
    rows = {
        "base": {},
        "+ audio hint": {"panns": {}},
        "+ visual hint": {"detr": {}},
        "both": {"panns": {}, "detr": {}},
    }
    for label, hints in rows.items():
        filled = fill(find_table("2"), [run("x", model_card=card(hints=hints))])
        assert [entry.row.label for entry in filled if entry.ours] == [label]
    avc = card()
    other_method = {**avc, "config": {**avc["config"], "model": {**avc["config"]["model"], "method": "ezvsl"}}}
    for change in (
        {"model_card": card(training_list="flickr_144k")},
        {"model_card": card(training_list="")},
        {"model_card": {"name": "best_10"}},
        {"model_card": other_method},
        {"testset": "vggss"},
        {"testset": "mine"},
        {"protocol": PROTOCOLS["sspl"]},
        {"clips": report("y", {"av": LOW}, ["a", "b", "c", "d"]).clips},
    ):
        assert not any(entry.ours for entry in fill(find_table("2"), [replace(run("x"), **change)])), change
    (cross,) = [
        e
        for e in fill(find_table("flickr"), [run("x", model_card=card(training_list="flickr_144k"))])
        if e.ours and e.row.kind == "av"
    ]
    assert (cross.row.label, cross.ours[0].training_list) == ("AVC-144k", "flickr_144k")


def test_what_was_trained_chosen_or_scored_differently_is_never_averaged():
    chosen = card(selection="test-selected: best cIoU@0.5 on store flickr, 249 clips", epoch=3)
    reports = [
        run("a"),
        run("b", model_card=card(20)),
        run("copy of b", model_card=card(20), model_hash="hash of b"),
        run("chosen", model_card=chosen),
        run("list of EZ-VSL", model_card=card(training_list="flickr_10k")),
        run("short", model_card=card() | {"config": {**card()["config"], "epochs": 5}}),
        run("lvs", protocol=PROTOCOLS["lvs"]),
        run("250", testset="flickr-250"),
    ]
    entries = ours(fill(find_table("flickr"), reports), "AVC-10k")
    assert [len(entry.runs) for entry in entries] == [2, 1, 1, 1, 1, 1]
    assert [entry.selection for entry in entries] == ["last epoch", "test-selected", *["last epoch"] * 4]
    assert math.isnan(entries[1].ciou_50["std"])
    assert entries[3].notes == ["epochs 5 (paper: 100)"]
    assert (entries[4].protocol, entries[5].testset) == ("lvs", "flickr-250")


def test_what_is_not_the_papers_is_noted():
    config = card()["config"]
    model = {**config["model"], "dim": 512}
    odd = card(clips=9_000) | {
        "config": {**config, "model": model, "batch": 32, "workers": 9, "init": "random"},
        "init": {"weights": "random"},
    }
    (entry,) = ours(fill(find_table("flickr"), [run("odd", model_card=odd, n_expected=249)]), "AVC-10k")
    assert entry.notes == [
        "batch 32 (paper: 128)",
        "model.dim 512 (paper: 2048)",
        "init random (paper: ImageNet)",
        "trained on 9000 of the 10000 clips of the list",
        "245 test clips missing",
    ]
    without = {**config, "loss": {**config["loss"], "audio_hint": 0.0, "visual_hint": 5.0}}
    (entry,) = ours(
        fill(find_table("2"), [run("x", model_card=card(hints={"detr": {}}) | {"config": without})]), "+ visual hint"
    )
    assert entry.notes == ["loss.visual_hint 5.0 (paper: 100000.0)"]


def test_a_map_that_could_not_be_run_is_the_reason():
    alone = report("a", {"av": LOW}, FLICKR, model_card=card(), not_run={"fused": "weights absent"})
    filled = fill(find_table("flickr"), [alone])
    (fused,) = [entry for entry in filled if entry.row.label == "OG-AVC-10k"]
    assert (fused.status, fused.reason) == ("not run", "map fused: weights absent")
    bare = replace(alone, not_run={})
    assert [e.reason for e in fill(find_table("flickr"), [bare]) if e.row.label == "OG-AVC-10k"] == [
        "map fused: not asked for"
    ]


def test_a_filled_table_is_plain_data():
    filled = fill(find_table("2"), [run("a"), run("b", model_card=card(20))])
    data = table_json(find_table("2"), filled)
    assert (data["schema"], data["table"], data["number"]) == ("avloc.table/1", "ablation", 2)
    assert table_json(find_table("cross"), [])["number"] is None
    back = json.loads(json.dumps(data))
    assert back["rows"][3]["row"]["ciou_50"] == 0.777
    assert back["rows"][3]["ours"][0]["runs"] == ["a", "b"]
