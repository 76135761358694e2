"""What `avloc eval` promises: scores equal their definition, what is missing is named, nothing depends on chance."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.models import resnet18

import avloc
from avloc import loader_processes
from avloc.annotations.testsets import published_list, silent_pairs
from avloc.checkpoint import load_model, save_model
from avloc.config import ModelConfig
from avloc.dataset import ClipSet, clip_loader
from avloc.engine import Engine, predict_cells, score_clips
from avloc.errors import Refused, StoreNotFound, UsageError, WeightsError
from avloc.evaluate import EvalOptions, evaluate, evaluate_runs, find_store
from avloc.files import sha256_of
from avloc.heatmap import heat_maps
from avloc.media.pictures import decode_picture
from avloc.methods import Embeddings
from avloc.progress import Notice
from avloc.protocols import Protocol
from avloc.store import Clip, Store
from avloc.weights import Located
from tests.eval_makers import to_clip, write
from tests.responsive_model import save_responsive
from tests.small_models import SMALL, save_small
from tests.synthetic_scenes import RATE, SIDE, Scene, scenes

CPU = torch.device("cpu")
COUNT = 9
PUBLISHED_NAME = "resnet18-f37072fd.pth"
TOLERANCE = 5e-4
"""A pixel at the cut may fall on either side of it in the references; the map has 50 176."""


pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="module")
def all_scenes() -> list[Scene]:
    return list(scenes(COUNT, held_out=False, seed=5))


@pytest.fixture(scope="module")
def store(tmp_path_factory, all_scenes) -> Path:
    return write(tmp_path_factory.mktemp("eval") / "store", [to_clip(scene) for scene in all_scenes])


def run(store: Path, *models: Path, maps=("av",), **options):
    given = {"workers": 0, "device": "cpu", **options}
    return evaluate(EvalOptions(store=store, models=models, maps=maps, **given)).reports


def scored(report) -> dict[str, float]:
    return {row.id: row.scores["av"].ciou for row in report.clips}


def av_scores(engine, batches) -> dict[str, float]:
    """Every clip's cIoU, straight from the engine."""
    clips = list(predict_cells(engine, batches))
    scores = score_clips(clips, {"av": 1.0}, Protocol(), "union")
    return {cells.id: score.ciou for cells, score in zip(clips, scores, strict=True)}


def inputs(clip: Clip, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    picture = Image.open(io.BytesIO(clip.picture)).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None], torch.from_numpy(clip.sound)[None]


def heat_reference(grid: torch.Tensor) -> np.ndarray:
    big = F.interpolate(grid[None, None].double(), size=(224, 224), mode="bilinear", align_corners=True)[0, 0].numpy()
    return (big - big.min()) / (big.max() - big.min())


def ciou_reference(heat: np.ndarray, boxes: np.ndarray, rule: str) -> float:
    """One map: the upper half of its pixels against the boxes."""
    mask = heat >= sorted(heat.ravel().tolist())[224 * 224 // 2]
    votes = np.zeros((224, 224))
    for box in boxes:
        x0, y0, x1, y1 = (int(224 * min(max(value, 0), 1)) for value in box)
        votes[y0:y1, x0:x1] += 1
    truth = np.minimum(votes / 2, 1) if rule == "consensus" else (votes > 0).astype(float)
    return float(truth[mask].sum() / (truth.sum() + (mask & (truth == 0)).sum()))


def av_reference(model: Path, clip: Clip) -> np.ndarray:
    engine = Engine.from_file(load_model(model), CPU)
    return heat_reference(engine.predict(*inputs(clip), RATE)[0])


# --- scores -----------------------------------------------------------------------------------------------------


def test_each_clips_score_equals_its_definition(model, store):
    (report,) = run(store, model)
    clips = Store(store)
    assert sorted(scored(report)) == clips.ids
    for clip_id, ours in scored(report).items():
        clip = clips.read(clip_id)
        assert ours == pytest.approx(ciou_reference(av_reference(model, clip), clip.boxes, "union"), abs=TOLERANCE)
    values = list(scored(report).values())
    summary = report.maps["av"].overall
    assert summary.n == COUNT == report.n_scored == report.n_expected
    assert summary.mean_ciou == pytest.approx(sum(values) / COUNT)
    assert summary.ciou_50 == sum(value >= 0.5 for value in values) / COUNT
    curve = [sum(value >= 0.05 * step for value in values) / COUNT for step in range(21)]
    assert summary.auc == pytest.approx(sum(0.05 * (a + b) / 2 for a, b in pairwise(curve)))
    assert len(set(values)) > COUNT // 2, "the clips differ, or this test shows nothing"


class _Known:
    """An engine whose map is hot in the left half, whatever the input."""

    def embed(self, frames, sound, rate):
        return Embeddings(torch.linspace(1, 0, 224).repeat(len(frames), 224, 1), sound)

    def encode_sound(self, sound, rate):
        return sound

    def similarity(self, embeddings):
        return embeddings.image


def test_known_maps_get_known_scores(tmp_path, all_scenes):
    boxes = {"left": [0, 0, 0.5, 1], "right": [0.5, 0, 1, 1], "all": [0, 0, 1, 1], "quarter": [0, 0, 0.25, 1]}
    clips = [to_clip(all_scenes[0], id=name, boxes=np.array([box])) for name, box in boxes.items()]
    opened = Store(write(tmp_path / "store", clips))
    batches = clip_loader(ClipSet(opened, opened.ids, SMALL), batch=3)
    assert av_scores(_Known(), batches) == {"left": 1.0, "right": 0.0, "all": 0.5, "quarter": 0.5}


def test_batch_order_and_shards_change_nothing(model, store, all_scenes, tmp_path):
    plain = json.dumps(run(store, model, maps=())[0].as_json())
    for batch, workers in ((1, 0), (4, 0), (5, 2), (100, 0)):
        assert json.dumps(run(store, model, maps=(), batch=batch, workers=workers)[0].as_json()) == plain
    ids = [scene.name for scene in all_scenes]
    turned = write(tmp_path / "store", [to_clip(s) for s in reversed(all_scenes)], expected=ids, shard_clips=2)
    assert len(list(turned.glob("shard-*"))) == 5
    assert json.dumps(run(turned, model, maps=())[0].as_json()) == plain
    opened, engine = Store(store), Engine.from_file(load_model(model), CPU)

    def by_id(order):
        return av_scores(engine, clip_loader(ClipSet(opened, order, SMALL), batch=4))

    assert by_id(opened.ids) == by_id(opened.ids[::-1])


def test_the_rule_of_the_boxes_is_the_stores(model, all_scenes, tmp_path):
    """Flickr's annotators: two must agree for a full 1."""
    twice = [np.array([scene.box, (0.0, 0.0, 0.6, 0.6)]) for scene in all_scenes[:3]]
    clips = [to_clip(scene, boxes=boxes) for scene, boxes in zip(all_scenes[:3], twice, strict=True)]
    reports = {}
    for rule in ("union", "consensus"):
        (reports[rule],) = run(write(tmp_path / rule, clips, box_rule=rule), model)
        assert reports[rule].box_rule == rule
        for clip in clips:
            reference = ciou_reference(av_reference(model, clip), clip.boxes, rule)
            assert scored(reports[rule])[clip.id] == pytest.approx(reference, abs=TOLERANCE)
    assert scored(reports["union"]) != scored(reports["consensus"])


def test_several_models_one_report_each(model, store, tmp_path):
    other = save_small(tmp_path / "other.safetensors", seed=1)
    both = run(store, model, other)
    assert [report.model for report in both] == ["small", "other"]
    assert [report.model_hash for report in both] == [sha256_of(model), sha256_of(other)]
    assert [scored(report) for report in both] == [scored(run(store, path)[0]) for path in (model, other)]
    assert scored(both[0]) != scored(both[1])


# --- what is missing --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def holes(tmp_path_factory, all_scenes) -> Path:
    """Four good clips; one with a damaged picture, one without boxes, two that are expected and not there."""
    clips = [to_clip(scene) for scene in all_scenes[:6]]
    clips[2] = to_clip(all_scenes[2], picture=clips[2].picture[:400])
    clips[4] = to_clip(all_scenes[4], boxes=np.zeros((0, 4)))
    ids = [clip.id for clip in clips]
    return write(tmp_path_factory.mktemp("holes") / "holes", clips, expected=[*ids, "gone1", "gone2"])


def test_nothing_missing_is_passed_over(model, holes, store, all_scenes):
    (report,) = run(holes, model, batch=3)
    assert (report.n_scored, report.n_expected, report.maps["av"].overall.n) == (4, 8, 4)
    assert list(report.missing) == ["gone1", "gone2", all_scenes[2].name, all_scenes[4].name]
    assert report.missing["gone1"] == report.missing["gone2"] == "not in the store"
    assert "picture cannot be decoded" in report.missing[all_scenes[2].name]
    assert report.missing[all_scenes[4].name] == "no boxes"
    whole = scored(run(store, model)[0])
    assert scored(report) == {
        scene.name: whole[scene.name] for i, scene in enumerate(all_scenes[:6]) if i not in (2, 4)
    }, "a damaged neighbour changes no score"


def test_too_many_missing_are_refused_after_the_scores_are_printed(here, model, holes):
    command = ("eval", "--store", holes, "--model", model, "--maps", "av")
    refused = here(*command, "--json")
    assert refused.code == 5
    assert json.loads(refused.out)["maps"]["av"]["overall"]["n"] == 4
    assert "4 clips are missing; --max-missing allows 0" in refused.err
    assert "--max-missing 4" in refused.err
    assert here(*command, "--max-missing", 3).code == 5
    fine = here(*command, "--max-missing", 4, "--json")
    assert (fine.code, fine.err, fine.out) == (0, "", refused.out)


def test_a_known_test_set_expects_its_whole_list(model, all_scenes, tmp_path):
    ids = published_list("flickr_test")[:2]
    clips = [to_clip(scene, id=clip_id) for scene, clip_id in zip(all_scenes, ids, strict=False)]
    folder = write(tmp_path / "flickr", [*clips, to_clip(all_scenes[3])], box_rule="consensus")
    (report,) = run(folder, model, testset="flickr")
    assert (report.testset, report.n_scored, report.n_expected, len(report.missing)) == ("flickr", 2, 249, 247)
    assert sorted(scored(report)) == sorted(ids), "what is not on the list is not scored"
    assert set(report.missing) == set(published_list("flickr_test")) - set(ids)


def test_a_test_set_of_ones_own_expects_what_its_store_does(model, holes):
    assert run(holes, model, testset="mine")[0].n_expected == 8


def test_no_score_at_all_is_no_success(here, model, all_scenes, tmp_path):
    bare = write(tmp_path / "bare", [to_clip(all_scenes[0], boxes=np.zeros((0, 4)))])
    with pytest.raises(Refused, match="none of 1 clips has boxes"):
        run(bare, model)
    broken = write(tmp_path / "broken", [to_clip(scene, picture=b"\xff\xd8 no") for scene in all_scenes[:2]])
    done = here("eval", "--store", broken, "--model", model, "--max-missing", 99)
    assert done.code == 3
    assert "scored 0 of 2 expected clips, 2 missing" in done.out
    assert all(f"missing {scene.name}: picture cannot be decoded" in done.out for scene in all_scenes[:2])
    assert "none of 2 clips could be scored; the first: " + all_scenes[0].name in done.err
    reported = here(
        "eval", "--store", broken, "--model", model, "--json", "--report", tmp_path / "report", "--negatives", 1
    )
    line = json.loads(reported.out)
    assert (reported.code, line["n_scored"], list(line["missing"])) == (3, 0, [scene.name for scene in all_scenes[:2]])
    assert (tmp_path / "report" / "index.html").is_file()


# --- which store ------------------------------------------------------------------------------------------------


def test_where_a_store_is_looked_for(tmp_path, monkeypatch, all_scenes):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreNotFound) as caught:
        find_store("flickr", None)
    assert "--ids flickr_test" in caught.value.hint
    assert f"--out {Path('data/flickr')}" in caught.value.hint
    write(tmp_path / "data" / "flickr", [to_clip(all_scenes[0])])
    assert find_store("flickr", None) == Path("data/flickr")
    monkeypatch.setenv("AVLOC_DATA", str(tmp_path / "mine"))
    assert find_store("flickr", None) == Path("data/flickr")
    write(tmp_path / "mine" / "flickr", [to_clip(all_scenes[0])])
    assert find_store("flickr", None) == tmp_path / "mine" / "flickr"
    assert find_store("flickr", Path("elsewhere")) == Path("elsewhere")
    with pytest.raises(UsageError, match="--testset vggss, or --store DIR"):
        find_store("", None)


@pytest.mark.parametrize(
    ("testset", "line"),
    [
        ("flickr", "avloc prepare Data --ids flickr_test --annotations Annotations --out data/flickr"),
        ("vggss", "avloc prepare VIDEOS --ids vggss_test --out data/vggss"),
        ("mine", "avloc prepare MEDIA --annotations BOXES.json --out data/mine"),
    ],
)
def test_an_absent_store_gives_the_line_to_type(here, tmp_path, monkeypatch, testset, line):
    monkeypatch.chdir(tmp_path)
    done = here("eval", "--testset", testset)
    assert (done.code, done.out) == (5, "")
    assert line in done.err


def test_a_store_that_is_none(here, model, tmp_path):
    done = here("eval", "--store", tmp_path, "--model", model)
    assert (done.code, "is not a prepared store" in done.err) == (5, True)


def test_shared_memory_that_is_too_small_is_refused(here, model, store, monkeypatch, tmp_path):
    monkeypatch.setattr(loader_processes, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(loader_processes.shutil, "disk_usage", lambda _path: SimpleNamespace(free=10**5))
    done = here("eval", "--store", store, "--model", model, "--maps", "av", "--json")
    assert (done.code, done.out) == (5, "")
    assert f"MB in {tmp_path}, which has 0 MB free" in done.err
    assert "lower --batch" in done.err


@pytest.mark.parametrize(("need", "named"), [({"rate": 44_100}, "--rate 44100"), ({"seconds": 4.0}, "4 s")])
def test_a_model_that_needs_more_sound_than_the_store_holds_is_refused(here, store, tmp_path, need, named):
    demanding = save_small(tmp_path / "m.safetensors", ModelConfig(**{**vars(SMALL), **need}))
    done = here("eval", "--store", store, "--model", demanding, "--maps", "av")
    assert (done.code, done.out) == (5, "")
    assert "the store holds 3 s at 22050 Hz; the model needs" in done.err
    assert named in done.err


def test_a_model_that_needs_less_sound_gets_less(store, tmp_path):
    modest = save_small(tmp_path / "m.safetensors", ModelConfig(**{**vars(SMALL), "rate": 16_000, "seconds": 2.0}))
    assert run(store, modest)[0].n_scored == COUNT


# --- maps -------------------------------------------------------------------------------------------------------


def test_a_prior_without_weights_is_a_row(here, model, store):
    done = here("eval", "--store", store, "--model", model, "--json")
    report = json.loads(done.out)
    assert (done.code, list(report["maps"])) == (0, ["av"])
    assert report["not_run"] == {"object": "weights absent", "fused": "weights absent"}
    assert PUBLISHED_NAME in done.err
    table = here("eval", "--store", store, "--model", model)
    assert table.code == 0
    assert table.out.count("not run  weights absent") == 2


@pytest.mark.parametrize("maps", ["object", "fused", "av,object"])
def test_a_prior_asked_for_by_name_needs_its_weights(here, model, store, maps):
    done = here("eval", "--store", store, "--model", model, "--maps", maps)
    assert (done.code, done.out) == (4, "")
    assert PUBLISHED_NAME in done.err
    assert "https://download.pytorch.org/models/" in done.err, "how to get it"
    assert "--weights-dir" in done.err, "where it goes"


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory) -> Path:
    """Random weights under the published file's name."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / PUBLISHED_NAME
    torch.save(resnet18(weights=None).state_dict(), path)
    return path


@pytest.mark.parametrize("flags", [(), ("--maps", "object")])
def test_wrong_weights_are_not_called_absent(here, model, store, imagenet, flags):
    """Whoever put the file there believes that it is used."""
    done = here("eval", "--store", store, "--model", model, "--weights-dir", imagenet.parent, *flags)
    assert (done.code, done.out) == (4, "")
    assert f"{imagenet} is not the published file" in done.err


@pytest.fixture
def found(monkeypatch, imagenet):
    monkeypatch.setattr(
        "avloc.priors.locate", lambda *_args, **_more: Located(path=imagenet, hashes={}, verified=False)
    )
    network = resnet18(weights=None)
    network.load_state_dict(torch.load(imagenet, weights_only=True))
    return network.eval()


def test_object_and_fused_maps_equal_their_definition(model, store, found):
    (report,) = run(store, model, maps=())
    assert (list(report.maps), report.not_run) == (["av", "object", "fused"], {})
    clips = Store(store)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    cells = torch.nn.Sequential(*list(found.children())[:-2])
    for row in report.clips:
        clip = clips.read(row.id)
        with torch.inference_mode():
            features = cells((inputs(clip, 224)[0] / 255 - mean) / std)[0]
        av, prior = av_reference(model, clip), heat_reference(features.abs().mean(0))
        for kind, heat in {"av": av, "object": prior, "fused": 0.6 * av + 0.4 * prior}.items():
            reference = ciou_reference(heat, clip.boxes, "union")
            assert row.scores[kind].ciou == pytest.approx(reference, abs=TOLERANCE), (row.id, kind)
    for kind, scores in report.maps.items():
        assert scores.overall.mean_ciou == pytest.approx(np.mean([row.scores[kind].ciou for row in report.clips]))


def test_scores_with_a_prior_do_not_depend_on_the_batch(model, store, found):
    one, other = (json.dumps(run(store, model, maps=(), batch=batch)[0].as_json()) for batch in (1, 5))
    assert one == other


def test_only_the_maps_asked_for(model, store, found):
    (report,) = run(store, model, maps=("object",))
    assert list(report.maps) == ["object"]
    assert all(list(row.scores) == ["object"] for row in report.clips)


# --- the map as the model's card asks for it --------------------------------------------------------------------

FUSION = {"least": 0.25, "most": 0.75, "unsure": -0.5, "sure": 0.5, "smooth": 0.7, "centre": 0.2}
LABEL = "0.8 (0.25-0.75 av + rest own) + 0.2 centre, smoothed by 0.7 cells"


@pytest.fixture(scope="module")
def carded(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("carded") / "carded.safetensors"
    return save_responsive(path, fusion=FUSION, resize="bilinear-halfpixel")


def test_the_shipped_map_comes_first_where_the_card_has_a_fusion(here, carded, model, store):
    line = json.loads(here("eval", carded, "--store", store, "--json").out)
    assert list(line["maps"]) == ["shipped", "av"]
    assert line["shipped"] == {"resize": "bilinear-halfpixel", "fusion": LABEL}
    assert line["protocol"] == Protocol().as_json(), "the protocol itself is as it was"
    assert [set(row["scores"]) for row in line["clips"]] == [{"shipped", "av"}] * COUNT
    (alone,) = run(store, carded, maps=("av",))
    assert {row["id"]: row["scores"]["av"]["ciou"] for row in line["clips"]} == scored(alone)
    assert alone.shipped == {}
    table = here("eval", carded, "--store", store).out
    assert [row.split("  ")[0] for row in table.splitlines()[2:4]] == ["as shipped", "audio-visual"]
    assert f", fp32; shipped: bilinear-halfpixel, {LABEL}\n" in table
    assert "shipped" not in here("eval", model, "--store", store).out


def test_the_shipped_map_scores_like_localizes_map(carded, store):
    (report,) = run(store, carded, maps=("shipped",))
    assert list(report.maps) == ["shipped"]
    shown, clips = avloc.load(carded), Store(store)
    for row in report.clips:
        clip = clips.read(row.id)
        result = shown.localize(decode_picture(clip.picture), (clip.sound / 32_767).astype(np.float32), RATE)
        assert result.heatmap.shape == (SIDE, SIDE)
        heat = heat_maps(torch.from_numpy(result.cells)[None], (224, 224), result.resize)[0].numpy()
        assert row.scores["shipped"].ciou == pytest.approx(ciou_reference(heat, clip.boxes, "union"), abs=TOLERANCE)


def test_a_card_without_a_fusion_ships_the_similarity_map(model, store):
    assert list(run(store, model)[0].maps) == ["av"]
    (report,) = run(store, model, maps=("shipped", "av"))
    assert report.shipped == {"resize": "bilinear-corners", "fusion": ""}
    assert all(repr(row.scores["shipped"]) == repr(row.scores["av"]) for row in report.clips)


def test_each_model_has_its_own_shipped_map_beside_others(here, carded, model, store, found, tmp_path):
    alone, both = run(store, carded, maps=()), run(store, model, carded, maps=())
    assert [list(report.maps) for report in both] == [["av", "object", "fused"], ["shipped", "av", "object", "fused"]]
    assert repr(both[1].clips) == repr(alone[0].clips)
    command = ("eval", carded, model, "--compare", model, "--store", store, "--negatives", 1)
    done = here(*command, "--report", tmp_path / "report", "--json")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    (comparison,) = (line for line in lines if line["schema"] == "avloc.compare/1")
    assert (list(comparison["maps"]), comparison["not_compared"]) == (["av", "object", "fused"], ["shipped"])
    assert lines[0]["negatives"]
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert LABEL in page
    assert "Map shipped, by the model" in page


def test_seeds_of_a_fused_model_are_summed_up_with_their_shipped_map(carded, store, tmp_path):
    file = load_model(carded)
    for seed in (1, 2):
        (tmp_path / "runs" / f"seed-{seed}").mkdir(parents=True)
        state = {name: seed * value for name, value in file.state.items()}
        card = {**file.card, "config": {"seed": seed}}
        save_model(tmp_path / "runs" / f"seed-{seed}" / "model.safetensors", file.config, state, card)
    options = EvalOptions(store=store, device="cpu", workers=0)
    session = evaluate_runs(options, [tmp_path / "runs"])
    (summary,) = session.summaries
    (block,) = summary.blocks.values()
    assert list(block.maps) == ["shipped", "av"]
    assert [list(run.maps) for run in block.runs] == [["shipped", "av"]] * 2


def test_a_shipped_map_has_no_score_on_silent_pairs(carded, all_scenes, tmp_path):
    """Its range differs from clip to clip; the maps of a fixed range do."""
    pairs = silent_pairs("flickr-ext")[:2]
    clips = [to_clip(scene, id=pair.video) for scene, pair in zip(all_scenes, pairs, strict=False)]
    clips += [to_clip(all_scenes[5 + k], id=pair.audio) for k, pair in enumerate(pairs) if pair.audio != pair.video]
    folder = write(tmp_path / "s", list({clip.id: clip for clip in clips}.values()), box_rule="consensus")
    (report,) = run(folder, carded, maps=(), testset="flickr-ext")
    assert "shipped" in report.maps
    assert list(report.extended) == ["av"]


def test_an_unusable_fusion_in_a_card_is_named(here, model, store, tmp_path):
    bad = save_small(tmp_path / "bad.safetensors", card={"fusion": {"least": 2.0}})
    done = here("eval", bad, "--store", store)
    assert (done.code, "unusable fusion" in done.err) == (4, True)
    assert here("eval", bad, "--store", store, "--maps", "av").code == 0


def test_the_old_spelling_of_the_object_prior_works_with_a_deprecation_notice(here, model, store):
    old = here("eval", model, "--store", store, "--prior", "vgg16")
    new = here("eval", model, "--store", store, "--object-prior", "vgg16")
    assert (old.code, old.out) == (0, new.out)
    assert old.err == f"avloc: --prior is deprecated; use --object-prior\n{new.err}"


# --- the report -------------------------------------------------------------------------------------------------


def test_json_is_one_object_a_line_with_everything_beside_the_score(here, model, store, tmp_path):
    other = save_small(tmp_path / "other.safetensors", seed=1)
    done = here("eval", "--store", store, "--model", model, "--model", other, "--maps", "av", "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err, len(lines)) == (0, "", 2)
    for line, path in zip(lines, (model, other), strict=True):
        assert (line["schema"], line["testset"], line["model"]) == ("avloc.eval/2", "store", path.stem)
        assert (line["n_scored"], line["n_expected"], line["missing"]) == (COUNT, COUNT, {})
        assert (line["model_hash"], line["data_hash"]) == (sha256_of(path), Store(store).data_hash())
        assert line["protocol"] == Protocol().as_json()
        assert set(line["maps"]["av"]["overall"]) == {"n", "ciou_50", "auc", "mean_ciou", "curve"}
        assert [row["id"] for row in line["clips"]] == Store(store).ids


def test_the_same_command_gives_the_same_bytes(here, model, store):
    for more in ((), ("--json",)):
        runs = [here("eval", "--store", store, "--model", model, *more) for _ in range(2)]
        assert runs[0] == runs[1]
        assert runs[0].out


def test_the_data_hash_follows_the_data(model, store, all_scenes, tmp_path):
    moved = [to_clip(scene, boxes=np.array([scene.box]) * 0.9) for scene in all_scenes]
    hashes = {run(path, model)[0].data_hash for path in (store, write(tmp_path / "moved", moved))}
    assert len(hashes) == 2


def test_the_table_is_plain_text_with_its_protocol(here, model, holes, all_scenes):
    done = here("eval", "--store", holes, "--model", model, "--maps", "av", "--max-missing", 9)
    assert done.code == 0
    assert "\x1b" not in done.out
    assert "protocol avloc: bilinear-corners to 224 px, min-max, inside where >= the median, all boxes" in done.out
    assert "scored 4 of 8 expected clips, 4 missing" in done.out
    assert "missing gone1: not in the store" in done.out
    assert "cIoU@0.5" in done.out
    (row,) = [line for line in done.out.splitlines() if "audio-visual" in line]
    (report,) = run(holes, model)
    summary = report.maps["av"].overall
    for value in (summary.ciou_50, summary.auc, summary.mean_ciou):
        assert f"{100 * value:.2f}" in row


@pytest.mark.parametrize("terminal", ["", "1"])
def test_no_number_of_a_table_is_shortened_however_narrow_the_place(model, store, here, monkeypatch, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", terminal)
        monkeypatch.setenv("NO_COLOR", terminal)
    tables = []
    for columns in ("12", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        tables.append(here("eval", "--store", store, "--model", model, "--maps", "av,baselines").out)
    assert tables[0] == tables[1]
    assert "cIoU@0.5" in tables[1]


def test_bf16_is_another_protocol(model, store):
    (report,) = run(store, model, precision="bf16")
    assert (report.protocol.precision, report.n_scored) == ("bf16", COUNT)


def test_without_a_model_the_one_in_the_box_is_scored(store):
    (report,) = run(store)
    assert report.model == "avloc-lite"


def test_a_damaged_prior_model_or_shard_is_named(here, model, store, all_scenes, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    with pytest.raises(WeightsError, match=r"bad\.safetensors"):
        run(store, tmp_path / "bad.safetensors")
    cut = write(tmp_path / "cut", [to_clip(all_scenes[0])])
    (shard,) = cut.glob("shard-*")
    shard.write_bytes(shard.read_bytes()[:1000])
    done = here("eval", "--store", cut, "--model", model)
    assert (done.code, str(shard) in done.err) == (5, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--maps", "nonsense"], "--maps nonsense is unknown; valid: shipped, av, object, fused, detr, baselines"),
        (["--protocol", "nonsense"], "--protocol nonsense is unknown; valid: avloc, ezvsl"),
        (["--negatives", "-1"], "--negatives -1 is impossible; valid: 0 or more"),
        (["--object-prior", "abacus"], "--object-prior abacus is unknown; valid: resnet18"),
        (["--object-prior", "own"], "Use --maps shipped."),
        (["--object-prior", "detr"], "Use --maps detr."),
        (["--object-prior", "none"], "Use --maps av."),
        (["--object-prior", "vgg16", "--prior", "vgg16"], "--prior is the old spelling of --object-prior"),
        (["--batch", "0"], "--batch 0 is impossible; valid: 1 or more"),
        (["--max-missing", "-1"], "--max-missing -1 is impossible; valid: 0 or more"),
        (["--precision", "fp16"], "precision = 'fp16' is impossible; valid: fp32, bf16"),
        (["--device", "abacus"], "--device abacus is not usable here"),
        (["--model", "absent.pth"], "no model at absent.pth"),
        (["--weights-dir", "absent"], "--weights-dir absent is not a folder"),
    ],
)
def test_invalid_arguments_are_usage_errors(here, model, store, arguments, words):
    given = arguments if "--model" in arguments else [*arguments, "--model", model]
    done = here("eval", "--store", store, *given)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_notices_go_to_the_listener(model, store):
    events = []
    evaluate(EvalOptions(store=store, models=(model,), workers=0), events.append)
    assert [event.text for event in events if isinstance(event, Notice) and "object prior not run" in event.text]
