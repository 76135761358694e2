"""Stores of clips: round trips, resuming, damaged headers; incomplete files are never read."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avloc.errors import Refused, StoreNotFound
from avloc.registry import StoreSpec
from avloc.store import (
    FLAGS,
    Clip,
    Hints,
    HintStamp,
    HintWriter,
    Store,
    StoreHeader,
    StoreWriter,
    shards,
)
from avloc.store.clips import clip_digest

SPEC = StoreSpec(seconds=0.01, rate=8_000)


def clip(name: str, seed: int = 0, **more) -> Clip:
    rng = np.random.default_rng([seed, *name.encode()])
    return Clip(
        id=name,
        picture=rng.bytes(rng.integers(1, 50)),
        sound=rng.integers(-32768, 32767, SPEC.samples, dtype=np.int16),
        frame_hw=(3, 4),
        boxes=rng.random((rng.integers(0, 4), 4)),
        **more,
    )


def fill(folder, names, *, shard_clips=3, seed=0):
    with StoreWriter(folder, StoreHeader(spec=SPEC), shard_clips=shard_clips) as writer:
        for name in names:
            writer.add(clip(name, seed))
    return Store(folder)


def same(one: Clip, other: Clip) -> bool:
    plain = [{k: v for k, v in vars(c).items() if k not in ("sound", "boxes")} for c in (one, other)]
    return plain[0] == plain[1] and np.array_equal(one.sound, other.sound) and np.array_equal(one.boxes, other.boxes)


@given(
    st.sets(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1), min_size=1, max_size=7),
    st.integers(1, 4),
)
@settings(max_examples=25, deadline=None)
def test_clips_round_trip(tmp_path_factory, names, shard_clips):
    store = fill(tmp_path_factory.mktemp("store"), sorted(names, reverse=True), shard_clips=shard_clips)
    assert store.ids == sorted(names)
    assert all(same(store.read(name), clip(name)) for name in names)


def test_every_field_round_trips(tmp_path):
    more = clip(
        "full",
        mask=b"a mask",
        flags=FLAGS,
        label="dog, barking",
        split="val",
        sound_source="/somewhere/ä.wav",
        source_bytes=2**40,
        source_rate=44_100,
        window_s=1.5,
        time_s=3.0,
    )
    with StoreWriter(tmp_path, StoreHeader(spec=SPEC)) as writer:
        writer.add(more)
    store = Store(tmp_path)
    assert same(store.read("full"), more)
    assert store.flag_counts() == dict.fromkeys(FLAGS, 1)
    assert json.loads((tmp_path / "store.json").read_text())["counts"]["clips"] == 1


@pytest.mark.parametrize("named", [False, True])
def test_an_interrupt_while_a_shard_is_written_loses_no_clip_and_writes_none_twice(tmp_path, monkeypatch, named):
    """Leaving the context writes the buffer; a shard is complete once it has its final name."""
    monkeypatch.setattr(shards, "write_shard", _interrupted_once(shards.write_shard, named))
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path, StoreHeader(spec=SPEC), shard_clips=2) as writer:
        for name in "abc":
            writer.add(clip(name))
    assert Store(tmp_path).ids == ["a", "b"]


@pytest.mark.parametrize("named", [False, True])
def test_an_interrupt_while_a_shard_is_written_loses_no_hint_and_writes_none_twice(tmp_path, monkeypatch, named):
    monkeypatch.setattr(shards, "write_shard", _interrupted_once(shards.write_shard, named))
    stamp = HintStamp(teacher="t", shape=(2,))
    with pytest.raises(KeyboardInterrupt), HintWriter(tmp_path, stamp, shard_clips=1) as writer:
        writer.add("a", np.zeros(2))
    assert Hints(tmp_path, "t").shards.ids == ["a"]


def _interrupted_once(write, named):
    """The writer, interrupted once, before or after the rename."""
    interrupts = iter([True])

    def interrupted(*arguments):
        interrupt = next(interrupts, False)
        if named or not interrupt:
            write(*arguments)
        if interrupt:
            raise KeyboardInterrupt

    return interrupted


def test_data_hash_depends_on_the_clips_and_not_on_their_shards(tmp_path):
    one = fill(tmp_path / "one", "abcdef", shard_clips=2).data_hash()
    assert one == fill(tmp_path / "two", "fedcba", shard_clips=5).data_hash()
    assert one != fill(tmp_path / "three", "abcdeg", shard_clips=2).data_hash()
    assert one != fill(tmp_path / "four", "abcdef", shard_clips=2, seed=1).data_hash()


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_masks_round_trip(tmp_path_factory, masks, shard_clips):
    clips = [clip(f"{place}", mask=mask) for place, mask in enumerate(masks)]
    folder = tmp_path_factory.mktemp("store")
    with StoreWriter(folder, StoreHeader(spec=SPEC, box_rule="mask"), shard_clips=shard_clips) as writer:
        for one in clips:
            writer.add(one)
    store = Store(folder)
    assert store.header.box_rule == "mask"
    assert all(same(store.read(one.id), one) for one in clips)
    for number, path in enumerate(sorted(folder.glob("shard-*.h5"))):
        held = masks[number * shard_clips : (number + 1) * shard_clips]
        with h5py.File(path, locking=False) as file:  # as the store, which still holds it open, has it
            assert ("mask" in file) == any(held), "a shard without masks is what it was before there were any"


def test_only_a_present_mask_changes_the_digest():
    plain = clip("a")
    digest = hashlib.sha256()
    for part in (b"a", plain.picture, plain.sound.tobytes(), plain.boxes.tobytes()):
        digest.update(len(part).to_bytes(8, "little") + part)
    assert clip_digest(plain) == digest.digest(), "stores made before there were masks keep their hash"
    digests = {clip_digest(replace(plain, mask=mask)) for mask in (b"", b"m", b"mm")}
    assert len(digests) == 3


@given(st.lists(st.binary(min_size=1, max_size=2), min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_clips_with_one_picture_are_a_group(tmp_path_factory, pictures, shard_clips):
    folder = tmp_path_factory.mktemp("store")
    with StoreWriter(folder, StoreHeader(spec=SPEC), shard_clips=shard_clips) as writer:
        for place, picture in enumerate(pictures):
            writer.add(replace(clip(f"{place}"), picture=picture))
    groups = Store(folder).picture_groups()
    assert list(groups) == [f"{place}" for place in range(len(pictures))]
    for one, picture in enumerate(pictures):
        assert groups[f"{one}"] == hashlib.sha256(picture).hexdigest()[:16]
        for other, second in enumerate(pictures):
            assert (groups[f"{one}"] == groups[f"{other}"]) == (picture == second)


def test_finished_clips_are_kept_after_an_interrupt(tmp_path):
    writer = StoreWriter(tmp_path, StoreHeader(spec=SPEC), shard_clips=10)
    with pytest.raises(KeyboardInterrupt), writer:
        writer.add(clip("done"))
        raise KeyboardInterrupt
    assert Store(tmp_path).ids == ["done"]


def test_two_shards_with_one_id_are_refused(tmp_path):
    fill(tmp_path, "ab")
    shutil.copy(tmp_path / "shard-00000.h5", tmp_path / "shard-00001.h5")
    with pytest.raises(Refused, match="both contain clip 'a'"):
        Store(tmp_path)


def test_a_damaged_shard_is_named(tmp_path):
    fill(tmp_path, "ab")
    shard = tmp_path / "shard-00000.h5"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(Refused, match="shard-00000"):
        Store(tmp_path)


def test_no_store_and_a_damaged_header(tmp_path):
    with pytest.raises(StoreNotFound, match="not a prepared store") as caught:
        Store(tmp_path)
    assert "avloc prepare" in caught.value.hint
    for text in ("{", "[]", '{"schema": 1}', '{"schema": 99, "spec": {}, "expected": []}'):
        (tmp_path / "store.json").write_text(text)
        with pytest.raises(Refused, match=r"store\.json"):
            Store(tmp_path)


def test_sound_of_another_length_raises_value_error(tmp_path):
    with pytest.raises(ValueError, match="expected"), StoreWriter(tmp_path, StoreHeader(spec=SPEC)) as writer:
        writer.add(Clip(id="x", picture=b"x", sound=np.zeros(3, np.int16), frame_hw=(1, 1)))


def read_in_child(store: Store, name: str, out) -> None:
    out.put(store.read(name).picture)


def test_handles_do_not_cross_a_fork_or_a_pickle(tmp_path):
    store = fill(tmp_path, "abc")
    expected = store.read("b").picture
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(store, "b", queue))
    child.start()
    assert queue.get(timeout=30) == expected
    child.join()
    assert pickle.loads(pickle.dumps(store)).read("b").picture == expected


def test_shards_hold_plain_hdf5(tmp_path):
    """Readable by other programs: one data set per field, aligned rows."""
    fill(tmp_path, "abc", shard_clips=3)
    with h5py.File(tmp_path / "shard-00000.h5") as file:
        assert len(file["id"]) == len(file["sound"]) == len(file["picture_offset"]) - 1 == 3


def test_few_shards_are_open_at_a_time_and_every_clip_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_most_open", lambda: 2)
    store = fill(tmp_path, "abcdefgh", shard_clips=1)
    expected = {name: clip_digest(store.read(name)) for name in store.ids}
    for name in "hacfbgdehha":
        assert clip_digest(store.read(name)) == expected[name]
        assert len(store.shards._open) <= 2
    assert len(set(expected.values())) == 8


HEADERS = {
    "deep": b'{"schema": ' + b"[" * 100_000,
    "a list": b"[]",
    "another kind of spec": b'{"schema": 1, "spec": 3, "expected": []}',
    "impossible spec": b'{"schema": 1, "spec": {"seconds": -1, "rate": 1, "shorter_side": 1}, "expected": []}',
    "a number too long": b'{"schema": 1, "expected": ' + b"9" * 10_000 + b"}",
    "no UTF-8": b'{"schema": "\xff"}',
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_malformed_store_header_is_refused(intact_store, tmp_path, case):
    shutil.copytree(intact_store, tmp_path / "store")
    (tmp_path / "store" / "store.json").write_bytes(HEADERS[case])
    with pytest.raises(Refused, match=r"store\.json"):
        Store(tmp_path / "store")
