"""One `avloc eval` command over several models: runs, seeds, comparisons, the report and the paper's tables."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest

from avloc.checkpoint import LAST_NAME, MODEL_NAME
from avloc.metrics import paired_difference
from tests.eval_makers import to_clip, write
from tests.small_models import save_small
from tests.synthetic_scenes import scenes

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    clips = [to_clip(scene, label=f"class {i % 3}") for i, scene in enumerate(scenes(5, held_out=False, seed=8))]
    return write(tmp_path_factory.mktemp("session") / "store", clips)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two runs that differ in their seed; the second one's last epoch is another model than its chosen one."""
    folder = tmp_path_factory.mktemp("runs") / "many"
    for seed in (10, 20):
        run = folder / f"seed-{seed}"
        run.mkdir(parents=True)
        card = {"selection": "best of 3 epochs", "epoch": 2, "config": {"seed": seed, "epochs": 3}}
        save_small(run / MODEL_NAME, seed=seed, card=card)
        last = {**card, "selection": "last epoch", "epoch": 3}
        save_small(run / LAST_NAME, seed=seed + (seed == 20), card=last if seed == 20 else card)
    return folder


def lines(done) -> dict[str, list[dict]]:
    out: dict[str, list[dict]] = {}
    for line in map(json.loads, done.out.splitlines()):
        out.setdefault(line["schema"], []).append(line)
    return out


def test_a_folder_of_seeds_gives_mean_and_spread(here, runs, store):
    command = ("eval", runs, "--store", store, "--maps", "av")
    printed = lines(here(*command, "--json"))
    reports = printed["avloc.eval/2"]
    assert [r["model"] for r in reports] == ["many/seed-10", "many/seed-20", "many/seed-20 (last epoch)"]
    (summary,) = printed["avloc.runs/1"]
    values = [report["maps"]["av"]["overall"]["auc"] for report in reports]
    chosen, last = summary["blocks"]["held-out"], summary["blocks"]["last epoch"]
    assert chosen["maps"]["av"]["auc"] == {
        "mean": pytest.approx(statistics.fmean(values[:2])),
        "std": pytest.approx(statistics.stdev(values[:2])),
    }
    assert last["maps"]["av"]["auc"]["mean"] == pytest.approx(statistics.fmean([values[0], values[2]]))
    shown = here(*command).out
    assert "protocol avloc: 2 runs, held-out" in shown
    assert "protocol avloc: 2 runs, last epoch" in shown
    assert "test-selected" not in shown
    assert "epoch chosen by: held-out" in shown
    assert f"many/seed-10, seed 10, epoch 2: av {100 * reports[0]['maps']['av']['overall']['ciou_50']:.2f}" in shown


def test_compared_models_are_paired_clip_by_clip(here, runs, store):
    one, other = runs / "seed-10" / MODEL_NAME, runs / "seed-20" / MODEL_NAME
    command = ("eval", one, "--compare", other, "--store", store, "--maps", "av")
    printed = lines(here(*command, "--json"))
    (difference,) = printed["avloc.compare/1"]
    a, b = ([clip["scores"]["av"]["ciou"] for clip in report["clips"]] for report in printed["avloc.eval/2"])
    assert difference["maps"]["av"] == paired_difference(a, b)
    assert (difference["n"], difference["only_a"], difference["only_b"]) == (5, [], [])
    assert "5 clips, protocol avloc" in here(*command).out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--compare", "absent"], "--compare needs a model to compare with"),
        (["absent"], "no model at absent"),
        (["--paper-table", "2", "--report", "r"], "--report does not apply to --paper-table"),
        (["--paper-table", "9"], "known: flickr, vggss, cross, 2 (ablation)"),
    ],
)
def test_invalid_arguments_are_usage_errors(here, store, arguments, words):
    done = here("eval", "--store", store, *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_a_group_is_nothing_to_compare_with(here, runs, store):
    done = here("eval", runs / "seed-10", "--compare", runs, "--store", store)
    assert (done.code, "holds 2 runs; valid: one model or run" in done.err) == (2, True)


def test_the_report_holds_what_was_printed(here, runs, store, tmp_path):
    folder = tmp_path / "out" / "report"
    command = ("eval", runs, "--store", store, "--maps", "av", "--protocol", "avloc", "--protocol", "sspl")
    done = here(*command, "--report", folder, "--json")
    assert done.code == 0
    reports = lines(done)["avloc.eval/2"]
    assert sorted(path.name for path in folder.glob("[!.]*")) == [
        "clips.csv",
        "clips.jsonl",
        "index.html",
        "summary.json",
    ]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["about"]["command"].startswith("avloc eval ")
    assert "--report" in summary["about"]["command"]
    assert summary["reports"] == [{k: v for k, v in report.items() if k != "clips"} for report in reports]
    assert summary["further"] == lines(done)["avloc.runs/1"]
    with (folder / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 5
    for row in rows:
        (report,) = [r for r in reports if (r["model"], r["protocol"]["name"]) == (row["model"], row["protocol"])]
        (clip,) = [c for c in report["clips"] if c["id"] == row["id"]]
        assert float(row["ciou"]) == clip["scores"]["av"]["ciou"]
        assert row["label"] == clip["label"]
    page = (folder / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 5
    again = tmp_path / "again"
    here(*command, "--report", again, "--json")
    for name in ("clips.csv", "clips.jsonl"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_table_of_the_paper_lists_what_was_not_run(here, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = here("eval", "--paper-table", "2")
    assert plain.code == 0
    assert plain.out.count("ours: not run") == 4
    assert "67.40, 56.30" in plain.out
    done = here("eval", "--paper-table", "ablation", runs, "--json")
    assert "flickr is not run: no prepared test set 'flickr'" in done.err
    (table,) = lines(done)["avloc.table/1"]
    assert {row["reason"] for row in table["rows"]} == {"flickr is not prepared"}
    assert (table["number"], [row["status"] for row in table["rows"]]) == (2, ["not run"] * 4)
