"""Maps, masks, negatives, losses and gradients of SACL against numbers from the published code."""

from __future__ import annotations

import pytest
import torch

from avloc.config import LossWeights
from avloc.methods import Embeddings, HintBatch, Supervision, any_class, build
from avloc.methods.sacl import binary_map, kept_columns, positive_masks
from avloc.networks.vggish import SoundVectors
from tests.parity import drawing
from tests.parity.comparing import TOLERANCE, check_gradients, close, tensors


@pytest.fixture(scope="module")
def sacl():
    reference = drawing.vectors("sacl")
    seed = int(reference["seed"])
    files = {name: tensors(state) for name, state in drawing.weights_of_files("sacl_keys.json", seed).items()}
    config, state = any_class("sacl").from_published(files)
    model = build(config)
    model.load_state_dict(state)
    return model, tensors(drawing.two_views(int(reference["input_seed"]), 6)), reference


def segments(reference) -> list[torch.Tensor]:
    return [torch.from_numpy(reference[f"segments_view{view}"]) for view in (1, 2)]


def check(model, batch, reference, mode: str) -> torch.Tensor:
    first, _ = model.encode_image(batch["view1"])
    second, _ = model.encode_image(batch["view2"])
    embeddings = Embeddings(first, model.encode_audio(batch["log_mel"]), second=second)
    maps = [model.similarity(Embeddings(view, embeddings.audio)) for view in (first, second)]
    binary = [binary_map(each, 0.5) for each in maps]
    masks = positive_masks(binary, [label[:, ::16, ::16] for label in segments(reference)])
    sound = SoundVectors.unpack(embeddings.audio)
    alike = sound.embedding @ sound.embedding.T
    close(alike.detach(), reference[f"{mode}_audio_similarity"], TOLERANCE)
    kept = kept_columns(alike, 0.75)
    assert kept.int().tolist() == reference[f"{mode}_kept_columns"].tolist()
    for view, cells in enumerate((first, second)):
        close(maps[view].detach(), reference[f"{mode}_map_view{view + 1}"], TOLERANCE)
        assert torch.equal(binary[view], torch.from_numpy(reference[f"{mode}_binary_map_view{view + 1}"]).bool())
        assert torch.equal(masks[view], torch.from_numpy(reference[f"{mode}_positive_mask_view{view + 1}"]).bool())
        scores = model.scores(cells, masks[view], sound.joint)
        close(scores.detach(), reference[f"{mode}_score_view{view + 1}"], TOLERANCE)
    truth = Supervision(segments=segments(reference))
    return model.losses(embeddings, HintBatch(), LossWeights(), truth)["contrastive"]


def test_parity_sacl_maps(sacl):
    model, batch, reference = sacl
    with torch.no_grad():
        loss = check(model.eval(), batch, reference, "eval")
        close(loss.item(), reference["eval_loss"].item(), TOLERANCE)
        embedded, transformed = model.sound(batch["log_mel"])
        close(embedded, reference["eval_sound_embedding"], TOLERANCE)
        close(transformed[..., :64], reference["eval_sound_transformed_head"], TOLERANCE)
        close(model.frame(batch["view1"]).features[:, :2], reference["eval_frame_head"], TOLERANCE)


def test_parity_sacl_losses_and_gradients(sacl):
    model, batch, reference = sacl
    start = {key: value.clone() for key, value in model.state_dict().items()}
    loss = check(model.train(), batch, reference, "train")
    loss.backward()
    close(loss.item(), reference["train_loss"].item(), TOLERANCE)
    check_gradients(model, reference)
    model.load_state_dict(start)
