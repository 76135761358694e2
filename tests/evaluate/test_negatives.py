"""Maps with sounds that show nothing, from cells to scores: extended sets, silence, noise and other classes' sounds."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avloc.config import ModelConfig
from avloc.engine import OTHER_CLASS, SILENCE, WHITE_NOISE, ClipCells
from avloc.evaluate.negatives import has_negatives, score_extended, score_negatives, wrong_sounds
from avloc.evaluate.protocol_scores import LabelledCells, score_protocols
from avloc.metrics import extended_scores
from avloc.protocols import PROTOCOLS, Protocol
from tests import reference_scoring as slow

NAMES = sorted(slow.RULES)
RATE = 8_000
SECONDS = 0.1


# --- extended sets -----------------------------------------------------------------------------------------------


def pairs(seed: int, count: int, name: str) -> list[ClipCells]:
    draw = np.random.default_rng(seed)
    return [
        ClipCells(
            id=f"{name}{index}",
            boxes=np.sort(draw.uniform(0, 1, (1, 2, 2)), axis=1).reshape(1, 4),
            maps={
                "av": draw.uniform(-1, 1, (4, 4)).astype(np.float32),
                "object": draw.uniform(0, 3, (5, 3)).astype(np.float32),
                "detr": draw.uniform(0, 1, (3, 3)).astype(np.float32),
            },
        )
        for index in range(count)
    ]


def confidence_reference(cells: ClipCells, weights, how: str, side: int) -> float:
    """Mean of the hottest quarter, a cosine c counted as (c + 1) / 2 and an activation x as x / 2.5."""
    total = [[0.0] * side for _ in range(side)]
    for name, weight in weights.items():
        grid = slow.resized(cells.maps[name].tolist(), side, how)
        for y in range(side):
            for x in range(side):
                value = (grid[y][x] + 1) / 2 if name == "av" else grid[y][x] / 2.5
                total[y][x] += weight / sum(weights.values()) * value
    hottest = sorted((value for row in total for value in row), reverse=True)[: math.ceil(side * side / 4)]
    return sum(hottest) / len(hottest)


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.integers(3, 8))
@settings(max_examples=10, deadline=None)
def test_extended_scores_equal_plain_loops(name, seed, n_sounding, n_silent, side):
    protocol, rule = replace(PROTOCOLS[name], side=side), slow.RULES[name]
    sounding, silent = pairs(seed, n_sounding, "clip"), pairs(seed + 1, n_silent, "pair")
    kinds = ["av", "object", "fused", "detr", "fused-detr"]
    (result,) = score_protocols([LabelledCells(cells=cells) for cells in sounding], [protocol], "union", kinds)
    ours = score_extended(result.rows, sounding, silent, protocol, kinds)
    assert list(ours) == ["av", "object", "fused"], "attention has no range that is known beforehand"
    for kind, weights in (("av", {"av": 1.0}), ("object", {"object": 1.0}), ("fused", rule.weights)):
        heights = [confidence_reference(cells, weights, rule.resize, side) for cells in [*sounding, *silent]]
        assume(np.diff(sorted(heights)).min() > 1e-5)
        cious = [row.scores[kind].ciou for row in result.rows] + [math.nan] * n_silent
        assert asdict(ours[kind]) == pytest.approx(asdict(extended_scores(heights, cious)), nan_ok=True)


def test_the_order_of_clips_and_pairs_changes_no_extended_score():
    sounding, silent = pairs(1, 6, "clip"), pairs(2, 5, "pair")
    protocol = replace(Protocol(), side=12)
    (result,) = score_protocols(
        [LabelledCells(cells=cells) for cells in sounding], [protocol], "union", ["av", "fused"]
    )
    plain = score_extended(result.rows, sounding, silent, protocol, ["av", "fused"])
    assert score_extended(result.rows, sounding[::-1], silent[::-1], protocol, ["av", "fused"]) == plain


def test_a_map_keeps_its_height_among_the_maps_of_others():
    """Brought to [0, 1] by their own extremes, a loud and a faint map would be equally confident."""
    ramp, whole = np.linspace(0, 1, 49, dtype=np.float32).reshape(7, 7), np.array([[0.0, 0.5, 1.0, 1.0]])
    loud, faint = (
        ClipCells(id=name, boxes=whole, maps={"av": ramp * by}) for name, by in (("loud", 1), ("faint", 0.1))
    )
    for sounding, silent, ap in ((loud, faint, 1.0), (faint, loud, 0.5)):
        (result,) = score_protocols([LabelledCells(cells=sounding)], [Protocol()], "union", ["av"])
        assert score_extended(result.rows, [sounding], [silent], Protocol(), ["av"])["av"].ap == ap


# --- universal thresholds ----------------------------------------------------------------------------------------


@st.composite
def clips_with_wrong_sounds(draw, how: str) -> tuple[int, list[ClipCells]]:
    """Clips whose maps single precision resizes exactly."""
    side, shapes = slow.EXACT_SIZES[how]
    shape = draw(st.sampled_from(shapes))
    values = st.sampled_from([np.float32(value) for value in (-0.5, -0.25, 0, 0.25, 0.5)])

    def maps(count: int) -> np.ndarray:
        return draw(hnp.arrays(np.float32, (count, *shape), elements=values))

    clips = []
    for index in range(draw(st.integers(1, 4))):
        wrong = {SILENCE: maps(1), WHITE_NOISE: maps(2)} | ({OTHER_CLASS: maps(2)} if draw(st.booleans()) else {})
        corners = draw(hnp.arrays(np.float64, (draw(st.integers(0, 2)), 4), elements=st.floats(0, 1)))
        clips.append(ClipCells(id=f"clip{index}", boxes=corners, maps={"av": maps(1)[0]}, wrong=wrong))
    return side, clips


def mean(values) -> float:
    return sum(values) / len(values) if values else math.nan


def quartile(values) -> float:
    ordered, rank = sorted(values), 0.75 * (len(values) - 1)
    low = math.floor(rank)
    return ordered[low] + (ordered[math.ceil(rank)] - ordered[low]) * (rank - low)


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
@settings(max_examples=12, deadline=None)
def test_wrong_sounds_are_scored_as_by_loops(name, data):
    rule = slow.RULES[name]
    side, clips = data.draw(clips_with_wrong_sounds(rule.resize))
    protocol = replace(PROTOCOLS[name], side=side)

    def grown(grid) -> slow.Grid:
        return slow.resized(grid.tolist(), side, rule.resize)

    wrong = [{kind: [grown(one) for one in maps] for kind, maps in cells.wrong.items()} for cells in clips]
    peaks = [max(map(max, one)) for maps in wrong for kind in maps for one in maps[kind]]
    thresholds = {"max": max(peaks), "max10": 1.1 * max(peaks), "maxq3": quartile(peaks)}
    ours = score_negatives(clips, protocol, "union")
    assert {key: scores.threshold for key, scores in ours.items()} == thresholds
    for key, at in thresholds.items():
        own = [slow.marked(grown(cells.maps["av"]), at, strictly=True) for cells in clips]
        truths = [slow.truth(cells.boxes, rule, "union", side) for cells in clips]
        cious = [slow.ciou(mask, truth) for mask, truth in zip(own, truths, strict=True)]
        assert ours[key].n == len(clips)
        assert ours[key].ciou_50 == pytest.approx(mean([value >= 0.5 for value in cious]))
        assert ours[key].mean_ciou == pytest.approx(mean(cious))
        for kind in (SILENCE, WHITE_NOISE, OTHER_CLASS):
            shares, alike = [], []
            for mask, maps in zip(own, wrong, strict=True):
                if kind in maps:
                    masks = [slow.marked(one, at, strictly=True) for one in maps[kind]]
                    shares.append(mean([mean([inside for row in one for inside in row]) for one in masks]))
                    alike.append(mean([slow.iou(mask, [[float(v) for v in row] for row in one]) for one in masks]))
            assert ours[key].pia[kind] == pytest.approx(mean(shares), nan_ok=True)
            assert ours[key].overlap[kind] == pytest.approx(mean(alike), nan_ok=True)
    assert all(share == 0 or math.isnan(share) for share in ours["max"].pia.values())


@given(st.data(), st.randoms())
@settings(max_examples=15, deadline=None)
def test_the_order_of_clips_changes_no_negative_score(data, chance):
    side, clips = data.draw(clips_with_wrong_sounds("corners"))
    protocol = replace(Protocol(), side=side)
    plain = repr(score_negatives(clips, protocol, "union"))
    assert repr(score_negatives(chance.sample(clips, len(clips)), protocol, "union")) == plain


def test_a_threshold_is_met_in_double_precision():
    """1.1 times a peak lies between two single-precision numbers: the lower one is not above it, the upper one is."""
    rounded_up = 0
    for peak in np.linspace(0.1, 0.9, 20, dtype=np.float32):
        at = 1.1 * float(peak)
        nearest = np.float32(at)
        rounded_up += float(nearest) > at
        step = np.nextafter(nearest, np.float32(0 if float(nearest) > at else 1))
        below, above = sorted([nearest, step])
        wrong = {SILENCE: np.full((1, 2, 2), peak), WHITE_NOISE: np.full((1, 2, 2), peak)}
        maps = {"av": np.float32([[below, above], [0, 0]])}
        clip = ClipCells(id="a", boxes=np.array([[0.5, 0, 1, 0.5]]), maps=maps, wrong=wrong)
        assert score_negatives([clip], replace(Protocol(), side=2), "union")["max10"].mean_ciou == 1.0
    assert rounded_up, "else a comparison in single precision would do"


def test_broken_maps_mark_nothing_and_set_no_threshold():
    broken = np.full((1, 4, 4), np.nan, np.float32)
    fine = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 4, 4)
    box = np.array([[0.0, 0.5, 1.0, 1.0]])
    clip = ClipCells(id="a", boxes=box, maps={"av": fine[0]}, wrong={SILENCE: -fine / 2, WHITE_NOISE: broken})
    silent = replace(clip, maps={"av": broken[0]})
    scores = score_negatives([clip], replace(Protocol(), side=4), "union")
    assert scores["max"].threshold == 0.5
    assert scores["max"].pia[WHITE_NOISE] == 0.0
    assert score_negatives([silent], replace(Protocol(), side=4), "union")["maxq3"].mean_ciou == 0.0
    nothing = replace(clip, wrong={SILENCE: broken, WHITE_NOISE: broken})
    unknown = score_negatives([nothing], replace(Protocol(), side=4), "union")["max"]
    assert math.isnan(unknown.threshold)
    assert (unknown.mean_ciou, unknown.pia[SILENCE]) == (0.0, 0.0)


def test_silence_alone_is_no_set_of_negatives():
    grid = np.zeros((1, 2, 2), np.float32)
    assert not has_negatives([ClipCells(id="a", wrong={SILENCE: grid})])
    assert has_negatives([ClipCells(id="a", wrong={SILENCE: grid, WHITE_NOISE: grid})])
    assert not has_negatives([])


# --- which sounds are drawn --------------------------------------------------------------------------------------


class EndsEncoder:
    """A model whose embedding of a sound is its first and its last sample."""

    def __init__(self, rate: int = RATE) -> None:
        self.config = ModelConfig(seconds=SECONDS, rate=rate)
        self.lengths: list[int] = []

    def encode_sound(self, sound, rate) -> torch.Tensor:
        assert rate == RATE
        self.lengths.append(sound.shape[1])
        return sound[:, [0, -1]].float()


class Sounds:
    """A store in which every sample of a clip is the number of the clip."""

    def __init__(self, names) -> None:
        self.spec = SimpleNamespace(rate=RATE, seconds=SECONDS)
        self.numbers = {name: number + 1 for number, name in enumerate(sorted(names))}
        self.read_ids: list[str] = []

    def read(self, clip_id) -> SimpleNamespace:
        self.read_ids.append(clip_id)
        return SimpleNamespace(sound=np.full(int(RATE * SECONDS), self.numbers[clip_id], np.int16))


def drawn_sounds(labels, draws: int) -> dict[str, list[str]]:
    """Clip -> the clips whose sounds it is scored with."""
    store = Sounds(labels)
    names = {number: name for name, number in store.numbers.items()}
    sounds = wrong_sounds(EndsEncoder(), store, labels, draws)
    assert {name: names[int(vector[0, 0])] for name, vector in sounds.of_clips.items()} == {
        n: n for n in sounds.of_clips
    }
    return {clip_id: list(others) for clip_id, others in sounds.others.items()}


labelled = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=6),
    st.sampled_from(["", "dog", "drum", "sea"]),
    max_size=14,
)


@given(labelled, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_other_sounds_are_of_other_classes(labels, draws):
    result = drawn_sounds(labels, draws)
    classes = {label for label in labels.values() if label}
    expected = {name for name, label in labels.items() if label} if len(classes) > 1 else set()
    assert set(result) == expected
    for name, others in result.items():
        assert len(others) == draws
        assert all(labels[other] not in ("", labels[name]) for other in others)


@given(labelled, st.randoms(), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_neither_order_nor_more_draws_change_the_wrong_sounds(labels, chance, draws):
    shuffled = dict(chance.sample(list(labels.items()), len(labels)))
    plain = drawn_sounds(labels, draws)
    assert drawn_sounds(shuffled, draws) == plain
    assert {name: others[:draws] for name, others in drawn_sounds(labels, draws + 2).items()} == plain


@given(labelled, st.data())
@settings(max_examples=60, deadline=None)
def test_a_missing_clip_changes_only_the_clips_that_used_its_sound(labels, data):
    assume(labels)
    before = drawn_sounds(labels, 3)
    gone = data.draw(st.sampled_from(sorted(labels)))
    after = drawn_sounds({name: label for name, label in labels.items() if name != gone}, 3)
    for name, others in before.items():
        if name == gone:
            assert name not in after
        elif gone not in others:
            assert after[name] == others
        elif name in after:  # no other class may be left
            assert [new for new, old in zip(after[name], others, strict=True) if old != gone] == [
                other for other in others if other != gone
            ]


def test_no_sound_is_used_for_most_clips():
    names = {f"{random.Random(index).random()}": f"class {index % 7}" for index in range(300)}
    result = drawn_sounds(names, 4)
    counts = Counter(other for others in result.values() for other in others)
    assert sum(counts.values()) == 1200
    assert max(counts.values()) <= 16, "four on average"
    assert len(counts) > 280
    assert sum(len(set(others)) < 4 for others in result.values()) < 20, "draws are drawn apart"


def test_each_sound_is_encoded_once_and_noise_is_the_same_for_all():
    labels = {f"clip{index}": f"class {index % 2}" for index in range(12)}
    encoder, store = EndsEncoder(), Sounds(labels)
    sounds = wrong_sounds(encoder, store, labels, 5)
    assert sorted(set(store.read_ids)) == sorted(store.read_ids)
    assert len(encoder.lengths) == len(store.read_ids) + 5
    assert set(encoder.lengths) == {int(RATE * SECONDS)}
    assert sounds.silence is None, "silence is filled in where the pictures are"
    assert sounds.noise.shape == (5, 2)
    assert len({tuple(draw) for draw in sounds.noise.tolist()}) == 5
    fewer = wrong_sounds(EndsEncoder(), Sounds({}), {}, 2)
    assert torch.equal(fewer.noise, sounds.noise[:2])
    assert (fewer.of_clips, fewer.others) == ({}, {})


def test_noise_for_a_model_without_a_fixed_rate_has_the_rate_of_the_store():
    encoder = EndsEncoder(rate=0)
    wrong_sounds(encoder, Sounds({}), {}, 1)
    assert encoder.lengths == [int(RATE * SECONDS)]
