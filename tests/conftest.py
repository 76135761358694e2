"""Shared fixtures and settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.processes import Here

# With several pytest workers on the same cores, torch threads would spin while they wait for each other, which costs a
# third of the time of all tests. Set before torch is imported, also for the programs that the tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Derandomized, so that failures depend on the code alone; HYPOTHESIS_PROFILE=default explores new examples. No
# deadline, because tests may run on a busy machine.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture
def here(monkeypatch, capfd) -> Here:
    return Here(monkeypatch, capfd)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No cached weights and no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("AVLOC_WEIGHTS", "AVLOC_DATA", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_hash_in_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of Lite0's file contains its hash, which random weights cannot match."""
    monkeypatch.setattr("avloc.weights.lookup.hash_in_name", lambda _file: "")


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A folder for `--weights-dir` with all teachers, of random weights."""
    from tests.teacher_makers import saved_teachers

    return saved_teachers(tmp_path_factory)


@pytest.fixture(scope="module")
def layers() -> list[tuple]:
    """Layers of a random YAMNet, as in its TensorFlow Lite file."""
    from tests.recipe_makers import yamnet_layers

    return yamnet_layers()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from tests.small_models import save_small

    return save_small(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Videos, a broken one, and files that are no videos: see `write_clips`."""
    from tests.clip_folder import write_clips

    return write_clips(tmp_path_factory.mktemp("clips"))
