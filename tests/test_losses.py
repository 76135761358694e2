"""Values and gradients of every loss term against plain loops."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from avloc import losses
from avloc.config import LossWeights, ModelConfig
from avloc.methods import Embeddings, HintBatch, Supervision
from avloc.methods.avc import AVC
from avloc.methods.ezvsl import EZVSL


def units(batch: int, dim: int, cells: int, seed: int, *, grad: bool = False):
    generator = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(batch, dim, cells, cells, generator=generator, dtype=torch.float64), dim=1)
    audio = F.normalize(torch.randn(batch, dim, generator=generator, dtype=torch.float64), dim=1)
    return image.requires_grad_(grad), audio.requires_grad_(grad)


def contrastive_reference(image, audio, tau):
    batch = len(audio)
    best = [
        [
            max((image[n, :, y, x] @ audio[m]) / tau for y in range(image.shape[2]) for x in range(image.shape[3]))
            for m in range(batch)
        ]
        for n in range(batch)
    ]
    total = 0.0
    for n in range(batch):
        total = total - best[n][n] + torch.logsumexp(torch.stack(best[n]), 0)
        total = total - best[n][n] + torch.logsumexp(torch.stack([best[m][n] for m in range(batch)]), 0)
    return total / batch


@given(st.integers(2, 5), st.integers(2, 6), st.integers(1, 3), st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_contrastive_equals_its_definition(batch, dim, cells, seed):
    image, audio = units(batch, dim, cells, seed, grad=True)
    ours, reference = losses.contrastive(image, audio, 0.3), contrastive_reference(image, audio, 0.3)
    assert torch.allclose(ours, reference)
    for mine, other in zip(
        torch.autograd.grad(ours, [image, audio]), torch.autograd.grad(reference, [image, audio]), strict=True
    ):
        assert torch.allclose(mine, other, atol=1e-9)


@pytest.mark.parametrize("at_once", [1, 12, 40])
def test_contrastive_does_not_depend_on_the_chunk_size(monkeypatch, at_once):
    """Seven pictures of four cells with seven sounds, in chunks of one, three and all."""
    monkeypatch.setattr(losses, "_AT_ONCE", at_once * 7)
    image, audio = units(7, 5, 2, 3, grad=True)
    ours, reference = losses.contrastive(image, audio, 0.3), contrastive_reference(image, audio, 0.3)
    assert torch.allclose(ours, reference)
    for mine, other in zip(*(torch.autograd.grad(term, [image, audio]) for term in (ours, reference)), strict=True):
        assert torch.allclose(mine, other, atol=1e-9)


def masked_reference(image, audio, tau, relation):
    """Two terms for each clip with a positive pair: its sound, and its picture, among the negatives."""
    batch = len(audio)
    anchors = [n for n in range(batch) if relation[n][n] > 0]
    best = [[(torch.einsum("dhw,d->hw", image[n], audio[m]) / tau).max() for m in range(batch)] for n in range(batch)]
    total = 0 * (image.sum() + audio.sum())
    for n in anchors:
        sounds = [best[n][m] for m in range(batch) if m == n or relation[n][m] < 0]
        pictures = [best[m][n] for m in range(batch) if m == n or relation[m][n] < 0]
        total = total + sum(torch.logsumexp(torch.stack(others), 0) - best[n][n] for others in (sounds, pictures))
    return total / max(1, len(anchors))


def related(batch, seed):
    """Random relations of a batch; a clip's own sound is a positive or a negative."""
    generator = torch.Generator().manual_seed(seed)
    relation = -torch.randint(0, 2, (batch, batch), generator=generator, dtype=torch.int8)
    relation.fill_diagonal_(0)
    return relation + torch.diag(2 * torch.randint(0, 2, (batch,), generator=generator, dtype=torch.int8) - 1)


@given(st.integers(1, 5), st.integers(2, 6), st.integers(1, 3), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_masked_contrastive_equals_its_definition(batch, dim, cells, seed):
    image, audio = units(batch, dim, cells, seed, grad=True)
    relation = related(batch, seed)
    ours, reference = losses.contrastive(image, audio, 0.3, relation), masked_reference(image, audio, 0.3, relation)
    assert torch.allclose(ours, reference)
    for mine, other in zip(
        torch.autograd.grad(ours, [image, audio]), torch.autograd.grad(reference, [image, audio]), strict=True
    ):
        assert torch.allclose(mine, other, atol=1e-9)


def test_contrastive_is_the_published_loss_if_all_other_sounds_are_negatives():
    image, audio = units(5, 8, 3, 0)
    relation = 2 * torch.eye(5, dtype=torch.int8) - 1
    assert torch.equal(losses.contrastive(image, audio, 0.03, relation), losses.contrastive(image, audio, 0.03))


def box_reference(image, audio, relation, cover, boxed):
    inside, outside = [], []
    for n in range(len(audio)):
        for m in range(len(audio)):
            own = n == m and relation[n][n] > 0 and boxed[n]
            if not own and relation[n][m] >= 0:
                continue
            for y in range(image.shape[2]):
                for x in range(image.shape[3]):
                    target = cover[n, y, x] if own else 0.0
                    probability = torch.sigmoid((image[n, :, y, x] @ audio[m] - 0.3) * 10)
                    error = -(target * torch.log(probability) + (1 - target) * torch.log(1 - probability))
                    (inside if target > 0.2 else outside).append(error)
    return sum(torch.stack(kind).mean() for kind in (inside, outside) if kind) if inside or outside else None


def peak_reference(image, audio, relation, cover, boxed):
    found = []
    for n in range(len(audio)):
        if relation[n][n] <= 0 or not boxed[n] or not (cover[n] > 0).any():
            continue
        places = [(y, x) for y in range(image.shape[2]) for x in range(image.shape[3])]
        weights = [torch.exp(image[n, :, y, x] @ audio[n] / 0.07) for y, x in places]
        inside = sum(weight * cover[n, y, x] for weight, (y, x) in zip(weights, places, strict=True))
        found.append(-torch.log(inside / sum(weights)))
    return sum(found) / len(found) if found else None


@pytest.mark.parametrize(
    ("term", "reference"),
    [(losses.box, box_reference), (partial(losses.peak, tau=0.07), peak_reference)],
    ids=["box", "peak"],
)
@given(st.integers(1, 4), st.integers(2, 5), st.integers(1, 3), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_terms_of_boxes_equal_their_definitions(term, reference, batch, dim, cells, seed):
    image, audio = units(batch, dim, cells, seed, grad=True)
    generator = torch.Generator().manual_seed(seed)
    cover = (2 * torch.rand(batch, cells, cells, generator=generator, dtype=torch.float64) - 0.5).clamp(0, 1)
    boxed = torch.rand(batch, generator=generator) < 0.7
    cover[~boxed] = float("nan")
    relation = related(batch, seed)
    ours, reference = (kind(image, audio, relation, cover, boxed) for kind in (term, reference))
    assert (ours is None) == (reference is None)
    if ours is None:
        return
    assert torch.allclose(ours, reference)
    for mine, other in zip(
        torch.autograd.grad(ours, [image, audio]), torch.autograd.grad(reference, [image, audio]), strict=True
    ):
        assert torch.allclose(mine, other, atol=1e-9)


def test_the_peak_term_is_zero_where_boxes_cover_all_and_its_gradient_points_to_the_box_elsewhere():
    image, audio = units(1, 6, 3, 2, grad=True)
    relation, boxed = torch.ones(1, 1, dtype=torch.int8), torch.tensor([True])
    everywhere = torch.ones(1, 3, 3, dtype=torch.float64)
    assert losses.peak(image, audio, relation, everywhere, boxed, 0.07).item() == pytest.approx(0, abs=1e-12)
    corner = torch.zeros(1, 3, 3, dtype=torch.float64)
    corner[0, 0, 2] = 1
    (slope,) = torch.autograd.grad(losses.peak(image, audio, relation, corner, boxed, 0.07), [image])
    rising = -torch.einsum("bdhw,bd->bhw", slope, audio)[0]
    assert rising[0, 2] > 0
    assert (rising.flatten()[[0, 1, 3, 4, 5, 6, 7, 8]] < 0).all()


def test_contrastive_of_identical_pairs_is_two_log_batch():
    image = F.normalize(torch.ones(6, 4, 2, 2), dim=1)
    audio = F.normalize(torch.ones(6, 4), dim=1)
    assert losses.contrastive(image, audio, 0.03).item() == pytest.approx(2 * math.log(6), rel=1e-5)


def test_contrastive_does_not_depend_on_the_order_of_the_batch():
    image, audio = units(5, 8, 3, 0)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(losses.contrastive(image, audio, 0.03), losses.contrastive(image[order], audio[order], 0.03))


def test_audio_hint_is_a_mean_over_all_elements():
    _, audio = units(3, 7, 1, 1)
    hint = torch.randn(3, 7, dtype=torch.float64)
    reference = sum((audio[n, d] - hint[n, d]) ** 2 for n in range(3) for d in range(7)) / 21
    assert torch.allclose(losses.audio_hint(audio, hint), reference)


def visual_reference(image, hint, present):
    kept = [row for row in range(len(hint)) if present[row]]
    errors = []
    for row in kept:
        small = sum(image[row, channel] for channel in range(image.shape[1])) / image.shape[1]
        large = F.interpolate(small[None, None], size=hint.shape[1:], mode="bilinear", align_corners=False)[0, 0]
        errors += [(large[y, x] - hint[row, y, x]) ** 2 for y in range(hint.shape[1]) for x in range(hint.shape[2])]
    return sum(errors) / len(errors)


@pytest.mark.parametrize("present", [(True, False, True), (True, True, True), (False, False, True)])
def test_visual_hint_averages_over_the_rows_that_have_one(present):
    image, _ = units(3, 5, 4, 2, grad=True)
    hint = torch.rand(3, 6, 6, dtype=torch.float64)
    hint[~torch.tensor(present)] = float("nan")
    ours = losses.visual_hint(image, hint, torch.tensor(present))
    reference = visual_reference(image, hint, present)
    assert torch.allclose(ours, reference)
    assert torch.allclose(torch.autograd.grad(ours, image)[0], torch.autograd.grad(reference, image)[0])


def vectors_reference(image, hint, present):
    """Half-pixel bilinear by hand: a cell's centre among the centres of the hint's cells, which end at the border."""
    height, width = image.shape[2:]

    def at(position, cells, count):
        place = min(max((position + 0.5) * count / cells - 0.5, 0.0), count - 1.0)
        low = min(int(place), max(count - 2, 0))
        return low, min(low + 1, count - 1), place - low

    errors = []
    for row in (row for row in range(len(hint)) if present[row]):
        for y in range(height):
            top, bottom, down = at(y, height, hint.shape[2])
            for x in range(width):
                left, right, across = at(x, width, hint.shape[3])
                upper = hint[row, :, top, left] * (1 - across) + hint[row, :, top, right] * across
                lower = hint[row, :, bottom, left] * (1 - across) + hint[row, :, bottom, right] * across
                wanted = upper * (1 - down) + lower * down
                errors += [(image[row, d, y, x] - wanted[d]) ** 2 for d in range(image.shape[1])]
    return sum(errors) / len(errors)


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (2, 3), (1, 1)])
@pytest.mark.parametrize("present", [(True, False, True), (True, True, True)])
def test_visual_hints_that_are_vectors_are_compared_cell_by_cell(grid, present):
    image, _ = units(3, 5, 4, 2, grad=True)
    hint = F.normalize(torch.rand(3, 5, *grid, dtype=torch.float64), dim=1)
    hint[~torch.tensor(present)] = float("nan")
    model = AVC(ModelConfig(dim=5, vision_trunk="shufflenet_v2_x0_5", audio_trunk="shufflenet_v2_x0_5"))
    hints = HintBatch(visual=hint, visual_present=torch.tensor(present))
    ours = model.losses(Embeddings(image, torch.rand(3, 5, dtype=torch.float64)), hints, LossWeights())["visual_hint"]
    reference = vectors_reference(image, hint, present)
    assert torch.allclose(ours, reference)
    assert torch.allclose(torch.autograd.grad(ours, image)[0], torch.autograd.grad(reference, image)[0])
    assert losses.visual_hint(image, hint, torch.zeros(3, dtype=torch.bool)) is None


def test_a_batch_without_any_visual_hint_skips_the_term():
    image, audio = units(3, 5, 4, 3, grad=True)
    hints = HintBatch(visual=torch.full((3, 25, 25), float("nan")), visual_present=torch.zeros(3, dtype=torch.bool))
    model = AVC(ModelConfig(dim=5, vision_trunk="shufflenet_v2_x0_5", audio_trunk="shufflenet_v2_x0_5"))
    terms = model.losses(Embeddings(image, audio), hints, LossWeights())
    assert set(terms) == {"contrastive"}
    assert torch.isfinite(torch.autograd.grad(terms["contrastive"], image)[0]).all()


def test_a_weight_of_zero_omits_its_term():
    image, audio = units(2, 5, 4, 4)
    hints = HintBatch(audio=audio.clone(), visual=torch.rand(2, 25, 25), visual_present=torch.ones(2, dtype=torch.bool))
    model = AVC(ModelConfig(dim=5, vision_trunk="shufflenet_v2_x0_5", audio_trunk="shufflenet_v2_x0_5"))
    named = {
        name: set(model.losses(Embeddings(image, audio), hints, LossWeights(**{name: 0.0})))
        for name in ("audio_hint", "visual_hint")
    }
    assert named == {"audio_hint": {"contrastive", "visual_hint"}, "visual_hint": {"contrastive", "audio_hint"}}


@pytest.mark.parametrize("method", [AVC, EZVSL])
def test_labels_and_boxes_change_nothing_without_their_weights(method):
    image, audio = units(3, 5, 4, 5)
    truth = Supervision(
        relation=torch.tensor([[1, 0, -1], [0, 1, -1], [-1, -1, -1]], dtype=torch.int8),
        cover=torch.rand(3, 4, 4, dtype=torch.float64),
        boxed=torch.tensor([True, True, False]),
    )
    model = method(ModelConfig(dim=5, vision_trunk="shufflenet_v2_x0_5", audio_trunk="shufflenet_v2_x0_5"))

    def terms(weights, truth=truth):
        return {
            name: term.item()
            for name, term in model.losses(Embeddings(image, audio), HintBatch(), weights, truth).items()
        }

    published = {"contrastive": losses.contrastive(image, audio, model.tau).item()}
    assert terms(LossWeights()) == terms(LossWeights(), truth=None) == published
    masked = losses.contrastive(image, audio, model.tau, truth.relation).item()
    assert terms(LossWeights(same_class="masked")) == {"contrastive": masked}
    boxes = losses.box(image, audio, truth.relation, truth.cover, truth.boxed).item()
    assert terms(LossWeights(box=1.0)) == {**published, "box": boxes}
    peak = losses.peak(image, audio, truth.relation, truth.cover, truth.boxed, model.tau).item()
    assert terms(LossWeights(peak=1.0)) == {**published, "peak": peak}
