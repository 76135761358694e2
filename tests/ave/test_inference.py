"""Cards that do not fit the model."""

from __future__ import annotations

from avloc.ave.networks import build_network
from avloc.checkpoint import save_model
from avloc.config import ModelConfig
from avloc.registry import EVENT_SPECS


def test_a_card_that_does_not_fit_is_named(tmp_path, here, tiny_teachers):
    config = ModelConfig(**EVENT_SPECS["ave"].settings["model"], own={"classes": 2})
    for classes in (["a"], 5, [1, 2]):
        save_model(tmp_path / "a.safetensors", config, build_network(config).state_dict(), {"classes": classes})
        done = here("localize", __file__, "--events", "--model", tmp_path / "a.safetensors")
        assert (done.code, "does not name as many" in done.err) == (4, True), done.err
