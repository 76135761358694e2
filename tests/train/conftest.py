"""A store to train on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.synthetic_scenes import write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """14 clips with hints."""
    return write_store(tmp_path_factory.mktemp("train") / "store", 14, hints=True)
