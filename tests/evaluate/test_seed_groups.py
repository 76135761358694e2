"""Many runs: what a path means, means and spreads with the selection of their epochs, differences clip by clip."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avloc.checkpoint import load_model
from avloc.config import LossWeights, ModelConfig, TrainConfig
from avloc.errors import Refused, UsageError
from avloc.evaluate.multi_model import compare
from avloc.evaluate.seed_groups import (
    expand,
    group_key,
    settings_of,
    spread,
    summaries,
    summarise_runs,
)
from avloc.metrics import summarise
from avloc.metrics.intervals import METRICS
from avloc.protocols import PROTOCOLS
from avloc.train import TrainOptions, seed_runs, train
from tests.eval_makers import card, report
from tests.synthetic_scenes import write_store

LOW, MIDDLE, HIGH = [0.2, 0.3, 0.6, 0.1], [0.2, 0.5, 0.6, 0.1], [0.9, 0.5, 0.6, 0.55]


def run_folder(folder: Path, chosen: bytes = b"chosen", last: bytes | None = b"last") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(chosen)
    if last is not None:
        (folder / "last.safetensors").write_bytes(last)
    return folder


def seeds(scores: dict[int, list[float]], **more) -> list:
    return [report(f"seed-{seed}", {"av": own}, model_card=card(seed, **more)) for seed, own in scores.items()]


def test_a_path_is_a_model_a_run_or_a_folder_of_runs(tmp_path):
    run_folder(tmp_path / "one")
    run_folder(tmp_path / "same", b"weights", b"weights")
    for seed in (100, 20, 3):
        run_folder(tmp_path / "many" / f"seed-{seed}")
    (tmp_path / "best_10.pth").write_bytes(b"published")
    runs = expand([tmp_path / name for name in ("one", "same", "many", "best_10.pth")])
    assert [run.name for run in runs] == ["one", "same", "many/seed-3", "many/seed-20", "many/seed-100", "best_10"]
    one, same, *_, published = runs
    assert tuple(one.models) == (tmp_path / "one" / "model.safetensors", tmp_path / "one" / "last.safetensors")
    assert tuple(same.models) == (tmp_path / "same" / "model.safetensors",), "the same bytes are scored once"
    assert (same.last, published.last) == (same.selected, None), "known to be the last epoch, and not known"
    assert tuple(published.models) == (tmp_path / "best_10.pth",)


def test_a_model_that_is_named_twice_counts_once_and_equal_names_are_distinguished(tmp_path, monkeypatch):
    run_folder(tmp_path / "many" / "seed-1")
    run_folder(tmp_path / "other" / "seed-1")
    monkeypatch.chdir(tmp_path)
    runs = expand([Path("many"), Path("many/seed-1"), Path("many/../many/seed-1")])
    assert [run.name for run in runs] == ["many/seed-1"]
    runs = expand([Path("many/seed-1"), Path("other/seed-1"), Path("many/seed-1/last.safetensors")])
    assert [run.name for run in runs] == ["many/seed-1", "other/seed-1", "last"]
    monkeypatch.chdir(tmp_path / "many" / "seed-1")
    assert [run.name for run in expand([Path()])] == ["seed-1"]


def test_a_path_without_a_model_is_named(tmp_path):
    run_folder(tmp_path / "many" / "seed-1")
    (tmp_path / "many" / "seed-2").mkdir()
    (tmp_path / "nothing").mkdir()
    run_folder(tmp_path / "both")
    run_folder(tmp_path / "both" / "seed-1")
    for name, words in (
        ("many", "seed-2 of .*many has no model.safetensors yet"),
        ("nothing", "no model.safetensors in .*nothing"),
        ("absent", "no model at .*absent"),
        ("both", "both is a run and holds others"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            expand([tmp_path / name])
        assert caught.value.hint


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=6))
def test_mean_and_spread_are_those_of_a_loop(scores):
    runs = seeds(dict(enumerate(scores)))
    block = summarise_runs(runs).blocks["last epoch"]
    for name in METRICS:
        values = [getattr(summarise(own), name) for own in scores]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
        assert block.maps["av"][name]["mean"] == pytest.approx(mean, abs=1e-12)
        assert block.maps["av"][name]["std"] == pytest.approx(math.sqrt(variance), abs=1e-7)
        assert [run.maps["av"][name] for run in block.runs] == values
    assert [run.seed for run in block.runs] == list(range(len(scores)))


def test_one_run_has_no_spread():
    entry = summarise_runs(seeds({1: LOW})).blocks["last epoch"].maps["av"]["ciou_50"]
    assert entry["mean"] == 0.25
    assert math.isnan(entry["std"])
    assert spread([1.0, 2.0]) == {"mean": 1.5, "std": pytest.approx(math.sqrt(0.5))}


@pytest.mark.parametrize(
    ("selection", "rule"),
    [
        ("test-selected: best cIoU@0.5, protocol avloc on store flickr, 249 clips", "test-selected"),
        ("best contrastive loss on held-out 0.1, 14 clips", "held-out"),
    ],
)
def test_chosen_epochs_and_last_epochs_never_share_a_number(selection, rule):
    """Whatever was chosen on the test set stands under that name and no other."""
    chosen = seeds({1: HIGH, 2: HIGH[::-1]}, selection=selection, epoch=7)
    last = [replace(r, model_hash=r.model_hash + " last") for r in seeds({1: LOW, 2: MIDDLE})]
    data = summarise_runs(chosen, last).as_json()
    assert set(data["blocks"]) == {rule, "last epoch"}
    assert data["blocks"][rule]["selection"] == selection
    assert data["blocks"][rule]["maps"]["av"]["ciou_50"]["mean"] == 1.0
    assert data["blocks"]["last epoch"]["maps"]["av"]["ciou_50"]["mean"] == 0.375
    assert [run["epoch"] for run in data["blocks"][rule]["runs"]] == [7, 7]
    assert set(data) & {"maps", "mean", "ciou_50"} == set(), "no number outside of a block"
    assert data["schema"] == "avloc.runs/1"
    assert json.loads(json.dumps(data)) == data


def test_an_epoch_chosen_on_the_scored_store_is_test_selected_whatever_its_name():
    own = card(selection="best cIoU@0.5, protocol avloc on store mine, 9 clips", validation_data_hash="data")
    assert report("a", {"av": LOW}, model_card=own).selection == "test-selected"
    assert report("a", {"av": LOW}, model_card=own, data_hash="other").selection == "held-out"
    assert report("a", {"av": LOW}, model_card={"name": "best_10"}, data_hash="").selection == "not stated"
    assert report("a", {"av": LOW}, model_card={**own, "selection": "last epoch"}).selection == "last epoch"


def test_last_epochs_stand_once_and_unknown_ones_are_left_out():
    runs = seeds({1: LOW, 2: HIGH})
    assert list(summarise_runs(runs, runs).blocks) == ["last epoch"]
    chosen = seeds({1: LOW, 2: HIGH}, selection="best on held-out 0.1, 9 clips")
    assert list(summarise_runs(chosen).blocks) == ["held-out"]
    blocks = summarise_runs(chosen, [None, runs[1]]).blocks
    assert [run.run for run in blocks["last epoch"].runs] == ["seed-2"]
    with pytest.raises(ValueError, match="1 last epochs for 2 runs"):
        summarise_runs(chosen, [None])


def test_runs_that_are_not_trained_to_the_end_are_named():
    runs = [*seeds({1: LOW}), *seeds({2: HIGH}, epoch=99)]
    assert summarise_runs(runs).unfinished == ["seed-2"]
    chosen = seeds({1: LOW, 2: HIGH}, selection="best on held-out 0.1, 9 clips", epoch=3)
    assert summarise_runs(chosen).unfinished == [], "an early epoch may be the best"
    assert summarise_runs(chosen, runs).unfinished == ["seed-2"]


def test_runs_that_do_not_belong_together_are_refused():
    one = report("one", {"av": LOW})
    for change, words in (
        ({"testset": "vggss"}, "scored differently: test set"),
        ({"data_hash": "else", "box_rule": "union"}, "scored differently: data, box rule"),
        ({"protocol": PROTOCOLS["sacl"]}, "scored differently: protocol"),
        ({"model_card": card(20, selection="test-selected: best")}, "chose their epochs differently"),
        ({"model_card": card(20, training_list="vggss_10k")}, "differ in more than the seed: training_list"),
        ({"model_card": card(20, hints={})}, "differ in more than the seed: hints"),
        ({"model_card": card() | {"config": card()["config"] | {"batch": 32}}}, "more than the seed: config.batch"),
        ({"model_hash": "hash of one"}, "are the same model"),
    ):
        other = replace(report("two", {"av": HIGH}, model_card=card(20)), **change)
        with pytest.raises(Refused, match=words) as caught:
            summarise_runs([one, other])
        assert "one and two" in str(caught.value)
    for other in (report("two", {"object": HIGH}), report("two", {"av": HIGH}, ids=["a", "b", "c", "d"])):
        with pytest.raises(Refused, match="different maps or clips"):
            summarise_runs([one, other])
    with pytest.raises(Refused, match="no run"):
        summarise_runs([])


def test_runs_find_those_they_belong_to():
    """By their cards, in the order of their first run; a copy counts once; a model without a past is alone."""
    first, third = seeds({1: LOW, 3: HIGH})
    other = report("other", {"av": HIGH}, model_card=card(2, hints={}))
    copy = replace(first, model="copy")
    published = [report(name, {"av": LOW}, model_card={"name": name}) for name in ("best_10", "best_20")]
    second = replace(report("second", {"av": MIDDLE}, model_card=card(2)), protocol=PROTOCOLS["lvs"])
    found = summaries([first, other, third, copy, *published, second])
    names = [[run.run for block in entry.blocks.values() for run in block.runs] for entry in found]
    assert names == [["seed-1", "seed-3"], ["other"], ["best_10"], ["best_20"], ["second"]]
    assert summarise_runs(published).blocks["not stated"].runs[1].seed is None, "asked for, they are summed up"


def test_real_runs_of_several_seeds_make_a_group(tmp_path):
    store = write_store(tmp_path / "store", 6)
    trunks = {"vision_trunk": "shufflenet_v2_x0_5", "audio_trunk": "shufflenet_v2_x0_5"}
    config = TrainConfig(
        model=ModelConfig(dim=8, frame=64, **trunks),
        loss=LossWeights(audio_hint=0.0, visual_hint=0.0),
        init="random",
        batch=4,
        epochs=1,
        workers=0,
        precision="fp32",
    )
    for options, settings in seed_runs(TrainOptions(store=store, out=tmp_path / "many"), config, (4, 2)):
        train(options, settings)
    train(TrainOptions(store=store, out=tmp_path / "more"), replace(config, epochs=2))
    runs = expand([tmp_path / "many", tmp_path / "more"])
    assert [(run.name, len(run.models)) for run in runs] == [("many/seed-2", 1), ("many/seed-4", 1), ("more", 1)]
    reports = [
        report(run.name, {"av": LOW}, model_card=load_model(run.selected).card, model_hash=run.name) for run in runs
    ]
    assert group_key(reports[0]) == group_key(reports[1]) != group_key(reports[2])
    assert [len(entry.blocks["last epoch"].runs) for entry in summaries(reports)] == [2, 1]
    assert settings_of(reports[0].model_card)["config.epochs"] == 1


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12), st.integers(0, 3))
def test_a_comparison_is_about_the_clips_that_both_scored(pairs, gap):
    """The difference is that of the scores over the common clips; the others are named."""
    ids = [f"clip{index}" for index in range(len(pairs))]
    a = report("a", {"av": [one for one, _ in pairs], "object": [0.1] * len(pairs)}, ids)
    cut = min(gap, len(pairs) - 1)
    b = report("b", {"av": [0.3, *(other for _, other in pairs[cut:])]}, ["new", *ids[cut:]])
    result = compare(a, b)
    assert (result.n, result.only_a, result.only_b) == (len(pairs) - cut, sorted(ids[:cut]), ["new"])
    assert (list(result.maps), result.not_compared) == (["av"], ["object"])
    ones, others = (summarise([pair[side] for pair in pairs[cut:]]) for side in (0, 1))
    for name in METRICS:
        expected = getattr(ones, name) - getattr(others, name)
        assert result.maps["av"][name]["difference"] == pytest.approx(expected, abs=1e-9)
    back = compare(b, a)
    assert back.maps["av"]["auc"]["difference"] == pytest.approx(-result.maps["av"]["auc"]["difference"], abs=1e-9)
    assert (back.only_a, back.only_b) == (result.only_b, result.only_a)


def test_a_comparison_has_intervals_and_counts_as_the_protocol_does():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.6, 200)
    a, b = report("a", {"av": (low + rng.uniform(0.2, 0.4, 200)).tolist()}), report("b", {"av": low.tolist()})
    entry = compare(a, b).as_json()["maps"]["av"]["mean_ciou"]
    assert entry["low"] < entry["difference"] < entry["high"]
    assert (entry["difference"], entry["p"] < 0.01) == (pytest.approx(0.3, abs=0.02), True)
    assert compare(a, a).maps["av"]["auc"] == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    half, none = (
        report(name, {"av": [score] * 4}, protocol=PROTOCOLS["slavc"]) for name, score in (("h", 0.5), ("n", 0))
    )
    assert compare(half, none).maps["av"]["ciou_50"]["difference"] == 0.0, "SLAVC asks for more than 0.5"


def test_models_that_were_scored_differently_are_not_compared():
    one = report("one", {"av": LOW})
    for change, words in (({"protocol": PROTOCOLS["lvs"]}, "protocol"), ({"data_hash": "x"}, "data")):
        with pytest.raises(Refused, match=f"one and two were scored differently: {words}"):
            compare(one, replace(report("two", {"av": LOW}), **change))
    data = compare(one, report("two", {"av": HIGH})).as_json()
    assert (data["schema"], data["a"], data["b"], data["protocol"]["name"]) == (
        "avloc.compare/1",
        "one",
        "two",
        "avloc",
    )


def test_a_folder_of_published_files_is_one_model(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in ("frame_best.pth", "sound_best.pth"):
        (folder / name).write_bytes(b"")
    (run,) = expand([folder])
    assert (run.name, list(run.models)) == ("theirs", [folder])
