"""Settings round-trip through TOML, and invalid ones are refused."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avloc import config
from avloc.config import ModelConfig, TrainConfig, from_dict, parse_settings, read_toml, to_dict, write_toml
from avloc.errors import UsageError
from avloc.registry import StoreSpec, merged


def test_the_defaults_are_those_of_the_paper():
    train = TrainConfig()
    assert (train.model.vision_trunk, train.model.audio_trunk, train.model.dim, train.model.tau) == (
        "resnet18",
        "resnet18",
        2048,
        0.03,
    )
    weights = {"contrastive": 1.0, "audio_hint": 1000.0, "visual_hint": 100_000.0, "box": 0.0, "peak": 0.0}
    weights |= {"agreement": 1.0, "event": 1.0}  # terms that AVC does not have
    assert to_dict(train.loss) == {**weights, "same_class": "negative"}
    assert (train.optim.lr, train.batch, train.epochs, train.init) == (1e-4, 128, 100, "imagenet")
    assert (train.model.seconds, train.model.rate) == (3.0, 22_050)


@given(
    st.floats(1e-6, 1.0),
    st.integers(2, 4096),
    st.sampled_from(["follow", "legacy"]),
    st.sampled_from([0, 16_000, 44_100]),
)
def test_settings_round_trip_through_toml(tmp_path_factory, lr, batch, kind, rate):
    record = TrainConfig(
        model=ModelConfig(rate=rate),
        optim=config.OptimConfig(lr=lr),
        augment=config.AugmentConfig(map=kind),
        batch=batch,
    )
    path = tmp_path_factory.mktemp("toml") / "config.toml"
    path.write_text(write_toml(to_dict(record)))
    assert from_dict(TrainConfig, read_toml(path)) == record


def test_settings_override_the_file():
    table = merged({"batch": 64, "optim": {"lr": 0.1}}, parse_settings(["optim.lr=0.5", "augment.map=legacy"]))
    record = from_dict(TrainConfig, table)
    assert (record.batch, record.optim.lr, record.augment.map) == (64, 0.5, "legacy")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("batch", "key=value"),
        ("=3", "key=value"),
        ("bach=3", "unknown setting bach"),
        ("optim.rl=3", "unknown setting optim.rl"),
        ("batch=1", "2 or more"),
        ("batch=many", "type int"),
        ("optim=3", "table of settings"),
        ("augment.map=both", "follow or legacy"),
        ("loss.box=-1", "0 or more"),
        ("loss.peak=-1", "0 or more"),
        ("optim.schedule=linear", "constant or cosine"),
        ("loss.same_class=positive", "negative or masked"),
        ("augment.flip=2", "probability"),
        ("audio_teacher=detr", "panns, yamnet, vggish"),
        ("visual_teacher=yamnet", "detr, lite0"),
        ("precision=half", "auto, fp32, bf16"),
        ("model.tau=0", "positive"),
        ("epochs=true", "type int"),
    ],
)
def test_invalid_settings_are_named(assignment, message):
    with pytest.raises(UsageError, match=message):
        from_dict(TrainConfig, parse_settings([assignment]))


def test_every_record_is_frozen_and_every_field_is_documented():
    for kind in (StoreSpec, ModelConfig, config.AugmentConfig, TrainConfig):
        with pytest.raises(dataclasses.FrozenInstanceError):
            kind().rate = 1
