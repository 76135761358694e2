"""Scores of events and of matching, against slow references."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avloc.ave.event_table import EVENTS, EventTable
from avloc.ave.networks import build_network
from avloc.checkpoint import load_model, save_model
from avloc.store import Hints
from tests.synthetic_ave import KINDS, make_run
from tests.synthetic_scenes import write_store


def test_scores_equal_counting(store, tmp_path, here):
    run = make_run(store, tmp_path / "run")
    report = json.loads(here("eval", run, "--testset", "ave", "--store", store, "--json").out)
    table = EventTable.of(store)
    rows = table.part("test")
    model = load_model(run)
    network = build_network(model.config)
    network.load_state_dict(model.state)
    right = total = by_clip = 0
    of_class = {number: [0, 0] for number in range(KINDS + 1)}
    for row, labels in zip(rows, table.labels(rows), strict=True):
        visual, audio = (Hints(store, name).read(row.clip).astype(np.float32) for name in ("vgg19", "vggish"))
        scores = network.eval().predict(torch.from_numpy(visual)[None], torch.from_numpy(audio)[None]).scores[0]
        for second in range(10):
            hit = int(scores[second].argmax()) == labels[second]
            right, total = right + hit, total + 1
            by_clip += table.classes.index(row.annotation.category) == labels[second]
            of_class[int(labels[second])][0] += hit
            of_class[int(labels[second])][1] += 1
    expected = [hits / count if count else None for hits, count in of_class.values()]
    assert report["class_accuracy"] == pytest.approx(expected)
    assert report["baselines"]["the clip's event"] == pytest.approx(by_clip / total)
    assert report["accuracy"] == pytest.approx(right / total)
    assert (report["n_scored"], report["n_expected"], report["missing"]) == (len(rows), len(rows), [])
    assert sum(map(sum, report["confusion"])) == total
    shown = here("eval", run, "--testset", "ave", "--store", store)
    assert (shown.code, "accuracy per second" in shown.out, "commonest class, no model" in shown.out) == (0, True, True)


def test_the_accuracy_of_training_is_that_of_eval(store, tmp_path, here):
    run = make_run(store, tmp_path / "run", epochs=1, val="test")
    (line,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    report = json.loads(here("eval", run, "--testset", "ave", "--store", store, "--json").out)
    assert line["val"] == float(np.float32(report["accuracy"]))  # as version 0.1 recorded it


def test_matches_equal_a_search_by_loops(store, tmp_path, here):
    """The event of one modality is laid over every window of the other; which is given is in the name."""
    run = make_run(store, tmp_path / "run", method="ave-match", epochs=3)
    report = json.loads(here("eval", run, "--testset", "ave-match", "--store", store, "--json").out)
    model = load_model(run)
    network = build_network(model.config)
    network.load_state_dict(model.state)
    found = {"visual_to_audio": [], "audio_to_visual": []}
    for row in EventTable.of(store).part("test", match=True):
        visual, audio = (
            torch.from_numpy(Hints(store, name).read(row.clip).astype(np.float32)) for name in ("vgg19", "vggish")
        )
        with torch.no_grad():
            sight, sound = network.visual(visual.mean((1, 2))), network.audio(audio)
        event, length = range(row.annotation.start, row.annotation.end), row.annotation.end - row.annotation.start
        for way, given, other in (("visual_to_audio", sight, sound), ("audio_to_visual", sound, sight)):
            sums = [
                sum(float((given[second] - other[start + place]).norm()) for place, second in enumerate(event))
                for start in range(10 - length + 1)
            ]
            found[way].append(int(np.argmin(sums)) == row.annotation.start)
    for way, hits in found.items():
        assert report[way] == pytest.approx(np.mean(hits)), way
    assert report["visual_to_audio"] != report["audio_to_visual"], "else the names could be the wrong way round"


def test_rows_that_are_missing_or_cannot_be_matched_are_counted(store, tmp_path, here, monkeypatch):
    monkeypatch.setattr("avloc.store.Hints.check_finished", lambda *_: None)  # as if a teacher had failed on it
    run = make_run(store, tmp_path / "run", method="ave-match", epochs=1)
    table = EventTable.of(store)
    first, second, third, *_ = table.part("test", match=True)
    changed = {
        first.clip: replace(first, annotation=replace(first.annotation, start=0, end=10)),
        second.clip: replace(second, annotation=replace(second.annotation, start=4, end=4)),
        third.clip: replace(third, clip="nowhere", annotation=replace(third.annotation, video="nowhere")),
    }
    other = tmp_path / "other"
    other.mkdir()
    for path in store.iterdir():
        if path.name != EVENTS:
            (other / path.name).symlink_to(path)
    replace(table, rows=tuple(changed.get(row.clip, row) for row in table.rows)).write(other)
    ask = ("eval", run, "--testset", "ave-match", "--store", other, "--json")
    done = here(*ask)
    report = json.loads(done.out)
    assert (done.code, report["skipped"], report["missing"]) == (5, 2, ["nowhere"])
    assert here(*ask, "--max-missing", "1").code == 0


def test_a_model_with_an_output_that_is_not_finite_is_refused(store, tmp_path, here):
    run = make_run(store, tmp_path / "run", epochs=1)
    model = load_model(run)
    model.state["L2.weight"][0] = torch.nan
    save_model(tmp_path / "nan.safetensors", model.config, model.state, model.card)
    done = here("eval", tmp_path / "nan.safetensors", "--testset", "ave", "--store", store)
    assert (done.code, "not finite" in done.err) == (4, True), done.err


def test_videos_in_both_parts_are_named_and_can_be_left_out(store, tmp_path, here):
    run = make_run(store, tmp_path / "run", epochs=1)
    table = EventTable.of(store)
    trained, tested = table.part("train")[0], table.part("test")[0]
    twin = replace(tested, annotation=replace(tested.annotation, video=trained.annotation.video))
    rows = tuple(twin if row is tested else row for row in table.rows)
    other = tmp_path / "other"
    other.mkdir()
    for path in store.iterdir():
        (other / path.name).symlink_to(path)
    (other / EVENTS).unlink()
    replace(table, rows=rows).write(other)
    ask = ("eval", run, "--testset", "ave", "--store", other, "--json")
    whole, clean = (json.loads(here(*ask, *flag).out) for flag in ((), ("--clean-split",)))
    assert whole["shared"] == clean["shared"] == [trained.annotation.video]
    assert clean["n_scored"] == whole["n_scored"] - 1


@pytest.mark.parametrize(
    ("method", "settings", "testset", "words"),
    [
        ("ave", ("ave.weak=true",), "ave", "valid: --testset ave-weak"),
        ("ave", (), "ave-match", "valid: --testset ave"),
        ("ave-match", (), "ave-weak", "valid: --testset ave-match"),
    ],
)
def test_a_model_is_scored_only_on_the_test_set_of_its_labels(store, tmp_path, here, method, settings, testset, words):
    run = make_run(store, tmp_path / "run", *settings, method=method, epochs=1)
    done = here("eval", run, "--testset", testset, "--store", store)
    assert (done.code, words in done.err) == (2, True), done.err


def test_scores_of_events_need_a_model_of_events(store, model, tmp_path, here):
    for arguments, words in (
        ((), "needs a model"),
        ((model,), "is a model of avc"),
        ((model, "--maps", "av"), "--maps does not apply to --testset ave"),
        ((model, "--batch", "16"), "--batch does not apply to --testset ave"),
    ):
        done = here("eval", *arguments, "--testset", "ave", "--store", store)
        assert (done.code, words in done.err) == (2, True), done.err
    run = make_run(store, tmp_path / "run", epochs=1)
    done = here("eval", run, "--store", write_store(tmp_path / "maps", 4))
    assert (done.code, "predicts events, not maps" in done.err) == (2, True), done.err
    done = here("localize", Path(__file__).parents[1] / "data" / "frame.jpg", "--model", run)
    assert (done.code, "predicts events, not maps" in done.err) == (2, True), done.err
