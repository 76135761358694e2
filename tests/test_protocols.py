"""Protocols are frozen records whose every field affects the scores; options of `eval` are validated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, asdict, fields, replace
from types import SimpleNamespace

import numpy as np
import pytest

from avloc.annotations.testsets import published_list
from avloc.engine import ClipCells
from avloc.errors import StoreNotFound, UsageError
from avloc.evaluate.options import EvalOptions
from avloc.evaluate.protocol_scores import LabelledCells, score_protocols
from avloc.evaluate.testset import expected_ids, find_store, pairs_of
from avloc.protocols import PROTOCOLS, Protocol, protocol_named

SEVEN = {"ezvsl", "lvs", "sspl", "sacl", "slavc", "sslalign", "avc-code"}
DESCRIPTIVE = {"name", "source"}
OF_THE_NETWORKS = {"precision"}
"""Fields that apply before there is a map; tested in `tests/evaluate/test_run.py`."""


def test_the_default_is_avloc_and_the_others_are_named_after_systems():
    assert next(iter(PROTOCOLS)) == "avloc"
    assert set(PROTOCOLS) == {"avloc", *SEVEN}
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    assert PROTOCOLS["avloc"] == Protocol()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_record_is_deeply_frozen(name):
    protocol = PROTOCOLS[name]
    for entry in fields(protocol):
        with pytest.raises(FrozenInstanceError):
            setattr(protocol, entry.name, getattr(protocol, entry.name))
        if isinstance(value := getattr(protocol, entry.name), Mapping):
            with pytest.raises(TypeError, match="does not support item assignment"):
                value["av"] = 1.0
    with pytest.raises(TypeError, match="does not support item assignment"):
        PROTOCOLS[name] = protocol


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_record_is_plain_json(name):
    data = PROTOCOLS[name].as_json()
    assert json.loads(json.dumps(data)) == data
    assert set(data) == {entry.name for entry in fields(Protocol)}
    assert Protocol(**data) == PROTOCOLS[name]


@pytest.mark.parametrize("name", sorted(SEVEN))
def test_a_source_names_its_evidence(name):
    source = PROTOCOLS[name].source
    assert ("twin test only" in source) == (name in ("slavc", "sslalign"))
    assert ("parity numbers" in source) == (name not in ("slavc", "sslalign"))


# --- every field has an effect ----------------------------------------------------------------------------------


RAMP = np.arange(49, dtype=np.float32).reshape(7, 7)
STEEP = np.exp(RAMP / 4)
"""Far fewer than half of its pixels exceed half of its maximum."""
LEVELS = np.float32([[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 2], [0, 1, 1, 2]])
LEFT = np.array([[0.0, 0.0, 0.5, 1.0]])
LOW = np.array([[0.3, 0.62, 0.9, 0.97]])
TWO = np.array([[0.1, 0.6, 0.5, 0.9], [0.6, 0.6, 0.9, 0.9]])
MIXED = {"av": RAMP, "object": np.rot90(RAMP).copy(), "detr": RAMP[::-1].copy()}

EFFECTS = {
    "side": (56, "av", {"av": RAMP}, LOW),
    "resize": ("bilinear-halfpixel", "av", {"av": RAMP % 5}, LOW),
    "flat": ("nan", "av", {"av": np.ones((7, 7), np.float32)}, LOW),
    "threshold": ("half", "av", {"av": STEEP}, LOW),
    "comparison": (">", "av", {"av": LEVELS}, LOW),
    "success": (">", "av", {"av": np.ones((7, 7), np.float32)}, LEFT),
    "boxes": ("first", "av", {"av": RAMP}, TWO),
    "fused": ({"av": 0.1, "object": 0.9}, "fused", MIXED, LOW),
    "fused_detr": ({"av": 0.1, "object": 0.1, "detr": 0.8}, "fused-detr", MIXED, LOW),
    "fusion": ("fixed", "fused", {**MIXED, "object": 9 * MIXED["object"]}, LOW),
    "no_query": ("nan", "fused-detr", {"av": RAMP, "object": RAMP}, LOW),
}
"""Field -> another value, and a kind of map, maps and boxes whose score it changes."""


def overall(protocol: Protocol, kind: str, maps, boxes) -> dict[str, object]:
    clip = LabelledCells(cells=ClipCells(id="a", boxes=boxes, maps=maps))
    (result,) = score_protocols([clip], [protocol], "union", [kind])
    return asdict(result.maps[kind].overall)


def test_every_field_is_tested():
    of_the_list = {"clips", "lists", "resize_elsewhere"}
    assert {entry.name for entry in fields(Protocol)} == {*EFFECTS, *of_the_list, *DESCRIPTIVE, *OF_THE_NETWORKS}


@pytest.mark.parametrize("name", EFFECTS)
def test_a_field_changes_the_score_and_a_name_does_not(name):
    value, kind, maps, boxes = EFFECTS[name]
    assert getattr(Protocol(), name) != value
    plain = overall(Protocol(), kind, maps, boxes)
    assert overall(replace(Protocol(), **{name: value}), kind, maps, boxes) != plain
    assert overall(replace(Protocol(), name="other", source="other", precision="bf16"), kind, maps, boxes) == plain


@pytest.mark.parametrize("how", ["bilinear-halfpixel", "bicubic-corners"])
def test_every_resize_differs(how):
    maps = {"av": RAMP % 5}
    assert overall(Protocol(), "av", maps, LOW) != overall(Protocol(resize=how), "av", maps, LOW)


def test_a_protocol_has_its_own_list_of_clips_or_uses_all_clips():
    store = SimpleNamespace(header=SimpleNamespace(expected=("b", "a")), ids=["a", "b", "c"])
    boxed = ["a", "c"]
    assert expected_ids(Protocol(), "vggss", store, boxed) == list(published_list("vggss_test"))
    assert expected_ids(PROTOCOLS["sspl"], "vggss", store, boxed) == list(published_list("vggss_test_4692"))
    assert expected_ids(PROTOCOLS["sspl"], "flickr", store, boxed) == list(published_list("flickr_test"))
    assert expected_ids(PROTOCOLS["avc-code"], "vggss", store, boxed) == boxed
    assert expected_ids(PROTOCOLS["avc-code"], "", store, boxed) == boxed
    assert expected_ids(PROTOCOLS["avc-code"], "vggss-heard", store, boxed) == list(published_list("vggss_heard_test"))
    assert expected_ids(PROTOCOLS["avc-code"], "flickr", store, boxed) == list(published_list("flickr_test"))
    assert expected_ids(PROTOCOLS["avc-code"], "vggss", None, boxed) == list(published_list("vggss_test"))
    assert expected_ids(Protocol(), "mine", store, boxed) == ["b", "a"]
    store.header.expected = ()
    assert expected_ids(Protocol(), "mine", store, boxed) == ["a", "b", "c"]


def test_a_rule_may_depend_on_the_test_set():
    for testset, resize in (("vggss-4692", "bilinear-halfpixel"), ("flickr", "bilinear-corners")):
        (settled,) = EvalOptions(testset=testset, protocols=("sslalign",)).protocol_records()
        assert settled == replace(PROTOCOLS["sslalign"], resize=resize)
    assert EvalOptions(testset="flickr", protocols=("lvs",)).protocol_records() == [PROTOCOLS["lvs"]]


# --- invalid options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"resize": "bicubic"}, "resize = 'bicubic' is impossible; valid: bilinear-corners, bilinear-halfpixel"),
        ({"flat": "ones"}, "flat = 'ones' is impossible; valid: zeros, nan"),
        ({"threshold": 0.5}, "threshold = 0.5 is impossible; valid: median, half"),
        ({"comparison": "=>"}, "comparison = '=>' is impossible; valid: >=, >"),
        ({"success": "<"}, "success = '<' is impossible; valid: >=, >"),
        ({"boxes": "last"}, "boxes = 'last' is impossible; valid: all, first"),
        ({"clips": "some"}, "clips = 'some' is impossible; valid: named, store"),
        ({"fusion": "cells"}, "fusion = 'cells' is impossible; valid: heats, fixed"),
        ({"no_query": "ones"}, "no_query = 'ones' is impossible; valid: zeros, nan"),
        ({"precision": "fp64"}, "precision = 'fp64' is impossible; valid: fp32, bf16"),
        ({"side": 0}, "side = 0 is impossible; valid: 1 or more"),
        ({"side": 224.0}, "side = 224.0 is impossible"),
        ({"fused": {}}, "fused = {} is impossible; valid: weights of av, object, detr"),
        ({"fused": {"av": 0.6, "obj": 0.4}}, "'obj': 0.4} is impossible"),
        ({"fused": {"av": 0.0}}, "none below 0 and one above"),
        ({"fused_detr": {"av": 1.0, "detr": -0.1}}, "fused_detr = .* is impossible"),
        ({"fused_detr": {"av": float("nan")}}, "fused_detr = .* is impossible"),
    ],
)
def test_invalid_values_are_named(changes, named):
    with pytest.raises(UsageError, match=named):
        replace(Protocol(), **changes)


def test_unknown_protocol_names_are_refused():
    assert protocol_named("sacl") == PROTOCOLS["sacl"]
    assert protocol_named("sacl", "bf16") == replace(PROTOCOLS["sacl"], precision="bf16")
    with pytest.raises(UsageError, match="--protocol AVLOC is unknown; valid: avloc, ezvsl, lvs, sspl"):
        protocol_named("AVLOC")
    with pytest.raises(UsageError, match="precision = 'fp16' is impossible"):
        protocol_named("avloc", "fp16")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            {"maps": ("av", "objects")},
            "--maps objects is unknown; valid: shipped, av, object, fused, detr, baselines, sweep",
        ),
        ({"batch": 0}, "--batch 0 is impossible; valid: 1 or more"),
        ({"max_missing": -1}, "--max-missing -1 is impossible; valid: 0 or more"),
        ({"negatives": -1}, "--negatives -1 is impossible"),
        ({"protocols": ("avloc", "lsv")}, "--protocol lsv is unknown"),
    ],
)
def test_invalid_options_are_named(options, named):
    with pytest.raises(UsageError, match=named):
        EvalOptions(**options)


def test_repeated_protocols_count_once_in_the_given_order():
    assert [p.name for p in EvalOptions().protocol_records()] == ["avloc"]
    options = EvalOptions(protocols=("lvs", "avloc", "lvs"), precision="bf16")
    assert [(p.name, p.precision) for p in options.protocol_records()] == [("lvs", "bf16"), ("avloc", "bf16")]
    assert [EvalOptions(maps=maps).without_model for maps in ((), ("baselines",), ("av", "baselines"))] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("testset", "base"),
    [
        ("flickr-250", "flickr"),
        ("flickr-ext", "flickr"),
        ("vggss-4692", "vggss"),
        ("vggss-heard", "vggss"),
        ("vggss-unheard", "vggss"),
        ("vggss-ext", "vggss"),
    ],
)
def test_a_subset_or_extension_is_found_in_the_store_of_the_whole_set(testset, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVLOC_DATA", str(tmp_path / "mine"))
    with pytest.raises(StoreNotFound, match=testset):
        find_store(testset, None)
    places = [
        tmp_path / "data" / base,
        tmp_path / "mine" / base,
        tmp_path / "data" / testset,
        tmp_path / "mine" / testset,
    ]
    for place in places:  # each takes precedence over the previous ones
        place.mkdir(parents=True)
        (place / "store.json").touch()
        assert find_store(testset, None).resolve() == place


def test_only_extended_sets_have_silent_pairs():
    assert len(pairs_of("flickr-ext")) == 250
    assert len(pairs_of("vggss-ext")) == 5158
    assert pairs_of("vggss") == pairs_of("mine") == pairs_of("") == ()
