"""`avloc eval` on test sets with something special: silent pairs, masks, several sources, no store, other lists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet34

from avloc.annotations.testsets import silent_pairs
from avloc.checkpoint import load_model, save_model
from avloc.dataset import ClipSet, clip_loader
from avloc.engine import ClipCells, predict_cells
from avloc.engine.core import Engine
from avloc.engine.inference import NOT_FINITE
from avloc.errors import Refused
from avloc.evaluate import EvalOptions, evaluate
from avloc.evaluate.maps import _with_priors
from avloc.media.pictures import encode_png
from avloc.metrics import confidence, extended_scores, source_scores
from avloc.store import Store
from avloc.weights import DETR, Located, locate
from tests.eval_makers import to_clip, write
from tests.small_models import SMALL, save_small
from tests.synthetic_scenes import Scene, scenes
from tests.teacher_weights import save_detr

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="module")
def all_scenes() -> list[Scene]:
    return list(scenes(8, held_out=False, seed=6))


def run(*models: Path, **options):
    given = {"workers": 0, "device": "cpu", "maps": ("av",), **options}
    return evaluate(EvalOptions(models=models, **given)).reports


# --- extended sets ----------------------------------------------------------------------------------------------


def test_silent_pairs_take_the_frame_of_one_clip_and_the_sound_of_another(model, all_scenes, tmp_path):
    pairs = silent_pairs("flickr-ext")[:5]
    ids = sorted({name for pair in pairs for name in (pair.video, pair.audio)})
    clips = [to_clip(scene, id=clip_id) for scene, clip_id in zip(list(all_scenes) * 2, ids, strict=False)]
    store = write(tmp_path / "flickr", clips, box_rule="consensus")
    (report,) = run(model, store=store, testset="flickr-ext")
    (scores,) = report.extended.values()
    opened, engine = Store(store), Engine.from_file(load_model(model), torch.device("cpu"))
    there = [pair for pair in silent_pairs("flickr-ext") if {pair.video, pair.audio} <= set(ids)]

    def heights(frame_ids, sound_ids):
        batches = clip_loader(ClipSet(opened, frame_ids, SMALL, sound_ids=sound_ids))
        return [grown(cells.maps["av"]) for cells in predict_cells(engine, batches)]

    def grown(cells):
        big = torch.nn.functional.interpolate(
            torch.from_numpy(cells)[None, None], size=(224, 224), mode="bilinear", align_corners=True
        )
        return confidence(((big[0, 0] + 1) / 2).numpy())

    own = [row.id for row in report.clips]
    reference = extended_scores(
        [*heights(own, own), *heights([p.video for p in there], [p.audio for p in there])],
        [*(row.scores["av"].ciou for row in report.clips), *[float("nan")] * len(there)],
    )
    assert (scores.n_sounding, scores.n_silent) == (len(own), len(there)) == (len(ids), len(there))
    assert vars(scores) == pytest.approx(vars(reference), nan_ok=True)
    assert len(report.missing_pairs) == 250 - len(there)
    assert all(" with the sound of " in name for name in report.missing_pairs)
    assert not any(" with the sound of " in name for name in report.missing)


def test_a_broken_picture_in_the_middle_of_a_batch_is_named_as_itself(model, all_scenes, tmp_path):
    """Whatever the batch: the pair whose picture is damaged is missing, and no other changes."""
    pairs = silent_pairs("flickr-ext")[:6]
    ids = sorted({name for pair in pairs for name in (pair.video, pair.audio)})
    clips = [to_clip(scene, id=clip_id) for scene, clip_id in zip(list(all_scenes) * 2, ids, strict=False)]
    broken = pairs[2].video
    clips = [replace(clip, picture=b"junk") if clip.id == broken else clip for clip in clips]
    store = write(tmp_path / "flickr", clips, box_rule="consensus")
    reports = [run(model, store=store, testset="flickr-ext", batch=size)[0] for size in (1, 2, 16)]
    lines = {json.dumps(report.as_json()) for report in reports}
    assert len(lines) == 1
    named = {name: reason for name, reason in reports[0].missing_pairs.items() if "cannot be decoded" in reason}
    shown = [p for p in silent_pairs("flickr-ext") if {p.video, p.audio} <= set(ids) and p.video == broken]
    assert set(named) == {f"{pair.video} with the sound of {pair.audio}" for pair in shown}


def test_other_sets_have_no_silent_pairs(model, all_scenes, tmp_path):
    (report,) = run(model, store=write(tmp_path / "store", [to_clip(scene) for scene in all_scenes[:3]]))
    assert (report.extended, report.negatives, report.sources) == ({}, {}, {})


# --- masks and several sources ----------------------------------------------------------------------------------


def test_masks_are_scored_like_the_boxes_they_draw(model, all_scenes, tmp_path):
    """A mask that is exactly a box has the box's scores, and an IoU and an F-score beside them."""
    boxes = [np.array([[0.25, 0.125, 0.75, 0.5 + 0.0625 * i]]) for i in range(4)]
    masks = []
    for ((x0, y0, x1, y1),) in boxes:
        mask = np.zeros((224, 224), np.bool_)
        mask[int(224 * y0) : int(224 * y1), int(224 * x0) : int(224 * x1)] = True
        masks.append(encode_png(mask))
    drawn = [to_clip(s, boxes=np.zeros((0, 4)), mask=m) for s, m in zip(all_scenes, masks, strict=False)]
    boxed = [to_clip(s, boxes=b) for s, b in zip(all_scenes, boxes, strict=False)]
    (by_mask,) = run(model, store=write(tmp_path / "masks", drawn, box_rule="mask"))
    (by_box,) = run(model, store=write(tmp_path / "boxes", boxed))
    for ours, theirs in zip(by_mask.clips, by_box.clips, strict=True):
        assert (ours.id, ours.area, ours.scores["av"].ciou) == (theirs.id, theirs.area, theirs.scores["av"].ciou)
        assert ours.scores["av"].iou == pytest.approx(ours.scores["av"].ciou)
        assert np.isnan(theirs.scores["av"].iou)
    assert by_mask.maps["av"].miou == pytest.approx(np.mean([row.scores["av"].iou for row in by_mask.clips]))
    assert 0 < by_mask.maps["av"].max_f <= 1
    assert np.isnan(by_box.maps["av"].miou)


def test_a_damaged_mask_is_a_missing_clip(model, all_scenes, tmp_path):
    good = encode_png(np.eye(64, dtype=np.bool_))
    clips = [to_clip(s, boxes=np.zeros((0, 4)), mask=good) for s in all_scenes[:3]]
    clips[1] = to_clip(all_scenes[1], boxes=np.zeros((0, 4)), mask=good[:40])
    (report,) = run(model, store=write(tmp_path / "masks", clips, box_rule="mask"))
    assert list(report.missing) == [all_scenes[1].name]
    assert "mask cannot be decoded" in report.missing[all_scenes[1].name]
    assert report.n_scored == 2


def test_pictures_with_several_sources_need_all_of_them(model, all_scenes, tmp_path):
    shared = to_clip(all_scenes[0]).picture
    clips = [
        to_clip(scene, id=f"duet{i // 2}_{i % 2}", picture=shared if i < 2 else to_clip(all_scenes[2]).picture)
        for i, scene in enumerate(all_scenes[:4])
    ]
    (report,) = run(model, store=write(tmp_path / "duets", [*clips, to_clip(all_scenes[5])]))
    cious = {row.id: row.scores["av"].ciou for row in report.clips}
    duets = [name for name in cious if name.startswith("duet")]
    at_area = {row.id: row.scores["av"].area_ciou for row in report.clips}
    reference = source_scores([n[:5] for n in duets], [cious[n] for n in duets], [at_area[n] for n in duets])
    assert report.sources == {"av": reference}
    assert reference.n_pictures == 2


# --- lists and rules --------------------------------------------------------------------------------------------


def test_vggss_baselines_need_nothing_but_the_package(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = here("eval", "--testset", "vggss-4692", "--maps", "baselines", "--json")
    line = json.loads(done.out)
    assert (done.code, line["model"], line["maps"], line["n_scored"]) == (0, "", {}, 4692)
    assert set(line["baselines"]) == {
        *("centre disc", "centre square", "whole frame", "truth prior", "random", "ceiling"),
    }
    for more in (["absent"], ["--compare", "absent"], ["--negatives", "2"]):
        assert here("eval", *more, "--testset", "vggss", "--maps", "baselines").code == 2
    missing = here("eval", "--testset", "flickr", "--maps", "baselines")
    assert (missing.code, "avloc prepare" in missing.err) == (5, True), "its boxes are not in the package"


def test_protocols_with_their_own_lists_score_those_clips(model, all_scenes, tmp_path):
    from avloc.annotations.testsets import testset_ids

    all_ids, fewer = testset_ids("vggss"), set(testset_ids("vggss-4692"))
    inside = next(i for i in all_ids if i in fewer)
    outside = next(i for i in all_ids if i not in fewer)
    ids = [inside, outside, "elsewhere"]
    store = write(tmp_path / "s", [to_clip(s, id=i) for s, i in zip(all_scenes, ids, strict=False)])
    reports = {
        report.protocol.name: report
        for report in run(model, store=store, testset="vggss", protocols=("avloc", "sspl", "avc-code"))
    }
    assert {name: sorted(row.id for row in report.clips) for name, report in reports.items()} == {
        "avloc": sorted([inside, outside]),
        "sspl": [inside],
        "avc-code": sorted(ids),
    }
    assert [report.n_expected for report in reports.values()] == [5158, 4692, 3]
    assert outside not in reports["sspl"].missing
    assert reports["avc-code"].missing == {}


def test_the_boxes_of_a_known_set_are_read_by_its_rule(model, all_scenes, tmp_path):
    store = write(tmp_path / "s", [to_clip(all_scenes[0], id="9456627660")], box_rule="union")
    with pytest.raises(Refused, match="annotators"):
        run(model, store=store, testset="flickr")


def test_several_protocols_run_the_networks_once(here, model, all_scenes, tmp_path, monkeypatch):
    store = write(tmp_path / "s", [to_clip(scene) for scene in all_scenes[:3]])
    calls = []
    embed = Engine.embed
    monkeypatch.setattr(Engine, "embed", lambda *given: calls.append(1) or embed(*given))
    reports = run(model, store=store, protocols=("avloc", "lvs", "sspl", "slavc"))
    assert [report.protocol.name for report in reports] == ["avloc", "lvs", "sspl", "slavc"]
    assert len(calls) == 1  # three clips are one block
    for report in reports:
        (alone,) = run(model, store=store, protocols=(report.protocol.name,))
        assert json.dumps(alone.as_json()) == json.dumps(report.as_json())


# --- all maps ---------------------------------------------------------------------------------------------------


def test_every_map_runs_and_reports_its_parts(here, model, all_scenes, tmp_path, monkeypatch):
    """DETR and a ResNet34 with random weights, through the real command."""
    save_detr(tmp_path / "detr-resnet-50")
    torch.manual_seed(4)
    torch.save(resnet34(weights=None).state_dict(), tmp_path / "resnet34.pth")
    trunk = Located(path=tmp_path / "resnet34.pth", hashes={"resnet34.pth": "0" * 64}, verified=False)
    monkeypatch.setattr("avloc.priors.locate", lambda what, **more: locate(what, **more) if what is DETR else trunk)
    store = write(tmp_path / "s", [to_clip(scene) for scene in all_scenes[:2]])
    command = ("eval", model, "--store", store, "--weights-dir", tmp_path, "--object-prior", "resnet34")
    command = (*command, "--maps", "av,object,fused,detr,sweep")
    report = json.loads(here(*command, "--json").out)
    assert list(report["maps"]) == ["av", "object", "fused", "detr", "fused-detr"]
    assert len(report["sweep"]) == 11
    assert report["sweep"]["1.0 av + 0.0 object"]["overall"] == report["maps"]["av"]["overall"]
    assert report["sweep"]["0.6 av + 0.4 object"]["overall"] == report["maps"]["fused"]["overall"]
    assert {name: prior["network"] for name, prior in report["priors"].items()} == {
        "object": "resnet34",
        "detr": "detr-resnet-50",
    }
    own, with_prior, with_both = (row["parameters"] for row in report["cost"])
    assert with_prior - own == sum(p.numel() for p in resnet34(weights=None).parameters()) - 513_000, "no classifier"
    assert with_both > with_prior
    shown = here(*command).out
    assert "object (resnet34)" in shown
    assert "AV + object + DETR" in shown
    assert json.loads(here(*command, "--json", "--batch", 1).out) == report


# --- what must not pass in silence ------------------------------------------------------------------------------


def test_maps_that_are_no_numbers_are_missing_clips(here, all_scenes, tmp_path):
    good = load_model(save_small(tmp_path / "good.safetensors"))
    broken = {key: value * float("nan") if "img_proj" in key else value for key, value in good.state.items()}
    save_model(tmp_path / "nan.safetensors", good.config, broken, {})
    store = write(tmp_path / "s", [to_clip(scene) for scene in all_scenes[:2]])
    done = here("eval", tmp_path / "nan.safetensors", "--store", store, "--maps", "av")
    assert done.code == 3
    assert done.out.count("the av map is not finite") == 2


def test_a_model_that_fails_takes_no_priors_from_the_next(model, all_scenes, tmp_path):
    good = load_model(save_small(tmp_path / "good.safetensors"))
    broken = {key: value * float("nan") if "img_proj" in key else value for key, value in good.state.items()}
    save_model(tmp_path / "nan.safetensors", good.config, broken, {})
    save_detr(tmp_path / "detr-resnet-50")
    store = write(tmp_path / "s", [to_clip(scene) for scene in all_scenes[:3]])
    options = {"store": store, "maps": ("av", "detr"), "weights_dir": tmp_path}
    (alone,) = run(model, **options)
    nothing, second, third = run(tmp_path / "nan.safetensors", model, tmp_path / "good.safetensors", **options)
    assert (nothing.n_scored, list(nothing.missing)) == (0, [scene.name for scene in all_scenes[:3]])
    assert repr([row.scores for row in second.clips]) == repr([row.scores for row in alone.clips])
    assert repr([row.scores["detr"] for row in third.clips]) == repr([row.scores["detr"] for row in alone.clips])


def test_maps_of_priors_stay_with_their_clips():
    """Whichever clips fail under one model or the other."""

    def cells(name, reason="", **maps):
        return ClipCells(id=name, reason=reason, maps={k: np.full((1, 1), v, np.float32) for k, v in maps.items()})

    first = [cells("a", object=1), cells("b", NOT_FINITE.format("av"), object=2), cells("c", "cannot be decoded")]
    second = [cells("a", NOT_FINITE.format("av")), cells("b", av=5), cells("c", "cannot be decoded")]
    merged = [_with_priors(mine, theirs) for mine, theirs in zip(second, first, strict=True)]
    assert [{k: float(v[0, 0]) for k, v in entry.maps.items()} for entry in merged] == [
        {"object": 1},
        {"av": 5, "object": 2},
        {},
    ]
    assert [entry.reason for entry in merged] == [NOT_FINITE.format("av"), "", "cannot be decoded"]
    failed = _with_priors(cells("d", av=1), cells("d", NOT_FINITE.format("object"), av=1))
    assert failed.reason == "the object map is not finite"


def test_a_store_is_what_it_was_prepared_for_and_not_what_its_folder_is_called(model, all_scenes, tmp_path):
    from avloc.annotations.testsets import testset_ids

    inside, outside = testset_ids("vggss-4692")[0], (set(testset_ids("vggss")) - set(testset_ids("vggss-4692"))).pop()
    clips = [to_clip(scene, id=name) for scene, name in zip(all_scenes, (inside, outside), strict=False)]
    prepared = write(tmp_path / "any", clips, testset="vggss_test", expected=testset_ids("vggss"))
    (report,) = run(model, store=prepared, protocols=("sspl",))
    assert (report.testset, report.n_expected, [row.id for row in report.clips]) == ("vggss", 4692, [inside])
    (mine,) = run(model, store=write(tmp_path / "flickr-ext", clips), protocols=("sspl",))
    assert (mine.testset, mine.n_expected, mine.missing_pairs) == (str(tmp_path / "flickr-ext"), 2, {})


def test_names_from_strangers_reach_the_terminal_as_plain_text(here, model, all_scenes, tmp_path):
    names = ["\x1b[31mred", "two\nlines", "right\u202eleft", "x" * 300]
    store = write(tmp_path / "s", [to_clip(all_scenes[0])], expected=[all_scenes[0].name, *names])
    done = here("eval", model, "--store", store, "--maps", "av", "--max-missing", 9)
    assert done.code == 0
    lines = [line for line in done.out.splitlines() if line.startswith("  missing ")]
    assert len(lines) == len(names)
    assert all(line.isprintable() and len(line) < 130 for line in lines)


def test_a_report_that_cannot_be_written_is_refused_before_any_work(here, model, all_scenes, tmp_path, monkeypatch):
    store = write(tmp_path / "s", [to_clip(scene) for scene in all_scenes[:2]])
    (tmp_path / "taken").write_text("mine")
    monkeypatch.setattr(Engine, "embed", lambda *given: pytest.fail("work was done"))
    done = here("eval", model, "--store", store, "--maps", "av", "--report", tmp_path / "taken")
    assert (done.code, done.out, "the folder cannot be created" in done.err) == (2, "", True)


def test_detr_alone_needs_no_other_weights(model, all_scenes, tmp_path):
    save_detr(tmp_path / "detr-resnet-50")
    store = write(tmp_path / "s", [to_clip(scene) for scene in all_scenes[:2]])
    (report,) = run(model, store=store, maps=("detr",), weights_dir=tmp_path)
    assert (list(report.maps), report.not_run) == (["detr"], {"fused-detr": "weights absent"})
