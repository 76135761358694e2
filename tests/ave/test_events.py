"""Events second by second through the project's own commands: features in, training, scores, timelines."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from avloc.ave.annotations import LABELS_KEY, read_rows
from avloc.ave.event_table import EVENTS, NOISE, EventTable
from avloc.ave.features import EventSet
from avloc.ave.networks import build_network
from avloc.ave.training import EventTask
from avloc.checkpoint import load_model, save_model
from avloc.config import ModelConfig, parse_settings, settled
from avloc.distributed import Peers
from avloc.errors import Refused, UsageError, WeightsError
from avloc.progress import silent
from avloc.registry import EVENT_SPECS
from avloc.store import Hints
from avloc.train import TrainOptions, train
from tests.ave_world import NOISE as NOISY_ROWS
from tests.ave_world import write_ave
from tests.train.test_train import same_run
from tests.world import write_store

CLIPS, KINDS = 60, 4
OWN = ("--set", f"ave.classes={KINDS}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_ave(tmp_path_factory.mktemp("ave") / "AVE", clips=CLIPS, events=KINDS)


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory) -> Path:
    from avloc.prepare import PrepareOptions, prepare

    out = tmp_path_factory.mktemp("store") / "ave"
    prepare([str(folder)], out, PrepareOptions(layout="ave"))
    return out


def make_run(store: Path, out: Path, *settings: str, method: str = "ave", epochs: int = 2, **options) -> Path:
    own = [] if method == "ave-match" else [f"ave.classes={KINDS}"]
    config = settled(parse_settings([*own, f"epochs={epochs}", "batch=16", *settings]), method)
    train(TrainOptions(store=store, out=out, **options), config)
    return out


# --- features ---------------------------------------------------------------------------------------------------


def test_released_features_become_hints_row_by_row(folder, store, here):
    table = EventTable.of(store)
    assert table.classes == tuple(f"Event {number}" for number in range(KINDS))
    rows = [row for row in table.rows if row.split != NOISE]
    assert [row.annotation for row in rows] == list(read_rows(folder / "Annotations.txt"))
    assert len(table.part(NOISE)) == NOISY_ROWS
    with h5py.File(folder / "visual_feature.h5") as seen, h5py.File(folder / "audio_feature_noisy.h5") as heard:
        for number in (0, CLIPS - 1):
            kept = Hints(store, "vgg19").read(rows[number].clip)
            assert np.array_equal(kept, seen[LABELS_KEY][number].astype(np.float16))
        kept = Hints(store, "vggish").read(table.part(NOISE)[3].clip)
        assert np.array_equal(kept, heard[LABELS_KEY][3].astype(np.float16))
    with h5py.File(store / "labels.h5") as file:
        labels = file[LABELS_KEY][:]
    assert labels.shape == (CLIPS, 10, KINDS + 1)
    assert np.array_equal(labels.argmax(2), table.labels(rows))
    again = here("prepare", folder, "--layout", "ave", "--out", store, "--json")
    assert (again.code, json.loads(again.out)["stored"], json.loads(again.out)["already"]) == (0, 0, CLIPS + NOISY_ROWS)


def test_an_interrupted_preparation_goes_on(folder, store, tmp_path):
    from avloc.prepare import PrepareOptions, prepare

    class Enough(Exception):
        pass

    def listener(event) -> None:
        if getattr(event, "done", 0) == 20:
            raise Enough

    out = tmp_path / "ave"
    with pytest.raises(Enough):
        prepare([str(folder)], out, PrepareOptions(layout="ave"), listener)
    assert 0 < len(Hints(out, "vggish").shards) < CLIPS
    prepare([str(folder)], out, PrepareOptions(layout="ave"))
    for teacher in ("vgg19", "vggish"):
        ours, theirs = Hints(out, teacher), Hints(store, teacher)
        assert ours.shards.ids == theirs.shards.ids
        assert all(np.array_equal(ours.read(clip), theirs.read(clip)) for clip in ours.shards.ids)
    assert (out / EVENTS).read_text() == (store / EVENTS).read_text()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "Annotations.txt").unlink(), "no Annotations.txt"),
        (lambda f: (f / "val_order.h5").unlink(), "val_order.h5 is not there"),
        (lambda f: (f / "audio_feature.h5").unlink(), "without audio_feature.h5"),
        (lambda f: (f / "visual_feature.h5").write_bytes(b"no"), "visual_feature.h5 cannot be read"),
        (lambda f: spoiled(f / "visual_feature.h5", np.zeros((CLIPS, 10, 512))), "not floats of"),
        (lambda f: spoiled(f / "audio_feature.h5", np.zeros((7, 10, 128))), "has 7 rows, but there are 60"),
        (lambda f: spoiled(f / "audio_feature.h5", np.full((CLIPS, 10, 128), np.nan)), "row 0"),
        (lambda f: ((f / "audio_feature.h5").unlink(), os.mkfifo(f / "audio_feature.h5")), "no ordinary file"),
        (lambda f: ((f / "a").mkdir(), (f / "a" / "Annotations.txt").write_text("x")), "are both there"),
        (lambda f: (f / "val_order.h5").write_bytes((f / "train_order.h5").read_bytes()), "in train already"),
    ],
)
def test_a_folder_that_contradicts_itself_is_named(folder, tmp_path, here, spoil, words):
    copy = tmp_path / "AVE"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)
    for name in ("Annotations.txt", "val_order.h5", "audio_feature.h5", "visual_feature.h5"):
        (copy / name).unlink()
        (copy / name).write_bytes((folder / name).read_bytes())
    spoil(copy)
    done = here("prepare", copy, "--layout", "ave", "--out", tmp_path / "store")
    assert (done.code, words in done.err) == (2, True), done.err


def spoiled(path: Path, values: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file[LABELS_KEY] = values


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--shard", "1/2"), "--shard 1/2 does not go with released features"),
        (("--rate", "8000"), "--rate does not go with --layout ave"),
        (("--for", "lvs"), "--for lvs does not go with --layout ave"),
    ],
)
def test_what_does_not_go_with_the_folder_of_ave_is_refused(folder, tmp_path, here, flags, words):
    done = here("prepare", folder, "--layout", "ave", "--out", tmp_path / "store", *flags)
    assert (done.code, words in done.err) == (2, True), done.err


def test_a_store_of_other_events_is_left_alone(folder, store, tmp_path, here):
    before = (store / EVENTS).read_bytes()
    other = write_ave(tmp_path / "AVE", clips=10, events=2)
    done = here("prepare", other, "--layout", "ave", "--out", store)
    assert (done.code, "a store of other events" in done.err) == (5, True), done.err
    assert (store / EVENTS).read_bytes() == before


def test_noise_needs_both_of_its_files_and_no_means(folder, tmp_path, here):
    """The released means over cells have no partner with noise."""
    copy = tmp_path / "AVE"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)
    spoiled(copy / "visual_feature_vec.h5", np.ones((CLIPS, 10, 512)))
    done = here("prepare", copy, "--layout", "ave", "--out", tmp_path / "a", "--json")
    assert json.loads(done.out)["found"] == CLIPS + NOISY_ROWS
    assert Hints(tmp_path / "a", "vgg19-pooled").read("video00000").shape == (10, 1, 1, 512)
    (copy / "audio_feature_noisy.h5").unlink()
    done = here("prepare", copy, "--layout", "ave", "--out", tmp_path / "b", "--json")
    assert (json.loads(done.out)["found"], "the files of noise are not used" in done.err) == (CLIPS, True)
    flags = (*OWN, "--epochs", "1", "--batch", "16", "--set", "ave.weak=true")
    done = here("train", tmp_path / "b", "--method", "ave", "--out", tmp_path / "run", *flags)
    assert (done.code, "there are no rows of noise" in done.err) == (0, True)


def test_features_that_are_not_finished_are_not_left_out_in_silence(folder, store, tmp_path):
    table = EventTable.of(store)
    more = replace(table.rows[0], clip="lost")
    with pytest.raises(Refused, match="1 of 61 rows have no hints of vggish, first lost"):
        EventSet(store, table, [*table.rows[:60], more])


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"schema": 9, "classes": [], "rows": []}',
        '{"schema": 1, "classes": ["a", "a"], "rows": []}',
        '{"schema": 1, "classes": ["a"], "rows": [{"clip": "x"}]}',
        '{"schema": 1, "classes": ["a"], "rows": [{"clip": "x", "split": "train", "match": "", "said": '
        '{"video": "x", "category": "a", "quality": "", "start": 3, "end": 11}}]}',
        '{"schema": 1, "classes": ["a"], "rows": [{"clip": "x", "split": "moon", "match": "", "said": '
        '{"video": "x", "category": "a", "quality": "", "start": 3, "end": 9}}]}',
        '{"schema": 1, "classes": ["a"], "rows": [{"clip": "x", "split": "test", "match": "", "said": '
        '{"video": "x", "category": "b", "quality": "", "start": 3, "end": 9}}]}',
    ],
)
def test_a_table_of_events_that_makes_no_sense_is_refused(tmp_path, text):
    (tmp_path / EVENTS).write_text(text)
    with pytest.raises(Refused, match="events"):
        EventTable.of(tmp_path)


# --- training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ave", "ave-match"])
def test_a_stopped_run_goes_on_bit_for_bit(store, tmp_path, method):
    options = {"method": method, "val": "val"}
    whole = make_run(store, tmp_path / "whole", **options)
    steps = iter([False, False, True])
    own = [] if method == "ave-match" else [f"ave.classes={KINDS}"]
    config = settled(parse_settings([*own, "epochs=2", "batch=16"]), method)
    cut = TrainOptions(store=store, out=tmp_path / "cut", val="val")
    assert train(cut, config, should_stop=lambda: next(steps, False)).interrupted
    train(cut, config)
    assert same_run(whole, tmp_path / "cut")


def test_parts_of_a_batch_have_the_loss_and_gradient_of_the_whole(store):
    """Unequal ones too: what `DistributedDataParallel` takes the mean of."""
    config = settled(parse_settings([f"ave.classes={KINDS}"]), "ave")
    task = EventTask(TrainOptions(store=store, out=store / "none", device="cpu"), config, silent)
    task.start(silent)

    def step(*positions: int) -> tuple[float, torch.Tensor]:
        task.network.zero_grad()
        loss = task.terms(task.training_set.batch(positions), torch.Generator())["event"]
        loss.backward()
        return loss.item(), task.network.affine_v.weight.grad.clone()

    whole, gradient = step(0, 1, 2)

    class Two(Peers):
        def with_rows(self, count: int) -> Peers:
            return replace(self, counts=(1, 2))

    task._peers = Two(size=2)
    parts = [step(0), step(1, 2)]
    assert np.mean([loss for loss, _ in parts]) == pytest.approx(whole, rel=1e-6)
    torch.testing.assert_close(torch.stack([grad for _, grad in parts]).mean(0), gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("method", "sign"), [("ave", 1), ("ave-match", -1)])
def test_the_better_epoch_has_the_higher_score(store, tmp_path, method, sign):
    own = [] if method == "ave-match" else [f"ave.classes={KINDS}"]
    task = EventTask(TrainOptions(store=store, out=tmp_path, val="val"), settled(parse_settings(own), method), silent)
    task.start(silent)
    score, value = task.validate()
    assert score == sign * value
    batch = task.held_out.batch(range(len(task.held_out)))
    with torch.no_grad():
        if method == "ave":
            expected = (task.network.predict(batch.visual, batch.audio).scores.argmax(2) == batch.labels).float().mean()
        else:
            expected = task.network.losses(batch)["contrastive"]
    assert value == pytest.approx(expected.item(), rel=1e-5)
    assert task.network.training


def test_a_clip_is_of_its_category_and_noise_is_background(store):
    table = EventTable.of(store)
    rows = [
        *table.rows[:3],
        table.part(NOISE)[0],
        replace(table.rows[0], annotation=replace(table.rows[0].annotation, end=0, start=0)),
    ]
    assert table.clip_classes(rows).tolist() == [0, 1, 2, KINDS, 0]


def test_only_the_training_part_is_learned_from(store, tmp_path):
    table = EventTable.of(store)
    card = load_model(make_run(store, tmp_path / "a", epochs=1)).card
    assert (card["clips"], card["classes"]) == (len(table.part("train")), list(table.classes))
    weak = load_model(make_run(store, tmp_path / "b", "ave.weak=true", epochs=1)).card
    assert weak["clips"] == len(table.part("train")) + NOISY_ROWS


def test_the_fusion_head_begins_with_what_the_plain_one_has_learned(store, tmp_path):
    plain = make_run(store, tmp_path / "plain", epochs=1)
    begun = make_run(store, tmp_path / "dmrn", "ave.dmrn=true", f"init={plain}", "optim.lr=1e-12", epochs=1)
    theirs, ours = load_model(plain).state, load_model(begun).state
    shared = [name for name in theirs if name in ours and not name.startswith("L")]
    assert "lstm_video.weight_ih_l0" in shared
    assert all(torch.allclose(theirs[name], ours[name], atol=1e-9) for name in shared)
    assert ours["L2.weight"].shape == (KINDS + 1, 256)
    assert load_model(begun).card["init"]["without"] == "head"
    model = load_model(plain)
    rest = {name: value for name, value in model.state.items() if not name.startswith("lstm_audio")}
    save_model(tmp_path / "part.safetensors", model.config, rest, model.card)
    with pytest.raises(WeightsError, match="lstm_audio"):
        make_run(store, tmp_path / "other", "ave.dmrn=true", f"init={tmp_path}/part.safetensors", epochs=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "ave"), "has 4 classes of events"),
        (("--method", "ave", *OWN, "--val", "0.1"), "valid: val, test"),
        (("--method", "ave", *OWN, "--init", "imagenet"), "valid: random, or a model file"),
        (("--method", "ave", *OWN, "--set", "model.tau=0.1"), "model.tau, which means nothing to ave"),
        (("--method", "ave", *OWN, "--set", "precision=bf16"), "precision, which means nothing"),
        (("--method", "ave-match", "--set", "ave.weak=true"), "settings of ave go with --method ave"),
        (("--method", "ave-match", "--set", "ave_match.margin=0"), "ave_match.margin = 0"),
        (("--method", "avc", "--no-audio-hint", "--no-visual-hint"), "leaves 0 clips"),
    ],
)
def test_what_cannot_be_meant_is_said(store, tmp_path, here, arguments, words):
    done = here("train", store, "--out", tmp_path / "run", *arguments)
    assert done.code in (2, 5)
    assert words in done.err
    assert not (tmp_path / "run" / "config.toml").exists()


def test_training_on_no_events_says_how_to_make_them(tmp_path, here):
    done = here("train", tmp_path, "--out", tmp_path / "run", "--method", "ave")
    assert (done.code, "avloc prepare AVE_FOLDER --layout ave" in done.err) == (5, True)


@pytest.mark.slow
def test_events_are_learned_from_seconds_from_clips_and_from_pairs(tmp_path, here):
    """Far above what needs no model, on clips that were never seen."""
    write_ave(tmp_path / "AVE", clips=160, events=8)
    data = tmp_path / "store"
    assert here("prepare", tmp_path / "AVE", "--layout", "ave", "--out", data).code == 0

    def score(testset: str, *flags: str) -> dict:
        run = tmp_path / testset
        done = here("train", data, "--out", run, *flags)
        assert done.code == 0, done.err
        return json.loads(here("eval", run, "--testset", testset, "--store", data, "--json").out)

    own = ("--method", "ave", "--set", "ave.classes=8", "--batch", "16", "--epochs", "14")
    full = score("ave", *own)
    assert max(full["baselines"][name] for name in ("commonest class", "background")) < 0.3
    assert full["accuracy"] > 0.9
    weak = score("ave-weak", *own, "--set", "ave.weak=true")
    assert weak["accuracy"] > weak["baselines"]["the clip's event"] > weak["baselines"]["commonest class"]
    match = score("ave-match", "--method", "ave-match", "--epochs", "12")
    for way in ("visual_to_audio", "audio_to_visual"):
        assert match[way] > match["baselines"]["window at random"] + 0.2


# --- scores -----------------------------------------------------------------------------------------------------


def test_scores_are_those_of_a_slow_count(store, tmp_path, here):
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
        seen, heard = (Hints(store, name).read(row.clip).astype(np.float32) for name in ("vgg19", "vggish"))
        scores = network.eval().predict(torch.from_numpy(seen)[None], torch.from_numpy(heard)[None]).scores[0]
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


def test_matches_are_those_of_a_slow_search(store, tmp_path, here):
    """The event of one modality is laid over every window of the other; which is given is in the name."""
    run = make_run(store, tmp_path / "run", method="ave-match", epochs=3)
    report = json.loads(here("eval", run, "--testset", "ave-match", "--store", store, "--json").out)
    model = load_model(run)
    network = build_network(model.config)
    network.load_state_dict(model.state)
    found = {"visual_to_audio": [], "audio_to_visual": []}
    for row in EventTable.of(store).part("test", match=True):
        seen, heard = (
            torch.from_numpy(Hints(store, name).read(row.clip).astype(np.float32)) for name in ("vgg19", "vggish")
        )
        with torch.no_grad():
            sight, sound = network.embed_visual(seen.mean((1, 2))), network.embed_audio(heard)
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
    monkeypatch.setattr("avloc.ave.features._check_finished", lambda *_: None)  # as if a teacher had failed on it
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


def test_scores_need_a_model_that_says_something_finite(store, tmp_path, here):
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
def test_a_model_is_scored_as_it_was_taught(store, tmp_path, here, method, settings, testset, words):
    run = make_run(store, tmp_path / "run", *settings, method=method, epochs=1)
    done = here("eval", run, "--testset", testset, "--store", store)
    assert (done.code, words in done.err) == (2, True), done.err


def test_scores_of_events_need_a_model_of_events(store, model, tmp_path, here):
    for arguments, words in (
        ((), "needs a model"),
        ((model,), "is a model of avc"),
        ((model, "--maps", "av"), "--maps does not go with --testset ave"),
        ((model, "--batch", "16"), "--batch does not go with --testset ave"),
    ):
        done = here("eval", *arguments, "--testset", "ave", "--store", store)
        assert (done.code, words in done.err) == (2, True), done.err
    run = make_run(store, tmp_path / "run", epochs=1)
    done = here("eval", run, "--store", write_store(tmp_path / "maps", 4))
    assert (done.code, "makes no maps" in done.err) == (2, True), done.err
    done = here("localize", Path(__file__).parents[1] / "data" / "frame.jpg", "--model", run)
    assert (done.code, "makes no maps" in done.err) == (2, True), done.err


# --- published files --------------------------------------------------------------------------------------------


def test_whole_modules_and_keras_weights_are_models(tmp_path):
    from tests.torch03_files import Module, Stored, old_file, parameter

    config = ModelConfig(**EVENT_SPECS["ave"].settings["model"])
    state = build_network(config).state_dict()
    numbers = {str(place): value.numpy().ravel() for place, value in enumerate(state.values())}
    flat = {
        name: parameter(Stored(str(place), value.numel()), 0, tuple(value.shape), tuple(value.stride()))
        for place, (name, value) in enumerate(state.items())
    }
    parts: dict[str, dict] = {}
    for name, value in flat.items():
        part, _, own = name.partition(".")
        parts.setdefault(part, {})[own] = value
    children = {part: Module("torch.nn.modules.linear.Linear", **own) for part, own in parts.items()}
    for stem, weak in (("AV_att", False), ("AV_att_weak", True)):
        model = load_model(old_file(tmp_path / f"{stem}.pt", Module("models.att_Net.att_Net", children), numbers))
        assert (model.config.method, model.config.own["weak"], model.config.own["classes"]) == ("ave", weak, 28)
        assert all(torch.equal(model.state[name], value) for name, value in state.items())
    keras = tmp_path / "cmm_model_weights.h5"
    sizes = {"dense_1": (512, 128), "dense_2": (128, 64), "dense_3": (128, 128), "dense_4": (128, 64)}
    with h5py.File(keras, "w") as file:
        for name, shape in sizes.items():
            file[f"{name}/{name}/kernel:0"] = np.ones(shape, np.float32)
            file[f"{name}/{name}/bias:0"] = np.ones(shape[1], np.float32)
    assert load_model(keras).config.method == "ave-match"


def test_events_and_maps_are_kept_apart():
    with pytest.raises(UsageError, match="not events"):
        build_network(ModelConfig(method="lvs"))
