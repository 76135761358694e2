"""Every published method: its settings, its authors' files, a step of its training, and what only it has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avloc.checkpoint import load_model, save_model
from avloc.config import TrainConfig, from_dict, parse_settings, resolve_config, to_dict
from avloc.dataset import Batch, ClipSet, clip_loader
from avloc.engine import Engine, weighted_total
from avloc.errors import UsageError, WeightsError
from avloc.media.superpixels import segments
from avloc.methods import build
from avloc.methods.sacl import SACL, positive_masks
from avloc.registry import METHOD_SPECS
from avloc.store import Store
from avloc.train import TrainOptions, train
from avloc.transforms import crop_labels, draw_crops
from tests.media_makers import disc
from tests.run_folders import same_run
from tests.small_models import TINY_METHODS, narrowed
from tests.synthetic_scenes import write_store

CPU = torch.device("cpu")
FURTHER = ("lvs", "sspl", "sacl")


# --- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHOD_SPECS)
def test_a_method_comes_with_what_its_authors_set(method: str):
    config = resolve_config({}, method)
    spec = METHOD_SPECS[method]
    assert config.model.method == method
    assert config.model.own == {name: own.default for name, own in spec.own.items()}
    assert (config.model.seconds, config.model.rate) == (spec.store.seconds, spec.store.rate)
    assert bool(config.loss.audio_hint) == spec.hints
    assert from_dict(TrainConfig, to_dict(config)) == config
    assert resolve_config(to_dict(config)) == config, "the settings of a run folder name its method"


def test_what_is_typed_goes_over_what_the_authors_set():
    config = resolve_config(parse_settings(["optim.lr=0.5", "sspl.pcm=false", "model.seconds=2"]), "sspl")
    assert (config.optim.lr, config.optim.name, config.epochs, config.model.seconds) == (0.5, "adamw", 100, 2.0)
    assert config.model.own == {"pcm": False, "head_lr": 4.0}
    assert resolve_config(parse_settings(["sspl.pcm=false", "sspl.head_lr=3"]), "sspl").model.own["head_lr"] == 3.0
    assert resolve_config({}, "sspl").optim.lr == 2e-5
    assert resolve_config(parse_settings(["sspl.pcm=false"]), "sspl").optim.lr == 5e-4


@pytest.mark.parametrize(
    ("settings", "method", "words"),
    [
        (["sspl.pcm=false"], "avc", "--method sspl"),
        (["lvs.epsilon=1"], "lvs", "epsilon of lvs; valid: positive"),
        (["sacl.grid=true"], "sacl", "type int"),
        (["avc.x=1"], "avc", "valid: none"),
        (["lvs=3"], "lvs", "lvs = 3 is impossible"),
        (["model=3"], "sspl", "tables of settings"),
        (["model.own=3"], "sspl", "tables of settings"),
        (["model.method=sspl"], "lvs", "contradict each other"),
        (["sacl.retained=1"], "sacl", "sacl.retained = 1.0 is impossible; valid: 0 to 0.99"),
        (["sspl.head_lr=-1"], "sspl", "head_lr = -1.0"),
        (["sacl.grid=20"], "sacl", "0 to 14"),
        (["lvs.temperature=0"], "lvs", "temperature = 0.0"),
        (["loss.audio_hint=1000"], "ezvsl", "loss.audio_hint = 1000.0 does not apply to --method ezvsl"),
        (["audio_teacher=vggish"], "sspl", "audio_teacher = 'vggish' does not apply to --method sspl"),
        (["model.tau=0.1"], "sacl", "model.tau = 0.1 does not apply to --method sacl"),
        (["loss.same_class=masked"], "sacl", "loss.same_class = 'masked' does not apply to --method sacl"),
        (["loss.box=1"], "sspl", "loss.box = 1.0 does not apply to --method sspl"),
        (["loss.agreement=0"], "sspl", "loss.agreement = 0.0 is impossible; valid: more than 0"),
        ([], "lvz", "unknown method 'lvz'; valid: avc"),
    ],
)
def test_invalid_settings_are_named(settings, method, words):
    with pytest.raises(UsageError, match=words):
        resolve_config(parse_settings(settings), method)


@pytest.mark.parametrize(
    ("settings", "method", "words"),
    [
        (["model.dim=64"], "lvs", "no projections; valid: the width of both backbones, here 512 and 512"),
        (["model.vision_trunk=vgg16"], "lvs", "cannot keep its resolution; valid: a whole ResNet"),
        (["model.dim=64"], "sspl", "model.dim = 64 is impossible for sspl; valid: 512"),
        (["model.vision_trunk=resnet18"], "sspl", "valid: 'vgg16'"),
        (["model.rate=22050"], "sacl", "valid: 16000"),
        (["model.frame=96"], "sacl", "model.frame = 96"),
    ],
)
def test_networks_that_a_method_does_not_have_are_named(settings, method, words):
    with pytest.raises(UsageError, match=words):
        build(resolve_config(parse_settings(settings), method).model)


@pytest.mark.parametrize("method", [name for name in METHOD_SPECS if name != "lvs"])  # LVS refuses to freeze all it has
def test_freezing_is_refused_where_it_would_change_nothing(method):
    with narrowed():
        model = build(resolve_config(parse_settings(TINY_METHODS[method]), method).model)
    before = [weight.requires_grad for weight in model.parameters()]
    model.freeze_backbones()
    after = [weight.requires_grad for weight in model.parameters()]
    assert (after == before) == ("freeze" in METHOD_SPECS[method].unused)
    assert any(after)


def test_what_finds_regions_is_looked_for_before_anything_is_written(tmp_path, here, monkeypatch):
    store = write_store(tmp_path / "store", 4)
    monkeypatch.setattr("avloc.media.superpixels.find_spec", lambda _name: None)
    command = ("train", store, "--out", tmp_path / "run", "--method", "sacl", "--init", "random", "--dry-run")
    done = here(*command)
    assert (done.code, "scikit-image" in done.err, "pip install scikit-image" in done.err) == (2, True, True), done.err
    assert not (tmp_path / "run").exists()
    assert here(*command, "--set", "sacl.grid=4").code == 0


def test_a_start_from_a_model_with_other_settings_of_its_method_names_the_flag(tmp_path, here):
    config = resolve_config(parse_settings(["lvs.trimap=false", "model.seconds=3"]), "lvs").model
    save_model(tmp_path / "a.safetensors", config, build(config).state_dict(), {"name": "a"})
    store = write_store(tmp_path / "store", 4)
    command = ("train", store, "--out", tmp_path / "run", "--method", "lvs", "--set", "model.seconds=3")
    done = here(*command, "--init", tmp_path / "a.safetensors")
    assert (done.code, "--set lvs.trimap=false" in done.err) == (2, True), done.err
    assert load_model(tmp_path / "a.safetensors").config == config


# --- files ------------------------------------------------------------------------------------------------------

UNUSED_BY_LVS = ("conv1_a", "conv1", "conv1_flow", "fc")


def published_lvs(state, folder):
    given = {f"module.{key}": value for key, value in state.items() if key != "audnet.conv1.weight"}
    for trunk in ("imgnet", "audnet"):
        given |= {f"module.{trunk}.{part}.weight": torch.zeros(64, 6, 7, 7) for part in ("conv1_flow", "fc")}
    given["module.imgnet.conv1_a.weight"] = torch.zeros(64, 1, 7, 7)
    given["module.audnet.conv1.weight"] = torch.zeros(64, 3, 7, 7)
    given["module.audnet.conv1_a.weight"] = state["audnet.conv1.weight"]
    torch.save({"model_state_dict": given, "epoch": 7}, folder / "lvs_best.pth")
    return folder / "lvs_best.pth"


def published_parts(state, folder, prefix: str, parts: tuple[str, ...]):
    for part in parts:
        own = {key.partition(".")[2]: value for key, value in state.items() if key.startswith(f"{part}.")}
        extra = {"fc.weight": torch.zeros(1000, 512)} if "layer4.1.conv2.weight" in own else {}
        torch.save({f"{prefix}{key}": value for key, value in {**own, **extra}.items()}, folder / f"{part}_best.pth")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", FURTHER)
def test_the_files_of_the_authors_are_a_model(method: str, tmp_path):
    torch.manual_seed(1)
    state = build(resolve_config({}, method).model).state_dict()
    if method == "lvs":
        path = published_lvs(state, tmp_path)
    else:  # SSPL's head is for training alone
        parts = ("frame", "sound", "pcm") if method == "sspl" else ("frame", "sound")
        path = published_parts(state, tmp_path, "module." if method == "sspl" else "", parts)
    model = load_model(path)
    assert (model.config, model.name) == (resolve_config({}, method).model, path.stem)
    engine = Engine.from_file(model, CPU)
    given = {key: value for key, value in engine.model.state_dict().items() if not key.startswith("head.")}
    assert all(torch.equal(value, state[key]) for key, value in given.items())
    maps = engine.predict(*a_pair(model.config))
    assert maps.shape == (1, 14, 14)
    assert maps.abs().max() <= 1.0001
    coarse = Engine.from_file(model, CPU, "bf16").predict(*a_pair(model.config))
    assert (coarse - maps).abs().max() < 0.05


def a_pair(config) -> tuple[torch.Tensor, torch.Tensor, int]:
    draws = torch.Generator().manual_seed(2)
    frame = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=draws)
    sound = torch.randint(-9000, 9000, (1, int(config.seconds * config.rate)), dtype=torch.int16, generator=draws)
    return frame, sound, config.rate


def test_a_folder_of_other_files_is_no_model(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "frame_best.pth")
    with pytest.raises(WeightsError, match="is not a checkpoint of avc, ezvsl, lvs"):
        load_model(tmp_path)


# --- training ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"), [("lvs", []), ("sspl", []), ("sspl", ["sspl.pcm=false"]), ("sacl", [])]
)
def test_a_step_teaches_everything_that_is_to_learn(method: str, settings: list[str], tmp_path):
    config = resolve_config(parse_settings(settings), method)
    store = Store(write_store(tmp_path / "store", 4))
    model = resolve_config(parse_settings([*settings, "model.seconds=3"]), method).model
    batch: Batch = next(iter(clip_loader(ClipSet(store, store.ids, model, least_side=96), batch=4)))
    assert (batch.segments is not None) == METHOD_SPECS[method].segments
    torch.manual_seed(0)
    engine = Engine(model, CPU)
    engine.model.train()
    terms = engine.training_step(batch, config, torch.Generator().manual_seed(3))
    again = engine.training_step(batch, config, torch.Generator().manual_seed(3))
    assert all(torch.equal(terms[name], again[name]) for name in terms)
    weighted_total(terms, config.loss).backward()
    learns = [weight for group in engine.model.groups() for weight in group.parameters]
    assert {id(weight) for weight in learns} == {id(w) for w in engine.model.parameters() if w.requires_grad}
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in learns)
    assert sum(bool(weight.grad.any()) for weight in learns) > 0.9 * len(learns)


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHOD_SPECS if name != "avc"])  # AVC's: `tests.train.test_loop`
def test_a_run_goes_on_in_the_middle_as_if_nothing_had_happened(method: str, tmp_path):
    """Weights, optimiser and log after two steps in one go, and after one, a stop and the other."""
    store = write_store(tmp_path / "store", 4)
    config = resolve_config(parse_settings([*TINY_METHODS[method], "batch=2", "epochs=1", "workers=0"]), method)
    steps, cut = iter([False, True]), TrainOptions(store=store, out=tmp_path / "cut")
    with narrowed():
        train(TrainOptions(store=store, out=tmp_path / "whole"), config)
        assert train(cut, config, should_stop=lambda: next(steps, False)).interrupted
        train(cut, config)
    assert same_run(tmp_path / "whole", tmp_path / "cut")


# --- what SACL has ----------------------------------------------------------------------------------------------


def test_regions_of_a_picture():
    found = segments(disc((90, 60), (0.5, 0.5), radius=0.3))
    assert found.shape == (256, 256)
    inside, outside = found[128, 128], found[4, 4]
    assert inside != outside
    rgb = np.asarray(disc((256, 256), (0.5, 0.5), radius=0.3))
    agree = (found == inside) == (rgb[..., 0] > 150)
    assert agree.mean() > 0.97


def test_rectangles_in_place_of_regions():
    found = segments(disc((90, 60), (0.5, 0.5)), grid=2)
    assert [found[0, 0], found[0, 255], found[255, 0], found[255, 255]] == [0, 1, 2, 3]
    assert (np.bincount(found.ravel()) == 128 * 128).all()


def test_regions_are_cut_like_pictures_and_keep_their_labels():
    """Against a slow reference: the label of the frame's pixel in which the middle of each pixel of the crop lies."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (3, 8, 8), generator=draws).repeat_interleave(32, 1).repeat_interleave(32, 2).byte()
    crops = draw_crops(torch.full((3, 2), 256), 224, 1.1, 0.5, torch.rand(3, 3, generator=draws))
    cut = crop_labels(labels, crops)
    assert crops.flip.any()
    for row in range(3):
        for y, x in ((0, 0), (100, 37), (223, 223), (5, 200)):
            across = 223 - x if crops.flip[row] else x
            down = int(256 * (crops.top[row] + crops.height[row] * (y + 0.5) / 224))
            right = int(256 * (crops.left[row] + crops.width[row] * (across + 0.5) / 224))
            assert cut[row, y, x] == labels[row, down, right]
    few = torch.where(labels > 2, 40, 0).byte()
    assert set(crop_labels(few, crops).unique().tolist()) == {0, 40}
    assert len(crop_labels(few, crops, "bicubic").unique()) > 10, "what the published code does"


def positive_masks_reference(maps, labels):
    """Picture by picture and region by region."""
    masks = [binary.clone() for binary in maps]
    for row, (first, second) in enumerate(zip(*labels, strict=True)):
        shared = sorted(set(first.flatten().tolist()) & set(second.flatten().tolist()))
        if not (int(first.max()) and int(second.max()) and shared):
            continue
        overlaps = [int((maps[0][row] & (first == label)).sum()) for label in shared]
        label = shared[overlaps.index(max(overlaps))]
        masks[0][row] &= first == label
        masks[1][row] &= second == label
        if not masks[1][row].any():
            masks[1][row] = second == label
    return masks


def test_positive_masks_equal_their_definition():
    draws = torch.Generator().manual_seed(0)
    rows, cases = 400, set()
    for most in (1, 3, 256):  # labels below it; the first case has region 0 alone
        labels = [torch.randint(0, most, (rows, 2, 3), generator=draws).byte() for _ in range(2)]
        maps = [torch.rand(rows, 2, 3, generator=draws) < 0.4 for _ in range(2)]
        ours, reference = positive_masks(maps, labels), positive_masks_reference(maps, labels)
        assert all(torch.equal(mine, other) for mine, other in zip(ours, reference, strict=True))
        cut = [mask & ~binary for mask, binary in zip(ours, maps, strict=True)]
        cases |= {(torch.equal(ours[0][row], maps[0][row]), bool(cut[1][row].any())) for row in range(rows)}
    assert len(cases) == 4, "maps are cut and returned, and the second view has the whole region or not"


def test_augmentation_is_drawn_for_each_clip_and_can_leave_it_alone():
    model = SACL.augment
    frames = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    draws = torch.full((3, 8), 0.9)
    draws[1, 0] = 0.1  # jitter
    draws[2, 5] = 0.1  # grey
    out = model(None, frames, draws)
    assert torch.allclose(out[0], frames[0], atol=1e-3)
    assert (out[1] - frames[1]).abs().max() > 5
    assert torch.allclose(out[2, 0], out[2, 1])
    blurred = model(None, frames[:1], torch.tensor([[0.9] * 6 + [0.1, 0.9]]))
    assert blurred.std() < 0.5 * frames[:1].std()
