"""The command line, the scores of the model's card, the calibration, and the settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avloc.checkpoint import default_model, load_model, save_model
from avloc.config import TrainConfig, from_dict, read_toml
from avloc.engine import ClipCells, Cohort, Fusion
from avloc.engine.fusion import AdaptiveWeights
from avloc.errors import Refused
from avloc.localize.verdict import VerdictRule
from tests.recipe import __main__ as program
from tests.recipe import ship as module
from tests.recipe.calibration import Scores
from tests.recipe.measure import ClipMaps, calibrated, class_means
from tests.recipe.ship import OPEN, score_of_shipped, ship
from tests.recipe.split import tables_hash
from tests.recipe.train import RECIPE
from tests.small_models import save_small


@pytest.mark.parametrize(("model", "open_only"), [([], False), (["--model", "avloc-open"], True)])
@pytest.mark.parametrize(("command", "function"), [("compose", "composed"), ("train", "train")])
def test_a_model_is_made_of_its_own_material(command, function, model, open_only, monkeypatch):
    given = []
    monkeypatch.setattr(program, function, lambda *where, **how: given.append((where, how)))
    program.main([command, "--data", "a", "--weights", "b", "--out", "c", "--clips", "7", "--seed", "2", *model])
    assert given == [((Path("a"), Path("b"), Path("c")), {"clips": 7, "seed": 2, "open_only": open_only})]


@pytest.mark.parametrize(("model", "open_only"), [("avloc-lite", False), ("avloc-open", True)])
def test_one_command_makes_everything(model, open_only, monkeypatch):
    calls = []
    monkeypatch.setattr(program, "score_of_shipped", lambda *made: None)
    monkeypatch.setattr(program, "table", str)
    for name in ("train", "fitted", "five_folds", "score_people", "score_fitted", "ship"):
        monkeypatch.setattr(program, name, lambda *where, name=name, **how: calls.append((name, where, how)))
    where = Path("a"), Path("b"), Path("c")
    how = {"seed": 2, "open_only": open_only}
    arguments = ["--data", "a", "--weights", "b", "--out", "c", "--seed", "2", "--model", model]
    folds = [("five_folds", where, {"seed": 2}), ("score_people", where, {})]
    if open_only:
        folds = [("score_fitted", where, {})]
    stages = [
        ("train", where, {"clips": 9, **how}),
        ("fitted", where, how),
        *folds,
        ("ship", (Path("c/fit"), where[2], model), {}),
    ]
    program.main(["make", *arguments, "--clips", "9"])
    program.main(["fit", *arguments])
    program.main(["folds", *arguments])
    program.main(["ship", "--out", "c", "--model", model])
    assert calls == [*stages, *stages[1:]]


def test_the_model_that_is_shipped_already_is_not_measured_again(tmp_path):
    shipped = tmp_path / f"{OPEN}.safetensors"
    (tmp_path / "fit").mkdir()
    save_small(tmp_path / "fit" / "model.safetensors", card={"fit": {"seed": 1}})
    assert score_of_shipped(tmp_path / "fit", tmp_path, OPEN) is None
    for card, score in (
        ({"fit": {"seed": 1}}, None),  # stopped before it was measured
        ({"fit": {"seed": 2}, "score": {"auc": 1}}, None),
        ({"fit": {"seed": 1}, "score": {"auc": 1}}, {"auc": 1}),
    ):
        save_small(shipped, card=card)
        assert score_of_shipped(tmp_path / "fit", tmp_path, OPEN) == score


def made_by(folder, **card):
    """An OUT folder of `avloc-open` whose fitted model and results have these entries."""
    (folder / "fit").mkdir()
    save_small(folder / "fit" / "model.safetensors", card={"fit": {"seed": 1}, "concepts": []})
    (folder / "split.json").write_text(json.dumps({"open_only": True, "tables": tables_hash()}))
    (folder / "folds.json").write_text(json.dumps(card))


def test_a_shipped_file_has_all_of_the_fitted_one_in_half_precision(tmp_path, monkeypatch):
    made_by(tmp_path)
    fitted = load_model(tmp_path / "fit")
    cohort = Cohort(torch.randn(3, fitted.config.dim), torch.randn(2, 4, fitted.config.dim)).tensors
    save_model(fitted.path, fitted.config, fitted.state, fitted.card, cohort)
    monkeypatch.setattr(module, "_calibration", lambda *made: {"verdict": {"slope": 2.0}})
    monkeypatch.setattr(module, "_sources", lambda out: {"somewhere": {}})
    measured = []
    monkeypatch.setattr(module, "measured", lambda file, out: measured.append(file) or {"auc": 1})
    assert ship(tmp_path / "fit", tmp_path, OPEN) == {"auc": 1}
    shipped = load_model(tmp_path / f"{OPEN}.safetensors")
    for file in (*measured, shipped):
        for found, expected in ((file.state, fitted.state), (file.cohort, cohort)):
            assert found.keys() == expected.keys()
            assert all(torch.allclose(found[key].float(), expected[key].float(), rtol=1e-3, atol=1e-4) for key in found)
    assert shipped.path.stat().st_size < 0.6 * fitted.path.stat().st_size
    assert (shipped.card["score"], shipped.card["verdict"], shipped.card["name"]) == ({"auc": 1}, {"slope": 2.0}, OPEN)


def test_a_model_is_shipped_under_its_own_licence_alone(tmp_path, capsys):
    made_by(tmp_path)
    shipped = default_model().read_bytes()
    with pytest.raises(SystemExit) as caught:
        program.main(["ship", "--out", str(tmp_path)])
    assert caught.value.code == 5
    assert "open_only True, not False" in capsys.readouterr().err
    assert default_model().read_bytes() == shipped


def test_results_of_another_fit_are_not_shipped(tmp_path):
    made_by(tmp_path, fit={"seed": 2})
    split = json.loads((tmp_path / "split.json").read_text())
    (tmp_path / "split.json").write_text(json.dumps({**split, "pictures": {"train": []}, "sounds": {"train": []}}))
    with pytest.raises(Refused, match=r"folds\.json is of another fit"):
        ship(tmp_path / "fit", tmp_path, OPEN)
    assert not (tmp_path / f"{OPEN}.safetensors").exists()


def test_absent_weights_of_the_face_detector_are_named(data, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        program.main(["faces", "--data", str(data), "--weights", str(tmp_path), "--out", str(tmp_path / "out")])
    assert caught.value.code == 4
    assert str(tmp_path / "pnet.pt") in capsys.readouterr().err


def test_what_is_calibrated_follows_the_peaks():
    peaks = Scores.equal([0.3, 0.6, 0.9], [0.1, *np.linspace(0.2, 0.3, 18), 0.4])
    card = calibrated(peaks)
    assert (card["fusion"]["unsure"], card["fusion"]["sure"]) == (pytest.approx(0.25, abs=0.005), 0.6)
    assert card["verdict"]["least_effect"] == 0.04
    AdaptiveWeights(**card["fusion"])
    rule = VerdictRule(**card["verdict"])
    assert rule.match(0.28) < rule.matches < rule.match(0.6)
    assert rule.no_match <= rule.match(0.3)
    assert not rule.cohort
    above = calibrated(peaks, peaks.mapped(lambda values: values - 1))
    assert above["fusion"] == card["fusion"]
    other = VerdictRule(**above["verdict"])
    assert other.cohort
    assert other.match(0.28 - 1) == pytest.approx(rule.match(0.28), abs=0.01)


def test_shares_are_means_over_classes():
    left = np.tile(np.linspace(1, 0, 4, dtype=np.float32), (4, 1))
    maps = dict.fromkeys(("av", "own", "shipped"), left)
    cells = ClipCells(id="one", boxes=np.array([[0, 0, 0.5, 1]]), maps=maps)
    clips = [ClipMaps(f"boxed-{row}-dog-a", "speech | dog", cells) for row in range(3)]
    clips.append(
        ClipMaps("boxed-3-big-cat-a", "speech | dog", replace(cells, maps=dict.fromkeys(maps, left[:, ::-1].copy())))
    )
    assert class_means(clips, Fusion(own=AdaptiveWeights()))["av"] == [0.5, 0.5, 0.5]


def test_the_recipe_is_a_configuration():
    config = from_dict(TrainConfig, read_toml(RECIPE))
    assert (config.loss.same_class, config.freeze, config.init) == ("masked", True, "concepts")
