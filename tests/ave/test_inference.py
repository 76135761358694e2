"""Cards that do not fit the model; the precision of predictions."""

from __future__ import annotations

import pytest
import torch

from avloc.ave.inference import EventPredictor
from avloc.ave.networks import build_network
from avloc.checkpoint import load_model, save_model
from avloc.config import ModelConfig
from avloc.networks.base import allows_tf32
from avloc.registry import EVENT_SPECS
from tests.synthetic_ave import features


def test_a_card_that_does_not_fit_is_named(tmp_path, here, tiny_teachers):
    config = ModelConfig(**EVENT_SPECS["ave"].settings["model"], own={"classes": 2})
    for classes in (["a"], 5, [1, 2]):
        save_model(tmp_path / "a.safetensors", config, build_network(config).state_dict(), {"classes": classes})
        done = here("localize", __file__, "--events", "--model", tmp_path / "a.safetensors")
        assert (done.code, "does not name as many" in done.err) == (4, True), done.err


@pytest.mark.parametrize("method", ["ave", "ave-match"])
def test_predictions_are_without_tf32(tmp_path, method):
    """By default cuDNN rounds the products of recurrent layers to it."""
    config = ModelConfig(**EVENT_SPECS[method].settings["model"], own=EVENT_SPECS[method].own_settings({}))
    path = tmp_path / "a.safetensors"
    save_model(path, config, build_network(config).state_dict(), {})
    predictor, allowed = EventPredictor(load_model(path), "cpu"), []
    for part in predictor.network.modules():
        part.register_forward_pre_hook(lambda *_: allowed.append(allows_tf32(torch.device("cuda"))))
    batch = features(2, 3)
    if method == "ave":
        predictor.predict(batch.visual, batch.audio)
    else:
        predictor.distances(batch)
    assert (set(allowed), allows_tf32(torch.device("cuda"))) == ({False}, True)
