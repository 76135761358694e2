"""Sharded runs, sequential or concurrent, leave the same files as one unsharded run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avloc import sharding
from avloc.distill import DistillOptions, distill_cache
from avloc.distill.sources import teacher_device
from avloc.errors import NoInputLeft, Refused, UsageError
from avloc.files import folder_lock
from avloc.prepare import PrepareOptions, prepare
from avloc.progress import Progress
from avloc.sharding import UNSHARDED, JobShard, lock_shard, lock_shared_files, select_shard, worker_count
from avloc.store import Hints, Store, StoreWriter, hint_folder
from avloc.store.shards import shard_paths
from avloc.weights import DETR
from tests.media_makers import disc, make_picture, make_sound, tone
from tests.processes import start
from tests.program import ROOT
from tests.teacher_makers import make_clip, make_store
from tests.teacher_weights import save_detr

RATE = 16_000
CLIPS = 9
ONE = PrepareOptions(workers=1)


def silent(_event) -> None:
    pass


def shards(count: int) -> list[JobShard]:
    return [JobShard(number, count) for number in range(1, count + 1)]


# --- assignment of clips ----------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(exclude_categories=()))), st.integers(1, 1000))
def test_every_id_is_in_one_shard(ids, count):
    for clip_id in ids:
        assert sum(shard.contains(clip_id) for shard in shards(count)) == 1


def test_assignment_of_clips_never_changes():
    """A store can be resumed with another version or on another machine: never change these numbers."""
    assert [next(shard.number for shard in shards(3) if shard.contains(f"clip{i}")) for i in range(8)] == [
        *(1, 1, 2, 3),
        *(3, 2, 1, 2),
    ]


@pytest.mark.parametrize("command", [("prepare", "in", "--out", "out"), ("distill-cache", "store")])
@pytest.mark.parametrize("text", ["0/4", "5/4", "x", "1/0", "-1/2", "1/2/3", "1", "", "²/4", "1/ 2", "1/9999999999"])
def test_invalid_shard_is_refused(command, text, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = here(*command, "--shard", text)
    assert (done.code, done.out) == (2, "")
    assert "--shard" in done.err
    assert "valid: i/n with i from 1 to n, such as 2/4" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "environment", "shard"),
    [
        (None, {}, UNSHARDED),
        (None, {"RANK": "0"}, UNSHARDED),
        (None, {"WORLD_SIZE": "4"}, UNSHARDED),
        (None, {"RANK": "0", "WORLD_SIZE": "1"}, UNSHARDED),
        (None, {"RANK": "3", "WORLD_SIZE": "4"}, JobShard(4, 4)),
        ("1/1", {"RANK": "3", "WORLD_SIZE": "4"}, UNSHARDED),
        ("2/3", {"RANK": "3", "WORLD_SIZE": "4"}, JobShard(2, 3)),
    ],
)
def test_flag_overrides_environment(typed, environment, shard):
    announced = []
    assert select_shard(typed, announced.append, environment) == shard
    assert len(announced) == (shard == JobShard(4, 4)), "a shard set by the environment is announced"


@pytest.mark.parametrize(("rank", "size"), [("4", "4"), ("-1", "4"), ("one", "4"), ("0", "many"), ("0", "0")])
def test_invalid_launcher_variables_are_refused(rank, size):
    with pytest.raises(UsageError, match=f"RANK={rank} and WORLD_SIZE={size} are invalid; valid:"):
        select_shard(None, silent, {"RANK": rank, "WORLD_SIZE": size})


# --- locks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "job", "named"),
    [
        (JobShard(1, 2), "prepare", "shard 1/2 of prepare"),
        (JobShard(1, 3), "prepare", "shard 1/2 of prepare; only other shards of 2 can run concurrently"),
        (JobShard(2, 2), "distill-cache", "shard 1/2 of prepare"),
        (UNSHARDED, "prepare", "shard 1/2 of prepare"),
    ],
)
def test_conflicting_job_is_refused_by_name(tmp_path, second, job, named):
    with lock_shard(tmp_path, JobShard(1, 2), "prepare"), lock_shard(tmp_path, JobShard(2, 2), "prepare"):
        with pytest.raises(Refused, match=named), lock_shard(tmp_path, second, job):
            pass
    with lock_shard(tmp_path, second, job), pytest.raises(Refused, match="another avloc process is writing to"):
        with lock_shard(tmp_path, JobShard(1, 2), "prepare"):
            pass


def test_unsharded_and_sharded_runs_exclude_each_other(here, material, tmp_path):
    command = ("prepare", material, "--out", tmp_path)
    with lock_shard(tmp_path, UNSHARDED, "prepare"):
        done = here(*command, "--shard", "1/2")
    assert (done.code, f"another avloc process is writing to {tmp_path}" in done.err) == (5, True)
    with lock_shard(tmp_path, JobShard(2, 2), "prepare"):
        done = here(*command)
    assert (done.code, f"another avloc process is writing to {tmp_path}: shard 2/2 of prepare" in done.err) == (5, True)
    assert shard_paths(tmp_path) == []


def test_shared_lock_times_out(tmp_path, monkeypatch):
    monkeypatch.setattr("avloc.sharding._SHARED_LOCK_TIMEOUT_S", 0.1)
    with (
        lock_shared_files(tmp_path, JobShard(1, 2)),
        pytest.raises(Refused, match="another avloc process is writing to"),
    ):
        with lock_shared_files(tmp_path, JobShard(2, 2)):
            pass


# --- prepare ----------------------------------------------------------------------------------------------------


def pair(folder: Path, name: str) -> None:
    make_picture(folder / "frames" / f"{name}.jpg", disc((48, 32), (0.5, 0.5)), quality=92)
    make_sound(folder / "audio" / f"{name}.wav", tone(3, RATE, hz=200 + 7 * len(list(folder.rglob("*.wav")))), RATE)


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    """Pairs, a packed set, a test clip, and one input for each kind of failure."""
    folder = tmp_path_factory.mktemp("material") / "in"
    for number in range(CLIPS):
        pair(folder, f"clip{number}")
        make_sound(folder / "more" / f"clip{number}.flac", tone(3, RATE), RATE)  # a second sound of a clip that is fine
    pair(folder, "zpWuikVorYg_000032")
    for number in range(6):
        pair(folder, f"broken{number}")
        (folder / "frames" / f"broken{number}.jpg").write_bytes(b"no picture")
    for kind, shape in (("frames", (4, 256, 256, 3)), ("audios", (4, 48_000))):
        with h5py.File(folder / f"h5py_train_{kind}_10k.h5", "w") as file:
            file[f"train_{kind}"] = np.random.default_rng(0).uniform(0, 1, shape).astype("f4")
    (folder / "h5py_train_frames_144k_1.h5").write_bytes(b"no set")
    return folder


@pytest.fixture(scope="module")
def single(material, tmp_path_factory) -> Path:
    """The store of an unsharded run."""
    out = tmp_path_factory.mktemp("single") / "out"
    prepare([str(material)], out, ONE)
    return out


def same(out: Path, single: Path) -> bool:
    """Whether two stores hold the same clips and JSON files, byte for byte; their HDF5 files may differ."""
    clips = [(store.ids, store.data_hash()) for store in map(Store, (out, single))]
    texts = [[(folder / name).read_bytes() for name in ("store.json", "skipped.jsonl")] for folder in (out, single)]
    return clips[0] == clips[1] and texts[0] == texts[1] and not list(out.glob(".*.part"))


def test_sequential_shards_make_the_same_store(material, single, tmp_path):
    out = tmp_path / "out"
    reports = [prepare([str(material)], out, replace(ONE, shard=shard)) for shard in shards(3)]
    assert same(out, single)
    whole = prepare([str(material)], out, ONE)
    assert (whole.stored, whole.shard) == (0, None)
    assert [report.shard for report in reports] == ["1/3", "2/3", "3/3"]
    assert sum(report.found for report in reports) == whole.found
    assert sum(report.failed for report in reports) == whole.failed
    assert sum(report.stored for report in reports) == whole.already
    assert [report.stored for report in reports] == [
        sum(shard.contains(clip_id) for clip_id in Store(single).ids) for shard in shards(3)
    ]
    assert sum((report.overlap for report in reports), ()) == whole.overlap == ("zpWuikVorYg_000032",)
    assert same(out, single)
    assert [path.name for path in shard_paths(out)] == [f"shard-{i}-of-3-00000.h5" for i in (1, 2, 3)]


def test_concurrent_shards_make_the_same_store(material, single, tmp_path):
    command = ("prepare", material, "--out", tmp_path / "out", "--workers", 1, "--json")
    running = [start(*command, "--shard", shard) for shard in shards(2)]
    ended = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [1, 1], ended
    assert [json.loads(out)["shard"] for out, _ in ended] == ["1/2", "2/2"]
    assert same(tmp_path / "out", single)


def test_shard_run_inside_another_loses_nothing(material, single, tmp_path):
    def then_the_second(event):
        if isinstance(event, Progress) and event.done == 1:
            prepare([str(material)], tmp_path, replace(ONE, shard=JobShard(2, 2)))

    prepare([str(material)], tmp_path, replace(ONE, shard=JobShard(1, 2)), then_the_second)
    assert same(tmp_path, single)


def test_shard_with_other_settings_is_refused_before_any_clip_is_stored(material, tmp_path):
    refused = []

    def then_the_second(event):
        if isinstance(event, Progress) and (tmp_path / "store.json").is_file() and not refused:
            assert shard_paths(tmp_path) == []
            with pytest.raises(Refused, match=r"with other settings: rate \(22050 stored, 8000 requested\)") as caught:
                prepare([str(material)], tmp_path, replace(ONE, shard=JobShard(2, 2), rate=8000))
            refused.append(caught.value)

    prepare([str(material)], tmp_path, replace(ONE, shard=JobShard(1, 2)), then_the_second)
    assert len(refused) == 1
    assert Store(tmp_path).spec.rate == 22_050


def test_two_shards_cannot_both_create_the_store(material, tmp_path, monkeypatch):
    """The second checks before the first starts, and has its first clip after that."""
    from avloc.prepare import run

    choose, first = run.select_inputs, []

    def slow_to_choose(*arguments):
        if not first:
            first.append(True)
            prepare([str(material)], tmp_path, replace(ONE, shard=JobShard(1, 2)))
        return choose(*arguments)

    monkeypatch.setattr(run, "select_inputs", slow_to_choose)
    with pytest.raises(Refused, match="with other settings: rate"):
        prepare([str(material)], tmp_path, replace(ONE, shard=JobShard(2, 2), rate=8000))
    assert Store(tmp_path).spec.rate == 22_050


_SLOW = """
import sys, time
import avloc.prepare.workers, avloc.store.clips
avloc.store.clips._SHARD_BYTES = 1  # every clip is a shard
make = avloc.prepare.workers.make_clip
def slow(job):
    if job.source.id == "clip5":
        time.sleep(600)
    return make(job)
avloc.prepare.workers.make_clip = slow
from avloc.cli import main
sys.argv[0] = "avloc"
main()
"""


def test_killed_shard_is_resumed(material, single, here, tmp_path):
    out = tmp_path / "out"
    command = ("prepare", str(material), "--out", str(out), "--workers", "1")
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, *command, "--shard", "1/2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while len(shard_paths(out)) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    again = here(*command, "--shard", "1/2")
    assert (again.code, "shard 1/2 of prepare" in again.err) == (5, True)
    half = [out / f".{name}.0123abcd.part" for name in ("shard-1-of-2-00002.h5", "shard-2-of-2-00000.h5", "store.json")]
    for path in half:
        path.write_bytes(b"half")
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    before = {path: path.read_bytes() for path in shard_paths(out)}
    assert len(before) == 2
    resumed = here(*command, "--shard", "1/2", "--json")
    assert (resumed.code, json.loads(resumed.out)["already"]) == (1, 2)
    assert [path.exists() for path in half] == [False, True, False], "the other shard may be writing its file"
    assert {path: path.read_bytes() for path in shard_paths(out)}.items() > before.items()
    assert here(*command, "--shard", "2/2").code == 1
    assert same(out, single)


def test_unsharded_run_completes_a_sharded_store(material, single, tmp_path):
    first = prepare([str(material)], tmp_path, replace(ONE, shard=JobShard(2, 3)))
    (tmp_path / ".shard-1-of-3-00000.h5.0123abcd.part").write_bytes(b"half")
    rest = prepare([str(material)], tmp_path, ONE)
    assert (rest.already, rest.stored) == (first.stored, len(Store(single)) - first.stored)
    assert same(tmp_path, single)


def test_dry_run_uses_shard_from_environment(material, here, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ("prepare", material, "--out", tmp_path / "out", "--workers", 1)
    dry = here(*command, "--dry-run", "--json")
    assert "shard 2/2 only, by RANK 1 and WORLD_SIZE 2; --shard 1/1 runs unsharded" in dry.err
    assert not (tmp_path / "out").exists()
    done = here(*command)
    assert "shard           2/2\n" in done.out
    report = json.loads(dry.out)
    assert (report["shard"], report["stored"]) == ("2/2", len(Store(tmp_path / "out")) + 4), "of six broken, four"
    assert all(JobShard(2, 2).contains(clip_id) for clip_id in Store(tmp_path / "out").ids)
    assert json.loads(here(*command, "--shard", "1/1", "--dry-run", "--json").out)["shard"] is None


def test_shard_reports_only_its_own_missing_clips(material, tmp_path):
    ids = [f"clip{number}" for number in range(CLIPS + 6)]
    (tmp_path / "boxes.json").write_text(json.dumps({clip_id: [[0, 0, 1, 1]] for clip_id in ids}))
    options = replace(ONE, annotations=tmp_path / "boxes.json")
    gone = set(ids[CLIPS:])
    reports = [prepare([str(material)], tmp_path / "out", replace(options, shard=shard)) for shard in shards(2)]
    assert [set(report.missing) for report in reports] == [
        {clip_id for clip_id in gone if shard.contains(clip_id)} for shard in shards(2)
    ]
    assert all(report.missing for report in reports)
    assert Store(tmp_path / "out").header.expected == tuple(ids)


def test_empty_shard_is_no_failure_but_failed_inputs_are(here, tmp_path):
    pair(tmp_path / "in", "clip0")
    command = ("prepare", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1, "--json")
    for more in (("--dry-run",), ()):
        for shard, stored in (("1/3", 1), ("2/3", 0), ("3/3", 0)):
            done = here(*command, "--shard", shard, *more)
            assert (done.code, json.loads(done.out)["stored"]) == (0, stored)
            assert (f"shard {shard} has nothing to store: 0 inputs" in done.err) == (not stored)
    assert Store(tmp_path / "out").ids == ["clip0"]
    (tmp_path / "in" / "frames" / "clip2.jpg").write_bytes(b"")
    make_sound(tmp_path / "in" / "audio" / "clip2.wav", tone(3, RATE), RATE)
    assert here(*command, "--shard", "2/3").code == 3
    assert here(*command, "--shard", "3/3").code == 0


# --- distill-cache ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distilling(tmp_path_factory) -> DistillOptions:
    folder = tmp_path_factory.mktemp("weights")
    save_detr(DETR.under(folder))
    return DistillOptions(teachers=("detr",), weights_dir=folder, device="cpu", batch=2)


@pytest.fixture(scope="module")
def with_hints(distilling, tmp_path_factory) -> Path:
    """A store with the hints of an unsharded run; three of its clips have unreadable pictures."""
    folder = tmp_path_factory.mktemp("with_hints") / "store"
    store = make_store(folder, 6, sources=False)
    with StoreWriter(folder, store.header) as writer:
        for number in range(90, 93):
            writer.add(replace(make_clip(number, None), picture=b"no picture"))
    distill_cache(folder, distilling)
    return folder


@pytest.fixture
def without_hints(with_hints, tmp_path) -> Path:
    return Path(shutil.copytree(with_hints, tmp_path / "store", ignore=shutil.ignore_patterns("hints-*", ".lock")))


def hints(store: Path, teacher: str) -> tuple[dict[str, bytes | None], dict[str, bytes]]:
    """Hint values, and every file other than HDF5."""
    there = Hints(store, teacher)
    values = {clip_id: there.read(clip_id) for clip_id in there.shards.ids}
    texts = {path.name: path.read_bytes() for path in there.folder.iterdir() if path.suffix != ".h5"}
    return {clip_id: None if value is None else value.tobytes() for clip_id, value in values.items()}, texts


def test_shards_make_the_same_hints(with_hints, without_hints, distilling):
    def then_the_second(event):
        if isinstance(event, Progress) and event.done == 1:
            reports.append(distill_cache(without_hints, replace(distilling, shard=JobShard(2, 3))))

    reports = []
    reports.append(distill_cache(without_hints, replace(distilling, shard=JobShard(1, 3)), then_the_second))
    reports.append(distill_cache(without_hints, replace(distilling, shard=JobShard(3, 3))))
    assert hints(without_hints, "detr") == hints(with_hints, "detr")
    assert len(hints(with_hints, "detr")[1]["failed.jsonl"].splitlines()) == 3
    assert [report.shard for report in reports] == ["2/3", "1/3", "3/3"]
    whole = distill_cache(without_hints, distilling)
    assert (whole.shard, whole.teachers[0].done, whole.teachers[0].already) == (None, 0, 6)
    assert sum(report.teachers[0].done for report in reports) == 6
    assert {k for report in reports for k in report.teachers[0].failed} == set(whole.teachers[0].failed)
    assert hints(without_hints, "detr") == hints(with_hints, "detr")


def test_hints_with_other_settings_are_refused_while_another_shard_starts(without_hints, distilling):
    def then_the_second(event):
        if isinstance(event, Progress) and event.done == 1:
            with pytest.raises(Refused, match="hints with other settings: settings differ"):
                distill_cache(without_hints, replace(distilling, shard=JobShard(1, 2), confidence=0.5))

    assert distill_cache(without_hints, replace(distilling, shard=JobShard(2, 2)), then_the_second).teachers[0].done


def arrays(folder: Path, ids: list[str]) -> Path:
    (folder / "detr_dec_feats").mkdir(parents=True)
    for number, clip_id in enumerate(ids):
        np.save(folder / f"detr_dec_feats/{clip_id}.jpg.npy", np.full((25, 25), number / 8))
    return folder


def test_concurrent_shards_import_the_same_hints(without_hints, tmp_path):
    whole = Path(shutil.copytree(without_hints, tmp_path / "whole"))
    ids = Store(without_hints).ids
    importing = ("--import-npy", arrays(tmp_path / "arrays", ids[:-1]), "--teacher", "detr", "--json")
    running = [start("distill-cache", without_hints, *importing, "--shard", shard) for shard in shards(2)]
    distill_cache(whole, DistillOptions(import_npy=tmp_path / "arrays", teachers=("detr",)))
    ended = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    reports = [json.loads(out) for out, _ in ended]
    assert [report["shard"] for report in reports] == ["1/2", "2/2"]
    assert sum(report["teachers"][0]["missing"] for report in reports) == 1
    assert hints(without_hints, "detr") == hints(whole, "detr")


def test_shard_without_hints_is_no_failure_but_failed_clips_are(without_hints, tmp_path, distilling, here):
    (last,) = Store(without_hints).ids[-1:]
    mine = next(shard for shard in shards(4) if shard.contains(last))
    importing = ("--import-npy", arrays(tmp_path / "arrays", [last]), "--teacher", "detr")
    for shard in shards(4):
        done = here("distill-cache", without_hints, *importing, "--shard", shard)
        assert done.code == 0
        assert (f"shard {shard} has no clips with available hints" in done.err) == (shard != mine)
        assert f"shard  {shard}" in done.out
    shutil.rmtree(hint_folder(without_hints, "detr"))
    broken = JobShard(next(shard.number for shard in shards(64) if shard.contains(last)), 64)
    with pytest.raises(NoInputLeft, match=f"no clip of shard {broken} has a hint; the first error"):
        distill_cache(without_hints, replace(distilling, shard=broken))


@pytest.mark.parametrize(
    ("requested", "local_rank", "devices", "device"),
    [
        ("auto", "1", 4, "cuda:1"),
        ("auto", "3", 1, "cuda:0"),
        ("auto", None, 4, "cuda"),
        ("auto", "1", 0, "cpu"),
        ("cpu", "1", 4, "cpu"),
    ],
)
def test_launched_shards_use_their_own_gpu(requested, local_rank, devices, device, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: devices > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: devices)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert str(teacher_device(requested)) == device


def test_invalid_local_rank_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "abc")
    with pytest.raises(UsageError, match="LOCAL_RANK is 'abc'"):
        teacher_device("auto")


def test_locked_store_refuses_distill_cache(without_hints, distilling):
    with folder_lock(without_hints), pytest.raises(Refused, match="another avloc process is writing to"):
        distill_cache(without_hints, replace(distilling, shard=JobShard(1, 2)))
    with lock_shard(without_hints, JobShard(2, 2), "prepare"), pytest.raises(Refused, match="shard 2/2 of prepare"):
        distill_cache(without_hints, replace(distilling, shard=JobShard(1, 2)))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"max": "max 100000"}, 8),
        ({"max": "250000 100000"}, 3),
        ({"max": "1000 100000"}, 1),
        ({"quota": "-1", "period": "100000"}, 8),
        ({"quota": "200000", "period": "100000"}, 2),
    ],
)
def test_workers_are_within_the_quota_of_a_container(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: range(8), raising=False)
    monkeypatch.setattr(sharding, "_QUOTA_FILES", ((tmp_path / "max",), (tmp_path / "quota", tmp_path / "period")))
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    assert worker_count(0) == cores
    assert worker_count(5) == 5
