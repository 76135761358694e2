"""Maps of cells to scores under every protocol, against the plain loops of `tests.reference_scoring`."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avloc.engine import SILENCE, ClipCells, HeatMaps, Truths, blocks, map_weights, score_clips, truth_map, truths_of
from avloc.engine.scoring import masks_of
from avloc.evaluate.baselines import random_cells
from avloc.evaluate.protocol_scores import SWEEP, LabelledCells, Scored, score_protocols, sweep_kinds
from avloc.media.pictures import encode_png
from avloc.metrics import AUC_THRESHOLDS, ClipScore, summarise
from avloc.protocols import PROTOCOLS, Protocol
from tests import reference_scoring as slow
from tests import single_scoring

NAMES = sorted(slow.RULES)
MEDIAN = [name for name in NAMES if not slow.RULES[name].half]
ROUNDING = 1e-5
"""Values in [0, 1] that are nearer than this may change places in single precision."""
STRANGE = (np.float32("nan"), np.float32("inf"), -np.float32("inf"))
BROKEN = [-2.88e16, 2.88e16, -1.0, 0.0, 1.0, 1.5]
"""Corners as in the broken boxes of VGG-SS, and beyond."""

numbers = st.one_of(st.floats(0, 1), st.integers(0, 16).map(lambda step: step / 16), st.sampled_from(BROKEN))
boxes = hnp.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(4)), elements=numbers)
sound_boxes = hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.just(4)), elements=st.floats(0, 1)).map(
    lambda these: np.concatenate([np.minimum(these[:, :2], these[:, 2:]), np.maximum(these[:, :2], these[:, 2:])], 1)
)
box_rules = st.sampled_from(["union", "consensus"])
masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20)))


def test_the_twin_has_a_rule_for_every_protocol():
    assert set(slow.RULES) == set(PROTOCOLS)


@st.composite
def exact_cells(draw, how: str, values=(0, 1, 2, 5)) -> tuple[int, np.ndarray]:
    """Side and a small map, often with ties or flat, that single precision brings to that side without rounding."""
    side, shapes = slow.EXACT_SIZES[how]
    shape = draw(st.sampled_from(shapes))
    cells = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([np.float32(value) for value in values])))
    return side, cells


class ScoredMask(NamedTuple):
    mask: np.ndarray
    score: ClipScore


def scored(cells: ClipCells, kind: str, protocol: Protocol, box_rule: str) -> ScoredMask:
    weights = map_weights(protocol, [kind])[kind]
    heats = HeatMaps([cells.maps]).heat(weights, protocol)
    (masks,) = masks_of(heats, truths_of([cells], protocol, box_rule), protocol)
    (score,) = score_clips([cells], weights, protocol, box_rule)
    return ScoredMask(masks[0].bool().view(heats.shape[1:]).numpy(), score)


def reference(cells: ClipCells, kind: str, protocol: Protocol, box_rule: str, mask=None) -> slow.ReferenceScore:
    rule = slow.RULES[protocol.name]
    weights = {"fused": rule.weights, "fused-detr": rule.weights_detr}.get(kind, {kind: 1.0})
    return against(cells, weights, rule, protocol.side, box_rule, mask)


def against(cells, weights, rule, side, box_rule, mask=None) -> slow.ReferenceScore:
    maps = {name: grid.tolist() for name, grid in cells.maps.items()}
    truth = slow.truth(cells.boxes, rule, box_rule, side) if mask is None else slow.drawn_truth(mask.tolist(), side)
    return slow.score(slow.heat(maps, weights, rule, side), truth, rule)


def assert_equal(ours, theirs: slow.ReferenceScore, *, is_mask=False) -> None:
    assert ours.mask.tolist() == theirs.mask
    assert ours.score.ciou == pytest.approx(theirs.ciou, abs=1e-12)
    assert ours.score.area_ciou == pytest.approx(theirs.area_ciou, abs=1e-12)
    assert ours.score.hit is theirs.hit
    if is_mask:
        assert ours.score.iou == pytest.approx(theirs.iou, abs=1e-12)
    else:
        assert math.isnan(ours.score.iou)


# --- every protocol against loops --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@given(st.data(), boxes, box_rules)
@settings(max_examples=30, deadline=None)
def test_maps_with_ties_are_scored_as_by_loops(name, data, these, box_rule):
    side, cells = data.draw(exact_cells(slow.RULES[name].resize))
    clip = ClipCells(id="a", boxes=these, maps={"av": cells})
    protocol = replace(PROTOCOLS[name], side=side)
    assert_equal(scored(clip, "av", protocol, box_rule), reference(clip, "av", protocol, box_rule))


@pytest.mark.parametrize("name", NAMES)
@given(st.data(), masks)
@settings(max_examples=15, deadline=None)
def test_drawn_truths_are_scored_as_by_loops(name, data, mask):
    side, cells = data.draw(exact_cells(slow.RULES[name].resize))
    clip = ClipCells(id="a", mask=encode_png(mask), maps={"av": cells})
    protocol = replace(PROTOCOLS[name], side=side)
    assert_equal(scored(clip, "av", protocol, "mask"), reference(clip, "av", protocol, "mask", mask), is_mask=True)


@pytest.mark.parametrize("name", NAMES)
@given(st.data(), st.sampled_from(STRANGE), boxes)
@settings(max_examples=15, deadline=None)
def test_a_map_with_a_value_that_is_no_number_marks_nothing(name, data, strange, these):
    side, cells = data.draw(exact_cells(slow.RULES[name].resize))
    cells[tuple(data.draw(st.integers(0, length - 1)) for length in cells.shape)] = strange
    clip = ClipCells(id="a", boxes=these, maps={"av": cells})
    protocol = replace(PROTOCOLS[name], side=side)
    ours = scored(clip, "av", protocol, "union")
    assert_equal(ours, reference(clip, "av", protocol, "union"))
    assert not ours.mask.any()
    assert (ours.score.ciou, ours.score.area_ciou, ours.score.hit) == (0.0, 0.0, False)


@st.composite
def any_maps(draw, how: str) -> tuple[int, dict[str, np.ndarray]]:
    """Side and maps of any size. Where cells are areas, pixels at the border tie, so the maps must stay exact there."""
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if how == "areas":
        side, lengths = 16, st.sampled_from((1, 2, 4, 8, 16))
    else:
        side, lengths = draw(st.integers(7, 18)), st.integers(1, 9)
    shapes = [(draw(lengths), draw(lengths)) for _ in range(3)]
    av, prior, attention = (values.uniform(-1, 1, shape) for shape in shapes)
    maps = {"av": av, "object": prior + 2, "detr": (attention + 1) / 64}
    steps = 2**11 if how == "areas" else 2**40
    return side, {name: (np.round(grid * steps) / steps).astype(np.float32) for name, grid in maps.items()}


@pytest.mark.parametrize("name", NAMES)
@given(st.data(), boxes, box_rules)
@settings(max_examples=20, deadline=None)
def test_maps_of_any_size_are_scored_as_by_loops(name, data, these, box_rule):
    """With each system's own weights; where values lie too close for single precision nothing is claimed."""
    side, maps = data.draw(any_maps(slow.RULES[name].resize))
    clip = ClipCells(id="a", boxes=these, maps=maps)
    protocol = replace(PROTOCOLS[name], side=side)
    for kind in ("av", "object", "detr", "fused", "fused-detr"):
        theirs = reference(clip, kind, protocol, box_rule)
        if kind.startswith("fused") and theirs.ties:  # of sums; those that are exact have a test of their own
            continue
        assume(theirs.gap > ROUNDING)
        assert_equal(scored(clip, kind, protocol, box_rule), theirs)


@pytest.mark.parametrize("name", NAMES)
@given(st.data(), boxes)
@settings(max_examples=20, deadline=None)
def test_fused_maps_with_ties_flat_sources_and_an_unsure_detr(name, data, these):
    """Weights that are short binary fractions, so that sums tie in single precision as in double."""
    side = 6
    grids = hnp.arrays(np.float32, (side, side), elements=st.sampled_from([np.float32(v) for v in (0, 1, 2)]))
    values = st.one_of(grids, st.sampled_from([0.0, 0.5, np.nan]).map(lambda v: np.full((side, side), v, np.float32)))
    maps = {kind: data.draw(values) for kind in ("av", "object", "detr")}
    if data.draw(st.booleans()):
        del maps["detr"]
    clip = ClipCells(id="a", boxes=these, maps=maps)
    halves, quarters = {"av": 0.5, "object": 0.5}, {"av": 0.25, "object": 0.25, "detr": 0.5}
    changes = {"side": side, "fused": halves, "fused_detr": quarters}
    protocol = replace(PROTOCOLS[name], **changes)
    rule = replace(slow.RULES[name], weights=halves, weights_detr=quarters)
    # The maps have their final size: nothing is interpolated.
    for kind, weights in (("fused", halves), ("fused-detr", quarters)):
        assert_equal(scored(clip, kind, protocol, "union"), against(clip, weights, rule, side, "union"))


# --- adversarial maps, one by one --------------------------------------------------------------------------------


LEFT_HALF = np.array([[0.0, 0.0, 0.5, 1.0]])


@pytest.mark.parametrize(
    ("name", "whole"),
    [(name, not slow.RULES[name].flat_is_nan) for name in MEDIAN] + [("sspl", False), ("sacl", False)],
)
@pytest.mark.parametrize("value", [0.0, 0.3, -1.0])
def test_a_flat_map_is_the_whole_picture_or_nothing(name, whole, value):
    clip = ClipCells(id="a", boxes=LEFT_HALF, maps={"av": np.full((7, 7), value, np.float32)})
    cut = scored(clip, "av", PROTOCOLS[name], "union")
    assert cut.mask.all() if whole else not cut.mask.any()
    assert cut.score.ciou == (0.5 if whole else 0.0)
    assert not cut.score.hit


@pytest.mark.parametrize("name", NAMES)
def test_one_pixel_of_truth(name):
    side = 16
    cells = np.arange(side * side, dtype=np.float32).reshape(side, side)
    last = np.array([[15 / 16, 15 / 16, 1.0, 1.0]])
    protocol = replace(PROTOCOLS[name], side=side)
    score = scored(ClipCells(id="a", boxes=last, maps={"av": cells}), "av", protocol, "union").score
    marked = 127 if slow.RULES[name].strictly else 128  # of ranks, as of values, the upper half
    assert score.ciou == 1 / marked
    assert score.area_ciou == (0.0 if slow.RULES[name].strictly else 1.0)
    assert score.hit


@pytest.mark.parametrize("these", [np.zeros((0, 4)), np.array([[0.5, 0.5, 0.5, 0.9]]), np.array([[-2.88e16] * 4])])
@pytest.mark.parametrize("name", NAMES)
def test_an_empty_truth_scores_zero(name, these):
    cells = np.arange(49, dtype=np.float32).reshape(7, 7)
    for box_rule in ("union", "consensus"):
        score = scored(ClipCells(id="a", boxes=these, maps={"av": cells}), "av", PROTOCOLS[name], box_rule).score
        assert (score.ciou, score.area_ciou, score.hit) == (0.0, 0.0, False)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 16, 17])
def test_the_median_of_distinct_values_marks_half_and_the_middle_of_an_odd_number(side):
    cells = np.random.default_rng(side).permutation(side * side).reshape(side, side).astype(np.float32)
    for name in MEDIAN:
        protocol = replace(PROTOCOLS[name], side=side)
        cut = scored(ClipCells(id="a", boxes=LEFT_HALF, maps={"av": cells}), "av", protocol, "union")
        if side > 1:  # a single cell has no contrast
            assert cut.mask.sum() == math.ceil(side * side / 2) - slow.RULES[name].strictly


def test_a_fusion_without_contrast_follows_the_rule_for_flat_maps():
    ramp = np.arange(36, dtype=np.float32).reshape(6, 6)
    clip = ClipCells(id="a", boxes=LEFT_HALF, maps={"av": ramp, "object": 35 - ramp})
    protocol = Protocol(side=6, fused={"av": 0.5, "object": 0.5})
    assert scored(clip, "fused", protocol, "union").score.ciou == 0.5
    assert scored(clip, "fused", replace(protocol, flat="nan"), "union").score.ciou == 0.0


def test_protocols_share_only_maps_that_are_made_alike():
    maps = {"av": np.ones((3, 3), np.float32), "object": np.arange(12, dtype=np.float32).reshape(3, 4) % 5}
    changes = [{}, {"side": 9}, {"resize": "bilinear-halfpixel"}, {"flat": "nan"}, {"no_query": "nan"}]
    protocols = [Protocol(**change) for change in changes]
    shared = HeatMaps([maps])
    for weights in ({"av": 1.0}, {"object": 1.0}, {"detr": 1.0}, Protocol().fused, Protocol().fused_detr):
        for protocol in protocols:
            alone = HeatMaps([maps]).heat(weights, protocol)
            np.testing.assert_array_equal(shared.heat(weights, protocol), alone)


def test_only_detr_may_be_absent():
    with pytest.raises(KeyError, match="object"):
        scored(ClipCells(id="a", maps={"av": np.eye(3, dtype=np.float32)}), "fused", Protocol(), "union")


# --- properties --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32)), boxes, box_rules)
@example(np.full((3, 4), np.inf, np.float32), LEFT_HALF, "union")
@example(np.float32([[3e38, -3e38, 0, 0]] * 3), LEFT_HALF, "union")
@settings(max_examples=40, deadline=None)
def test_scores_lie_between_zero_and_one_whatever_the_map(name, cells, these, box_rule):
    score = scored(
        ClipCells(id="a", boxes=these, maps={"av": cells}), "av", replace(PROTOCOLS[name], side=12), box_rule
    ).score
    assert 0 <= score.ciou <= 1
    assert 0 <= score.area_ciou <= 1


@pytest.mark.parametrize("name", [name for name in MEDIAN if not slow.RULES[name].strictly])
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), boxes, box_rules)
@settings(max_examples=40, deadline=None)
def test_no_map_of_distinct_values_beats_the_ceiling(name, seed, side, these, box_rule):
    protocol = replace(PROTOCOLS[name], side=side)
    cells = np.random.default_rng(seed).permutation(side * side).reshape(side, side).astype(np.float32)
    clip = ClipCells(id="a", boxes=these, maps={"av": cells})
    (result,) = score_protocols([LabelledCells(cells=clip)], [protocol], box_rule, ["av"])
    best = result.baselines["ceiling"].overall.mean_ciou
    assert result.rows[0].scores["av"].ciou <= best + 1e-12
    # The truth itself, hottest first, reaches it: the ceiling is no higher than it must be.
    truth = truth_map(clip, protocol, box_rule)
    ideal = replace(clip, maps={"av": truth + cells / (4 * cells.size)})
    if truth.any():
        assert scored(ideal, "av", protocol, box_rule).score.ciou == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("name", MEDIAN)
@given(st.data(), sound_boxes)
@settings(max_examples=25, deadline=None)
def test_the_scale_of_a_map_changes_nothing(name, data, these):
    side, cells = data.draw(exact_cells(slow.RULES[name].resize))
    protocol = replace(PROTOCOLS[name], side=side)
    plain = scored(ClipCells(id="a", boxes=these, maps={"av": cells}), "av", protocol, "union")
    scaled = scored(ClipCells(id="a", boxes=these, maps={"av": 3 * cells + 1}), "av", protocol, "union")
    assert (plain.mask == scaled.mask).all()
    assert asdict(replace(plain.score, iou=0)) == asdict(replace(scaled.score, iou=0))


# --- truths ------------------------------------------------------------------------------------------------------


truth_maps = hnp.arrays(np.float32, (6, 7), elements=st.sampled_from([np.float32(value) for value in (0, 0.5, 1)]))
flags = hnp.arrays(np.bool_, (6, 7))


def ciou(masks, truths) -> list[float]:
    """Each mask against its own truth."""
    prepared = Truths(torch.from_numpy(np.stack(truths)).flatten(1))
    return prepared.ciou(torch.from_numpy(np.stack(masks)).float().flatten(1)[:, None])[:, 0].tolist()


@given(st.lists(st.tuples(flags, truth_maps), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_ciou_equals_its_definition(pairs):
    scores = ciou(*zip(*pairs, strict=True))
    for score, (mask, truth) in zip(scores, pairs, strict=True):
        assert score == pytest.approx(slow.ciou(mask, truth.tolist()), abs=1e-12)
        assert 0 <= score <= 1


def test_ciou_of_the_truth_itself_is_one_and_of_its_outside_zero():
    truth = truth_map(ClipCells(id="a", boxes=np.array([[0.25, 0.25, 0.75, 1.0]])), Protocol(), "union")
    assert ciou([truth > 0, truth == 0], [truth, truth]) == [1.0, 0.0]


def test_pixels_of_weak_consensus_cost_nothing_extra():
    truth = np.zeros((4, 4), np.float32)
    truth[0, :2], truth[0, 2:] = 1, 0.5
    assert ciou([truth == 1, truth > 0], [truth, truth]) == [pytest.approx(2 / 3), 1.0]


def test_a_mask_scores_zero_against_an_empty_truth():
    nothing = np.zeros((4, 4), np.float32)
    assert ciou([nothing == 0, nothing > 0], [nothing, nothing]) == [0, 0]


@given(st.lists(truth_maps, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_truths_count_their_pixels(maps):
    truths = Truths(torch.from_numpy(np.stack(maps)).flatten(1))
    assert truths.pixels.tolist() == [(grid > 0).sum() for grid in maps]
    assert truths.total.tolist() == [grid.sum() for grid in maps]
    for place in range(42):
        assert truths.hold(torch.full((len(maps),), place)).tolist() == [grid.flat[place] > 0 for grid in maps]


@given(hnp.arrays(np.float32, (3, 3), elements=st.sampled_from([0.0, 0.5, 1.0])), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_no_mask_of_so_many_pixels_is_better_than_the_best(values, pixels):
    """Every mask there is, one after the other."""
    truths, best = Truths(torch.from_numpy(values).view(1, -1)), 0.0
    for chosen in combinations(range(9), pixels):
        mask = np.zeros(9, bool)
        mask[list(chosen)] = True
        best = max(best, slow.ciou(mask.reshape(3, 3), values.tolist()))
    assert truths.best_ciou(pixels).tolist() == [pytest.approx(best, abs=1e-12)]


# --- blocks ------------------------------------------------------------------------------------------------------


@st.composite
def clip_lists(draw) -> list[ClipCells]:
    """Clips with boxes or masks, with or without DETR; maps differ in size, have ties, are flat or hold no numbers."""
    values = st.one_of(st.floats(-1, 2, width=32), st.sampled_from([0.0, 0.5, *map(float, STRANGE)]))
    shapes = st.sampled_from([(7, 7), (7, 7), (7, 7), (1, 1), (3, 5), (20, 20)])
    grids = shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=values))
    out = []
    for index in range(draw(st.integers(1, 20))):
        maps = {"av": draw(grids), "object": draw(grids), **({"detr": draw(grids)} if draw(st.booleans()) else {})}
        is_mask = draw(st.booleans())
        truth = {"mask": encode_png(draw(masks))} if is_mask else {"boxes": draw(boxes)}
        out.append(ClipCells(id=str(index), maps=maps, **truth))
    return out


@given(clip_lists(), st.sampled_from(NAMES), box_rules, st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_clips_in_blocks_score_exactly_as_one_by_one(clips, name, box_rule, side):
    protocol = replace(PROTOCOLS[name], side=side)
    for weights in map_weights(protocol, ["av", "detr", "fused", "fused-detr"]).values():
        ours = list(score_clips(clips, weights, protocol, box_rule))
        twins = [single_scoring.score(cells, weights, protocol, box_rule) for cells in clips]
        assert list(map(repr, ours)) == list(map(repr, twins))


@given(clip_lists())
@settings(max_examples=30, deadline=None)
def test_blocks_are_the_clips_in_their_order_and_alike(clips):
    found = list(blocks(clips))
    assert [cells.id for block in found for cells in block] == [cells.id for cells in clips]
    for block in found:
        kinds = [(bool(c.mask), {name: grid.shape for name, grid in c.maps.items()}) for c in block]
        assert kinds == kinds[:1] * len(block)


# --- many clips, many protocols ----------------------------------------------------------------------------------


KINDS = ["av", "object", "fused", "detr", "fused-detr"]
SIDE = 24


def some_clips(count: int, *, drawn: bool = False) -> list[LabelledCells]:
    """Clips with every kind of fault among them."""
    draw = np.random.default_rng(count)
    out = []
    for index in range(count):
        av = draw.uniform(-1, 1, (7, 7)).astype(np.float32)
        maps = {"av": av, "object": draw.uniform(0, 3, (7, 7)).astype(np.float32)}
        maps["detr"] = draw.uniform(0, 1, (9, 12)).astype(np.float32)
        if index % 5 == 1:
            del maps["detr"]
        if index % 7 == 2:
            av[3, 3] = np.nan
        if index % 7 == 3:
            av[:] = 0.25
        corners = np.sort(draw.uniform(0, 1, (index % 4, 2, 2)), axis=1).reshape(-1, 4)
        picture = draw.random((11, 13)) < (0.0 if index % 6 == 4 else 0.4)
        truth = {"mask": encode_png(picture)} if drawn else {"boxes": corners}
        wrong = {SILENCE: draw.uniform(-1, 1, (1, 7, 7)).astype(np.float32)}
        cells = ClipCells(id=f"clip-{index:02}", maps=maps, wrong=wrong, **truth)
        out.append(LabelledCells(cells=cells, label=f"class {index % 3}", flags=("silent",) if index % 2 else ()))
    return out


def records(**changes) -> list[Protocol]:
    return [replace(protocol, side=SIDE, **changes) for protocol in PROTOCOLS.values()]


def as_bytes(results: list[Scored]) -> bytes:
    return b"\n".join(map(as_bytes_of, results))


def as_bytes_of(record) -> bytes:
    return json.dumps(asdict(record)).encode()


@pytest.fixture(scope="module")
def clips() -> list[LabelledCells]:
    return some_clips(18)


@pytest.mark.parametrize("drawn", [False, True])
def test_neither_order_nor_threads_change_a_byte(drawn, request):
    clips = some_clips(18, drawn=drawn)
    first = as_bytes(score_protocols(clips, records(), "consensus", KINDS, sweep=True))
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        shuffled = random.Random(threads).sample(clips, len(clips))
        assert as_bytes(score_protocols(shuffled, records(), "consensus", KINDS, sweep=True)) == first


def test_protocols_scored_together_score_as_alone(clips):
    together = score_protocols(clips, records(), "union", KINDS)
    for protocol, result in zip(records(), together, strict=True):
        assert as_bytes(score_protocols(clips, [protocol], "union", KINDS)) == as_bytes([result])


@pytest.mark.parametrize("drawn", [False, True])
def test_a_clip_more_or_less_changes_no_other_row(drawn):
    clips = some_clips(10, drawn=drawn)
    whole = {row.id: json.dumps(asdict(row)) for row in score_protocols(clips, records(), "union", KINDS)[0].rows}
    for left_out in range(len(clips)):
        rest = clips[:left_out] + clips[left_out + 1 :]
        rows = score_protocols(rest, records(), "union", KINDS)[0].rows
        assert [row.id for row in rows] == sorted(clip.cells.id for clip in rest)
        assert all(json.dumps(asdict(row)) == whole[row.id] for row in rows)


def summary_reference(scores, success) -> tuple[float, float, float]:
    n = len(scores)
    shares = [sum(value >= bar for value in scores) / n for bar in AUC_THRESHOLDS]
    auc = sum((shares[i] + shares[i + 1]) / 2 * (AUC_THRESHOLDS[i + 1] - AUC_THRESHOLDS[i]) for i in range(20))
    reached = sum(value > 0.5 if success else value >= 0.5 for value in scores) / n
    return reached, auc, sum(scores) / n


def assert_summary(ours, scores, strictly) -> None:
    assert ours.n == len(scores)
    assert (ours.ciou_50, ours.auc, ours.mean_ciou) == pytest.approx(summary_reference(scores, strictly), abs=1e-9)


def class_of_size(weight: float) -> str:
    """By the pixels of a square of 224, at 32^2, 96^2 and 144^2."""
    pixels = weight * 224 * 224
    return "small" if pixels < 1024 else "medium" if pixels < 9216 else "large" if pixels < 20736 else "huge"


def each_score(clips, kind, protocol) -> list[ClipScore]:
    """Scores of single clips, which the tests above hold; the stand-ins are scored like any map."""
    stand_ins = {"random": lambda cells: random_cells(cells.id), "sound ignored": lambda cells: cells.wrong[SILENCE][0]}
    if kind in stand_ins:
        maps = [{"av": stand_ins[kind](clip.cells)} for clip in clips]
        clips, kind = [LabelledCells(cells=replace(c.cells, maps=m)) for c, m in zip(clips, maps, strict=True)], "av"
    return [scored(clip.cells, kind, protocol, "consensus").score for clip in clips]


def shares_of(clips, protocol) -> list[tuple[float, float]]:
    """Of each truth the share of the picture where it is not 0, and the mean of the truth."""
    truths = [slow.truth(clip.cells.boxes, slow.RULES[protocol.name], "consensus", SIDE) for clip in clips]
    values = [[value for row in truth for value in row] for truth in truths]
    return [(sum(value != 0 for value in truth) / SIDE**2, sum(truth) / SIDE**2) for truth in values]


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_set_is_summed_up_as_by_loops(name, clips):
    protocol, strictly = replace(PROTOCOLS[name], side=SIDE), slow.RULES[name].more_than_half
    (result,) = score_protocols(clips, [protocol], "consensus", KINDS)
    assert list(result.maps) == KINDS
    sizes = [class_of_size(weight) for _, weight in shares_of(clips, protocol)]
    for kind in [*KINDS, "random", "sound ignored"]:
        each = each_score(clips, kind, protocol)
        ours = result.maps[kind] if kind in KINDS else result.baselines[kind]
        assert_summary(ours.overall, [one.ciou for one in each], strictly)
        assert_summary(ours.area, [one.area_ciou for one in each], strictly)
        assert ours.pointing == pytest.approx(sum(one.hit for one in each) / len(each))
        assert set(ours.sizes) == set(sizes)
        for size, summary in ours.sizes.items():
            of_size = [one.ciou for one, its_size in zip(each, sizes, strict=True) if its_size == size]
            assert_summary(summary, of_size, strictly)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_the_label_size_and_flags_of_its_clip(name, clips):
    protocol = replace(PROTOCOLS[name], side=SIDE)
    (result,) = score_protocols(clips, [protocol], "consensus", KINDS)
    assert [row.id for row in result.rows] == [clip.cells.id for clip in clips]
    scores = {kind: each_score(clips, kind, protocol) for kind in KINDS}
    shares = shares_of(clips, protocol)
    for place, (row, clip, (area, weight)) in enumerate(zip(result.rows, clips, shares, strict=True)):
        assert (row.area, row.size, row.label, row.flags) == (area, class_of_size(weight), clip.label, clip.flags)
        for kind in KINDS:
            assert as_bytes_of(row.scores[kind]) == as_bytes_of(scores[kind][place])


def test_the_sweep_fuses_by_every_tenth(clips):
    assert SWEEP == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert sweep_kinds()["0.7 av + 0.3 object"] == {"av": 0.7, "object": 0.3}
    (result,) = score_protocols(clips, [replace(Protocol(), side=SIDE)], "union", ["av", "fused"], sweep=True)
    assert list(result.sweep) == list(sweep_kinds())
    assert list(result.maps) == ["av", "fused"]
    assert as_bytes_of(result.sweep["0.6 av + 0.4 object"]) == as_bytes_of(result.maps["fused"])
    for name, weights in sweep_kinds().items():
        protocol = replace(Protocol(), side=SIDE, fused=weights)
        each = [scored(clip.cells, "fused", protocol, "union").score.ciou for clip in clips]
        assert_summary(result.sweep[name].overall, each, strictly=False)


def test_drawn_truths_have_a_mean_iou_and_a_largest_f_score():
    clips = some_clips(8, drawn=True)
    protocol = replace(Protocol(), side=SIDE)
    (result,) = score_protocols(clips, [protocol], "mask", ["av"])
    curves, ious = [], []
    for clip in clips:
        truth = truth_map(clip.cells, protocol, "mask")
        heat = HeatMaps([clip.cells.maps]).heat({"av": 1.0}, protocol)[0].numpy()
        ious.append(scored(clip.cells, "av", protocol, "mask").score.iou)
        if truth.any():
            curves.append([f_score(heat, truth, at) for at in np.linspace(0, 1 - 1e-10, 255)])
    assert len(curves) < len(clips), "one truth is empty"
    assert result.maps["av"].miou == pytest.approx(sum(ious) / len(ious))
    assert result.maps["av"].max_f == pytest.approx(
        max(sum(column) / len(curves) for column in zip(*curves, strict=True))
    )
    (boxed,) = score_protocols(some_clips(4), [protocol], "union", ["av"])
    assert math.isnan(boxed.maps["av"].miou)
    assert math.isnan(boxed.maps["av"].max_f)


def f_score(heat, truth, at) -> float:
    marked = heat.astype(np.float64) >= at
    hit = float((marked & (truth > 0)).sum())
    if not hit:
        return 0.0
    precision, recall = hit / marked.sum(), hit / (truth > 0).sum()
    return 1.3 * precision * recall / (0.3 * precision + recall)


def test_what_no_clip_shows_is_no_score():
    (result,) = score_protocols([], [Protocol()], "union", ["av"])
    assert (result.maps, result.baselines, result.rows) == ({}, {}, [])


def test_a_score_of_exactly_half_counts_by_the_protocol():
    flat = [LabelledCells(cells=ClipCells(id="a", boxes=LEFT_HALF, maps={"av": np.zeros((7, 7), np.float32)}))]
    at_least, above = score_protocols(flat, [PROTOCOLS["avloc"], PROTOCOLS["slavc"]], "union", ["av"])
    assert at_least.rows[0].scores["av"].ciou == above.rows[0].scores["av"].ciou == 0.5
    assert (at_least.maps["av"].overall.ciou_50, above.maps["av"].overall.ciou_50) == (1.0, 0.0)
    assert at_least.maps["av"].overall.auc == above.maps["av"].overall.auc
    assert summarise([0.5], ">").ciou_50 == 0.0


@pytest.mark.parametrize("drawn", [False, True])
def test_nothing_of_the_size_of_a_picture_is_kept(drawn):
    """What stays of a clip is a few numbers for each map and protocol."""
    few, many = some_clips(10, drawn=drawn), some_clips(40, drawn=drawn)
    protocols = [PROTOCOLS["avloc"], PROTOCOLS["lvs"]]
    kept = []
    for clips in (few, few, many):  # the first time fills caches
        tracemalloc.start()
        results = score_protocols(clips, protocols, "union", KINDS)
        kept.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(results) == 2
    bytes_a_clip = (kept[2] - kept[1]) / 30
    assert bytes_a_clip < 20_000 < 224 * 224
