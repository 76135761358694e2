"""`distill-cache` through the function the command calls: whole, resumed, refused, failed, imported."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from avloc.distill import DistillOptions, DistillReport, distill_cache
from avloc.errors import NoInputLeft, Refused, StoreNotFound, UsageError, WeightsError
from avloc.files import folder_lock
from avloc.networks import concepts
from avloc.networks.concepts import CONCEPTS
from avloc.progress import Event, Progress
from avloc.store import Hints, Store, StoreWriter
from avloc.weights import CNN14, DETR, cache_folder
from tests.folder_contents import folder_contents
from tests.teacher_makers import CONCEPT_TEACHERS, concept_teacher, hints_of, make_clip, make_store

CLIPS = 6


@pytest.fixture(scope="session")
def options(weights: Path) -> DistillOptions:
    return DistillOptions(weights_dir=weights, device="cpu", batch=4)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, options: DistillOptions) -> tuple[Path, DistillReport]:
    """A store with the hints of both teachers from one job. Copy before changing."""
    folder = tmp_path_factory.mktemp("finished") / "store"
    make_store(folder, CLIPS)
    return folder, distill_cache(folder, options)


@pytest.fixture
def store(finished: tuple[Path, DistillReport], tmp_path: Path) -> Path:
    """A copy of that store without hints; its sound files exist."""
    return Path(shutil.copytree(finished[0], tmp_path / "store", ignore=shutil.ignore_patterns("hints-*", ".lock")))


def hint_bytes(store: Path, teacher: str) -> dict[str, bytes | None]:
    hints = Hints(store, teacher)
    values = {clip_id: hints.read(clip_id) for clip_id in hints.shards.ids}
    return {clip_id: None if value is None else value.tobytes() for clip_id, value in values.items()}


def failures(store: Path, teacher: str) -> dict[str, str]:
    path = store / f"hints-{teacher}" / "failed.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return {entry["id"]: entry["reason"] for entry in map(json.loads, lines)}


def test_both_teachers(finished: tuple[Path, DistillReport]) -> None:
    folder, report = finished
    assert report.exit_code == 0
    assert [(one.teacher, one.done, one.already, one.failed) for one in report.teachers] == [
        ("panns", CLIPS, 0, {}),
        ("detr", CLIPS, 0, {}),
    ]
    json.dumps(asdict(report))
    audio, visual = Hints(folder, "panns"), Hints(folder, "detr")
    assert audio.shards.ids == visual.shards.ids == Store(folder).ids
    assert audio.stamp["settings"]["sound"] == "source"
    assert len(audio.stamp["weights"]["Cnn14_mAP=0.431.pth"]) == 64
    for clip_id in Store(folder).ids:
        embedding, attention = audio.read(clip_id), visual.read(clip_id)
        assert embedding is not None
        assert attention is not None
        assert embedding.dtype == attention.dtype == np.float16
        assert np.linalg.norm(embedding.astype(np.float64)) == pytest.approx(1, abs=1e-3)
        assert (embedding.shape, attention.shape) == ((2048,), (25, 25))
        assert attention.astype(np.float64).sum() == pytest.approx(1, abs=1e-2)


def test_second_run_changes_nothing(finished: tuple[Path, DistillReport], options: DistillOptions) -> None:
    folder, _ = finished
    before = folder_contents(folder)
    report = distill_cache(folder, options)
    assert [(one.done, one.already) for one in report.teachers] == [(0, CLIPS), (0, CLIPS)]
    assert folder_contents(folder) == before


def test_no_confident_query_is_recorded_as_no_hint(store: Path, options: DistillOptions) -> None:
    chosen = replace(options, teachers=("detr",), confidence=0.9999)
    report = distill_cache(store, chosen)
    assert (report.teachers[0].done, report.teachers[0].no_hint, report.exit_code) == (CLIPS, CLIPS, 0)
    assert set(hint_bytes(store, "detr").values()) == {None}
    assert distill_cache(store, chosen).teachers[0].already == CLIPS


@pytest.mark.parametrize(("batch", "workers", "stop_after"), [(1, 1, 3), (5, 2, 2), (100, 3, 6)])
def test_interrupt_batch_and_workers_leave_no_trace(
    batch: int,
    workers: int,
    stop_after: int,
    store: Path,
    finished: tuple[Path, DistillReport],
    options: DistillOptions,
) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and event.done == stop_after:
            raise KeyboardInterrupt

    chosen = replace(options, batch=batch, workers=workers)
    with pytest.raises(KeyboardInterrupt):
        distill_cache(store, chosen, interrupt)
    assert len(hint_bytes(store, "panns")) == stop_after
    report = distill_cache(store, chosen)
    assert (report.teachers[0].already, report.teachers[0].done) == (stop_after, CLIPS - stop_after)
    for teacher in ("panns", "detr"):
        assert hint_bytes(store, teacher) == hint_bytes(finished[0], teacher)


@pytest.mark.parametrize("change", [{"normalise": False}, {"sound": "store"}, {"confidence": 0.5}])
def test_other_stamp_is_refused(
    change: dict[str, object], finished: tuple[Path, DistillReport], options: DistillOptions
) -> None:
    before = folder_contents(finished[0])
    with pytest.raises(Refused, match="settings differ") as caught:
        distill_cache(finished[0], replace(options, **change))  # type: ignore[arg-type]
    assert caught.value.exit_code == 5
    assert folder_contents(finished[0]) == before


def test_hints_of_frames_that_pillow_stretched_are_not_continued(store: Path, options: DistillOptions) -> None:
    chosen = replace(options, teachers=("detr",))
    distill_cache(store, chosen)
    path = store / "hints-detr" / "stamp.json"
    stamp = json.loads(path.read_text())
    del stamp["settings"]["resize"]  # as written by version 0.2
    path.write_text(json.dumps(stamp))
    before = folder_contents(store)
    with pytest.raises(Refused, match=r"settings differ \(resize\)") as caught:
        distill_cache(store, chosen)
    assert f"Delete {store / 'hints-detr'}" in caught.value.hint
    assert folder_contents(store) == before


@pytest.mark.parametrize(("first", "second"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_precisions_are_not_mixed(first: str, second: str, store: Path, options: DistillOptions) -> None:
    chosen = replace(options, teachers=("detr",))
    distill_cache(store, replace(chosen, precision=first))
    before = folder_contents(store)
    with pytest.raises(Refused, match=r"settings differ \(precision\)") as caught:
        distill_cache(store, replace(chosen, precision=second))
    assert f"Delete {store / 'hints-detr'}" in caught.value.hint
    assert f"--precision {first}." in caught.value.hint
    assert folder_contents(store) == before
    assert distill_cache(store, replace(chosen, precision=first)).teachers[0].already == CLIPS


def test_other_weights_are_refused(
    finished: tuple[Path, DistillReport], options: DistillOptions, weights: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(DETR.under(weights), tmp_path / DETR.folder))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "eos_coefficient": 0.2}))
    with pytest.raises(Refused, match="weights differ"):
        distill_cache(finished[0], replace(options, teachers=("detr",), weights_dir=tmp_path))


@pytest.mark.usefixtures("offline")
def test_absent_weights(store: Path, options: DistillOptions, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for teacher, weight in (("panns", CNN14), ("detr", DETR)):
        with pytest.raises(WeightsError) as caught:
            distill_cache(store, replace(options, teachers=(teacher,), weights_dir=tmp_path / "empty"))
        assert caught.value.exit_code == 4
        for part in (weight.files[0].name, str(tmp_path / "empty"), str(cache_folder()), "https://"):
            assert part in str(caught.value)
    assert not list(store.glob("hints-*"))


def test_failed_clips_are_listed_and_retried(store: Path, options: DistillOptions, tmp_path: Path) -> None:
    chosen = replace(options, sound="source")
    with StoreWriter(store, Store(store).header) as writer:
        writer.add(replace(make_clip(97, None), picture=b"no picture"))
        writer.add(replace(make_clip(98, tmp_path / "later"), source_bytes=1))
    report = distill_cache(store, chosen)
    assert report.exit_code == 1
    audio, visual = report.teachers
    assert set(audio.failed) == {"clip097_000010", "clip098_000010"}
    assert set(visual.failed) == {"clip097_000010"}
    assert (audio.done, visual.done) == (CLIPS, CLIPS + 1)
    assert failures(store, "panns") == audio.failed
    assert failures(store, "detr") == visual.failed
    again = distill_cache(store, chosen)
    assert [one.failed for one in again.teachers] == [audio.failed, visual.failed]
    assert failures(store, "panns") == audio.failed


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_store_is_refused_with_its_next_step(workers: int, store: Path, options: DistillOptions) -> None:
    """Also if a worker process reads it."""
    (shard,) = store.glob("shard-00001.h5")
    with h5py.File(shard, "r+") as file:
        del file["picture"]
    with pytest.raises(Refused, match=r"shard-00001.h5 cannot be read") as caught:
        distill_cache(store, replace(options, teachers=("detr",), workers=workers))
    assert caught.value.hint
    assert len(hint_bytes(store, "detr")) == 4  # those of the first batch are kept


def test_repaired_clips_are_removed_from_the_list(store: Path, options: DistillOptions) -> None:
    lost = Path(Store(store).read("clip002_000010").sound_source)
    chosen = replace(options, teachers=("panns",), sound="source")
    kept = lost.read_bytes()
    lost.unlink()
    try:
        assert set(distill_cache(store, chosen).teachers[0].failed) == {"clip002_000010"}
    finally:
        lost.write_bytes(kept)
    report = distill_cache(store, chosen)
    assert (report.teachers[0].done, report.exit_code) == (1, 0)
    assert failures(store, "panns") == {}


def test_resuming_keeps_the_sound_of_the_stamp(tmp_path: Path, options: DistillOptions) -> None:
    chosen = replace(options, teachers=("panns",))
    folder = tmp_path / "store"
    make_store(folder, 2, sources=False)
    distill_cache(folder, chosen)
    with StoreWriter(folder, Store(folder).header) as writer:
        writer.add(make_clip(2, tmp_path / "sounds"))
    report = distill_cache(folder, chosen)
    assert (report.teachers[0].done, report.teachers[0].already) == (1, 2)
    assert Hints(folder, "panns").stamp["settings"]["sound"] == "store"


def test_all_failed(tmp_path: Path, options: DistillOptions) -> None:
    make_store(tmp_path / "store", 2, sources=False)
    with pytest.raises(NoInputLeft, match="missing or changed"):
        distill_cache(tmp_path / "store", replace(options, teachers=("panns",), sound="source"))


def test_no_store(tmp_path: Path, options: DistillOptions) -> None:
    with pytest.raises(StoreNotFound):
        distill_cache(tmp_path / "absent", options)
    assert not (tmp_path / "absent").exists()


def test_one_writer_at_a_time(store: Path, options: DistillOptions) -> None:
    with folder_lock(store), pytest.raises(Refused, match="another avloc process"):
        distill_cache(store, options)


def test_invalid_options_are_refused(store: Path, options: DistillOptions) -> None:
    with pytest.raises(UsageError, match="valid: panns, yamnet, vggish, detr, lite0"):
        DistillOptions(teachers=("clap",))
    with pytest.raises(UsageError, match="--teacher"):
        DistillOptions(teachers=())
    with pytest.raises(UsageError, match="--batch"):
        DistillOptions(batch=0)
    with pytest.raises(UsageError, match="--precision half is unknown; valid: fp32, bf16"):
        DistillOptions(precision="half")
    with pytest.raises(UsageError, match="--workers -1 is impossible; valid: 0"):
        DistillOptions(workers=-1)
    with pytest.raises(UsageError, match="sound"):
        distill_cache(store, replace(options, sound="both"))
    with pytest.raises(UsageError, match="--device"):
        distill_cache(store, replace(options, device="abacus"))


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Hints in AVC's layout, for the first clips of a store of six and for one that is not in it."""
    folder = tmp_path / "arrays"
    random = np.random.default_rng(0)
    (folder / "audio_feats" / "deep").mkdir(parents=True)
    (folder / "detr_dec_feats").mkdir()
    for number in (0, 1, 40):
        np.save(folder / f"audio_feats/deep/clip{number:03d}_000010.flac.npy", random.random((1, 2048), np.float32))
        np.save(folder / f"detr_dec_feats/clip{number:03d}_000010.jpg.npy", random.random((1, 25, 25), np.float32))
    np.save(folder / "detr_dec_feats/clip002_000010.jpg.npy", np.full((25, 25), np.nan, np.float32))
    return folder


def test_import(store: Path, arrays: Path, options: DistillOptions) -> None:
    chosen = DistillOptions(import_npy=arrays)
    report = distill_cache(store, chosen)
    audio, visual = report.teachers
    assert (audio.done, audio.missing, audio.no_hint, audio.failed) == (2, 4, 0, {})
    assert (visual.done, visual.missing, visual.no_hint, visual.failed) == (3, 3, 1, {})
    assert report.exit_code == 0
    hints = Hints(store, "detr")
    expected = np.load(arrays / "detr_dec_feats/clip001_000010.jpg.npy")[0].astype(np.float16)
    np.testing.assert_array_equal(hints.read("clip001_000010"), expected)
    assert hints.read("clip002_000010") is None
    assert len(hints.stamp["settings"]["imported"]) == 64
    assert hints.stamp["weights"] == {}
    assert distill_cache(store, chosen).teachers[0].already == 2
    with pytest.raises(Refused, match="settings, weights differ"):
        distill_cache(store, options)


def test_import_reads_both_spellings_of_a_vggsound_id(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    clip = replace(make_clip(0, None), id="-0xzrMun0Rs_000030")
    store = make_store(folder, 1, sources=False, start=5)
    with StoreWriter(folder, store.header) as writer:
        writer.add(clip)
    (tmp_path / "detr_dec_feats").mkdir()
    np.save(tmp_path / "detr_dec_feats" / "-0xzrMun0Rs_30000_40000.jpg.npy", np.full((25, 25), 0.25))
    report = distill_cache(folder, DistillOptions(import_npy=tmp_path, teachers=("detr",)))
    assert (report.teachers[0].done, report.teachers[0].missing) == (1, 1)
    assert Hints(folder, "detr").read(clip.id) is not None


def test_import_of_other_arrays_is_refused(store: Path, arrays: Path) -> None:
    distill_cache(store, DistillOptions(import_npy=arrays))
    np.save(arrays / "audio_feats/clip003_000010.flac.npy", np.zeros(2048, np.float32))
    with pytest.raises(Refused, match="settings differ"):
        distill_cache(store, DistillOptions(import_npy=arrays))


def test_import_names_invalid_arrays(store: Path, arrays: Path) -> None:
    sounds = arrays / "audio_feats"
    np.save(sounds / "clip003_000010.flac.npy", np.zeros(527, np.float32))
    np.save(sounds / "clip004_000010.flac.npy", np.full(2048, 1e6, np.float32))
    np.save(sounds / "clip001_000010.wav.npy", np.zeros(2048, np.float32))
    np.save(sounds / "clip005_000010.flac.npy", np.array([{}] * 2048), allow_pickle=True)
    (sounds / "clip002_000010.flac.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + 118 * b"(")
    report = distill_cache(store, DistillOptions(import_npy=arrays, teachers=("panns",)))
    reasons = {clip_id.removesuffix("_000010"): reason for clip_id, reason in report.teachers[0].failed.items()}
    assert report.exit_code == 1
    assert report.teachers[0].done == 1
    assert "several files" in reasons["clip001"]
    assert "not a readable array" in reasons["clip002"]
    assert "not floats that squeeze to (2048,)" in reasons["clip003"]
    assert "beyond the range" in reasons["clip004"]
    assert "not a readable array" in reasons["clip005"]


def test_import_of_one_kind_and_of_none(store: Path, arrays: Path, tmp_path: Path) -> None:
    shutil.rmtree(arrays / "audio_feats")
    events: list[Event] = []
    report = distill_cache(store, DistillOptions(import_npy=arrays), events.append)
    assert [one.teacher for one in report.teachers] == ["detr"]
    assert any("audio_feats" in str(event) for event in events)
    with pytest.raises(UsageError, match="--import-npy"):
        distill_cache(store, DistillOptions(import_npy=tmp_path / "absent"))


def test_import_for_other_clips(tmp_path: Path, arrays: Path) -> None:
    make_store(tmp_path / "others", 2, sources=False, start=60)
    with pytest.raises(NoInputLeft, match="no clip of"):
        distill_cache(tmp_path / "others", DistillOptions(import_npy=arrays))


@pytest.mark.usefixtures("no_hash_in_names")
def test_hints_of_concepts_in_a_store(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store", 5)
    options = DistillOptions(teachers=CONCEPT_TEACHERS, weights_dir=weights, device="cpu", batch=2)
    report = distill_cache(store.folder, options)
    assert [(one.teacher, one.done, one.no_hint, one.failed) for one in report.teachers] == [
        ("yamnet", 5, 0, {}),
        ("lite0", 5, 0, {}),
    ]
    for name in CONCEPT_TEACHERS:
        hints = Hints(store.folder, name)
        for clip_id, expected in zip(store.ids, hints_of(concept_teacher(name, weights), store), strict=True):
            value = hints.read(clip_id)
            assert value is not None
            np.testing.assert_array_equal(value, expected.astype(np.float16))
    monkeypatch.setattr(concepts, "CONCEPTS", CONCEPTS[:-1])
    with pytest.raises(Refused, match="settings differ"):
        distill_cache(store.folder, options)


def test_teachers_of_concepts_run_by_name_only(tmp_path: Path) -> None:
    assert DistillOptions().teachers == ("panns", "detr")
    with pytest.raises(UsageError, match="--import-npy cannot import hints of lite0"):
        DistillOptions(teachers=("detr", "lite0"), import_npy=tmp_path)


@pytest.mark.usefixtures("offline")
def test_absent_weights_are_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 1, sources=False)
    with pytest.raises(WeightsError, match=r"yamnet\.safetensors") as caught:
        distill_cache(store.folder, DistillOptions(teachers=("yamnet",), device="cpu"))
    assert caught.value.exit_code == 4
    assert not list(store.folder.glob("hints-*"))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("teacher", "of_events", "advice"),
    [
        ("panns", False, "train --no-audio-hint"),
        ("vggish", False, "train --no-audio-hint"),
        ("vggish", True, "--layout ave"),
        ("vgg19", True, "--layout ave"),
    ],
)
def test_what_to_do_without_a_teacher_depends_on_what_is_trained(
    tmp_path: Path, teacher: str, of_events: bool, advice: str
) -> None:
    store = make_store(tmp_path / "store", 1)
    if of_events:
        (store.folder / "events.json").touch()
    with pytest.raises(WeightsError) as caught:
        distill_cache(store.folder, DistillOptions(teachers=(teacher,), device="cpu"))
    hint = str(caught.value.hint)
    assert [text in hint for text in ("train --no-audio-hint", "--layout ave")] == [
        text == advice for text in ("train --no-audio-hint", "--layout ave")
    ]
