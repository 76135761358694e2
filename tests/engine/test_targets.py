"""Labels and boxes as targets: the grammar, areas by brute force, crops and flips that take boxes along."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from avloc import losses
from avloc.annotations.labels import parse_label, relations
from avloc.config import AugmentConfig, LossWeights, ModelConfig, TrainConfig
from avloc.dataset import Batch, ClipSet, clip_loader
from avloc.engine import Engine, supervise
from avloc.engine.targets import box_cells, box_cover, mask_cover
from avloc.media.pictures import encode_png
from avloc.methods import HintBatch
from avloc.registry import StoreSpec
from avloc.store import Clip, Store, StoreHeader, StoreWriter
from avloc.transforms import crop_frames, draw_crops, normalise_frames

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "sounding", "visible"),
    [
        ("", "", set()),
        ("dog", "dog", {"dog"}),
        ("violin | violin, dog", "violin", {"violin", "dog"}),
        ("silence | dog", "silence", {"dog"}),
        (" siren |  dog ,cat, ", "siren", {"dog", "cat"}),
        ("siren | ", "siren", set()),
        ("vehicle horn, car horn, honking", "vehicle horn, car horn, honking", {"vehicle horn, car horn, honking"}),
    ],
)
def test_label_has_a_sounding_and_visible_classes(text, sounding, visible):
    label = parse_label(text)
    assert (label.sounding, label.visible) == (sounding, visible)


def test_a_sound_is_wrong_only_by_both_labels():
    labels = ["dog | dog, cat", "cat", "siren | dog", "", "dog"]
    assert relations(labels).tolist() == [
        [1, 0, -1, 0, 0],
        [-1, 1, -1, 0, -1],
        [0, -1, -1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, -1, -1, 0, 1],
    ]


NAMES = st.sampled_from(["dog", "cat", "bird"])
LABELS = st.one_of(st.just(""), NAMES, st.tuples(NAMES, st.sets(NAMES, min_size=1)))


@given(st.lists(LABELS, max_size=20))
def test_relations_follow_the_rule_pair_by_pair(drawn):
    texts = [text if isinstance(text, str) else f"{text[0]} | {', '.join(sorted(text[1]))}" for text in drawn]
    parts = [({text}, text) if isinstance(text, str) else (text[1], text[0]) for text in drawn]
    found = relations(texts)
    for n, (visible, own) in enumerate(parts):
        for m, (_, sounding) in enumerate(parts):
            wrong = bool(own) and bool(sounding) and sounding not in visible
            assert found[n, m] == (-1 if wrong else n == m)


FRACTION = st.integers(0, 24).map(lambda k: k / 24)
BOXES = st.lists(st.tuples(FRACTION, FRACTION, FRACTION, FRACTION), max_size=4)


def painted(boxes):
    """[240, 240] pixels, each inside a box or not; the fractions of `FRACTION` fall on their edges."""
    out = np.zeros((240, 240), bool)
    for x0, y0, x1, y1 in boxes:
        out[round(y0 * 240) : round(y1 * 240), round(x0 * 240) : round(x1 * 240)] = True
    return out


def counted(pixels, window, grid):
    """Pixel by pixel: what share of a cell's pixels is set; cells must hold whole pixels."""
    x0, y0, x1, y1 = (round(value * 240) for value in window)
    inside = pixels[y0:y1, x0:x1]
    high, wide = inside.shape[0] // grid[0], inside.shape[1] // grid[1]
    return [
        [inside[r * high : r * high + high, c * wide : c * wide + wide].mean() for c in range(grid[1])]
        for r in range(grid[0])
    ]


@given(BOXES, st.sampled_from([(0.0, 0.0, 1.0, 1.0), (0.25, 0.0, 0.75, 0.5), (0.1, 0.5, 0.6, 1.0)]))
@settings(deadline=None)
def test_cover_equals_counted_pixels(boxes, window):
    pixels = painted(boxes)
    truth = np.array(counted(pixels, window, (4, 6)))
    np.testing.assert_allclose(box_cover(np.array(boxes).reshape(-1, 4), window, (4, 6)), truth, atol=1e-6)
    np.testing.assert_allclose(mask_cover(pixels, window, (4, 6)), truth, atol=1e-6)


@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 3), st.just(4)), elements=st.floats(-1, 2)), st.integers(1, 9))
def test_cover_is_a_share_whatever_the_boxes(boxes, side):
    cover = box_cover(boxes, (0.0, 0.0, 1.0, 1.0), (side, side))
    assert (cover.dtype, cover.shape) == (np.float32, (side, side))
    assert (cover >= 0).all()
    assert (cover <= 1).all()


def annotated(folder, *, as_mask):
    """Pictures that are white in their boxes and black elsewhere, so that a crop shows its own truth."""
    spec = StoreSpec()
    rng = np.random.default_rng(3)
    with StoreWriter(folder, StoreHeader(spec=spec)) as writer:
        for index in range(6):
            height, width = int(rng.integers(64, 130)), int(rng.integers(64, 130))
            x0, y0 = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
            white = np.zeros((height, width), bool)
            white[y0 : y0 + 40, x0 : x0 + 30] = True
            ys, xs = np.nonzero(white)
            box = [[x0 / width, y0 / height, (xs.max() + 1) / width, (ys.max() + 1) / height]]
            png = io.BytesIO()
            Image.fromarray(white).convert("RGB").save(png, "PNG")
            truth = {"mask": encode_png(white)} if as_mask else {"boxes": np.array(box)}
            sound = np.zeros(spec.samples, np.int16)
            writer.add(Clip(id=f"c{index}", picture=png.getvalue(), sound=sound, frame_hw=(height, width), **truth))
    return Store(folder)


@pytest.mark.parametrize("as_mask", [False, True])
def test_boxes_are_cropped_and_flipped_with_their_picture(tmp_path, as_mask):
    store = annotated(tmp_path, as_mask=as_mask)
    (batch,) = clip_loader(ClipSet(store, store.ids, ModelConfig(frame=64, dim=16), least_side=96), batch=6)
    crops = draw_crops(batch.sizes, 64, 1.5, 0.5, torch.rand((6, 3), generator=torch.Generator().manual_seed(1)))
    assert 0 < int(crops.flip.sum()) < 6
    cover, boxed = box_cells(batch, crops, (4, 4))
    assert boxed.all()
    white = crop_frames(batch.frames, batch.sizes, crops).mean(1) / 255
    shown = torch.nn.functional.avg_pool2d(white, 16)
    assert (cover - shown).abs().max() < 0.06  # resizing blurs the edges
    assert cover.max() > 0.5


def batch_of(labels, boxes) -> Batch:
    count = len(labels)
    return Batch(
        ids=[f"c{n}" for n in range(count)],
        frames=torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        sizes=torch.full((count, 2), 64),
        sound=torch.randint(-999, 999, (count, 12_000), dtype=torch.int16, generator=torch.Generator().manual_seed(0)),
        rate=22_050,
        hints=HintBatch(),
        labels=labels,
        boxes=[np.array(rows, float).reshape(-1, 4) for rows in boxes],
        masks=[b""] * count,
        failures=[],
        failed_at=[],
    )


def test_nothing_is_read_that_no_setting_asks_for():
    batch = batch_of(["dog", "dog"], [[], [[0, 0, 1, 1]]])
    crops = draw_crops(batch.sizes, 64, 1.0, 0.0, torch.rand(2, 3))
    published = supervise(batch, LossWeights(), crops, (2, 2))
    assert (published.relation, published.cover, published.boxed) == (None, None, None)
    masked = supervise(batch, LossWeights(same_class="masked"), crops, (2, 2))
    assert masked.relation.tolist() == [[1, 0], [0, 1]]
    assert masked.cover is None
    boxes = supervise(batch, LossWeights(box=1.0), crops, (2, 2))
    assert boxes.relation.tolist() == [[1, -1], [-1, 1]]
    assert boxes.boxed.tolist() == [False, True]
    assert boxes.cover.tolist() == [[[0, 0], [0, 0]], [[1, 1], [1, 1]]]
    whole_frames = supervise(batch, LossWeights(box=1.0, same_class="masked"))
    assert (whole_frames.relation.tolist(), whole_frames.cover) == ([[1, 0], [0, 1]], None)


def test_a_training_step_learns_from_labels_and_cropped_boxes():
    small = ModelConfig(dim=16, vision_trunk="shufflenet_v2_x0_5", audio_trunk="shufflenet_v2_x0_5", frame=64)
    batch = batch_of(["dog | dog, cat", "cat", "siren | cat"], [[[0, 0, 0.5, 1]], [], [[0.5, 0, 1, 1]]])
    engine = Engine(small, CPU)
    engine.model.eval()
    weights = LossWeights(audio_hint=0, visual_hint=0, box=1.0, same_class="masked")
    config = TrainConfig(model=small, loss=weights, augment=AugmentConfig(scale=1.0, flip=1.0))
    with torch.no_grad():
        terms = engine.training_step(batch, config, torch.Generator().manual_seed(0))
        shown = engine.encode([normalise_frames(batch.frames.flip(3))], engine.spectrogram(batch.sound, batch.rate))
    relation = torch.from_numpy(relations(batch.labels))
    assert set(terms) == {"contrastive", "box"}
    assert torch.allclose(terms["contrastive"], losses.contrastive(shown.image, shown.audio, small.tau, relation))
    height, width = shown.image.shape[2:]
    cover = torch.from_numpy(box_cover(np.array([[0.5, 0, 1, 1]]), (0, 0, 1, 1), (height, width)).copy())  # flipped
    covers, boxed = cover.repeat(3, 1, 1), torch.tensor([True, False, True])
    assert torch.allclose(terms["box"], losses.box(shown.image, shown.audio, relation, covers, boxed))
